"""Where the planner puts sums over the batch, and how many rows a block has."""

from __future__ import annotations

import pytest

from lamina.ir.contractions import conv, dot
from lamina.ir.elementary import broadcast, reduce_sum
from lamina.ir.graph import constant, input_node
from lamina.ir.movement import transpose
from lamina.ir.program import Program
from lamina.ir.scalar import exp, mul, relu, square, sub
from lamina.llvm import choices
from lamina.llvm.kernel import Contraction
from lamina.llvm.lower import lower
from lamina.llvm.plan import plan
from lamina.llvm.verify import verify
from lamina.transform.gradient import gradients
from lamina.types import Batch, Type

B = Batch(1)


def centred(depth):
    """Convolutions, each followed by a subtraction of the batch's sum; gradients of all filters."""
    x = input_node(Type((B, 6, 6, 8)), "x")
    weights = [input_node(Type((3, 3, 8, 8)), f"w{i}") for i in range(depth)]
    y = x
    for w in weights:
        y = conv(y, w, padding=((1, 1), (1, 1)))
        centre = reduce_sum(y, (0, 1, 2))
        y = relu(sub(y, broadcast(centre, y.shape, (3,))))
    loss = reduce_sum(square(mul(y, y)), (0, 1, 2, 3))
    found = gradients([loss], [constant(1.0)], weights)
    return Program((x,), tuple(weights), tuple(found), (None,) * depth)


def planned(depth):
    capacity = 16
    made = plan(lower(centred(depth), capacity, 2), capacity, 2)
    verify(made)
    return made


@pytest.mark.parametrize("depth", [1, 3])
def test_a_sum_over_the_batch_runs_where_its_rows_are_made(depth):
    made = planned(depth)
    makers = {
        buffer: step.phase
        for phase in made.phases
        for step in phase.rows
        if step.mode == "rows"
        for buffer in step.written_buffers()
    }
    sums = [step for phase in made.phases for step in phase.rows if step.mode == "parts"]
    assert len(sums) > depth
    for step in sums:
        phases = [makers[buffer] for buffer in step.read_buffers() if buffer in makers]
        assert step.phase == max(phases)


def test_the_gradient_of_an_inner_convolution_never_leaves_the_cache():
    made = planned(3)
    filters = [
        step
        for phase in made.phases
        for step in phase.rows
        if step.mode == "parts" and step.label == "convfiltergrad"
    ]
    assert len(filters) == 3
    for step in filters:
        assert step.operands[1].buffer.place == "private"


def test_a_block_that_streams_weighs_as_much_as_the_weights_it_meets():
    assert choices.block_rows(32, 2, 400_000) == 2
    assert choices.block_rows(32, 2, 400_000, 0, 2_000_000) == 2
    assert choices.block_rows(32, 2, 10_000, 390_000) == 2
    assert choices.block_rows(32, 2, 10_000, 390_000, 2_000_000) == 5
    assert choices.block_rows(32, 2, 10_000, 390_000, 90_000_000) == 16


@pytest.mark.parametrize(("columns", "kernels"), [(1, 2), (3, 2), (4, 1)])
def test_a_dear_map_behind_hardly_any_columns_fills_vectors_of_its_own(columns, kernels):
    x, w = input_node(Type((B, 16)), "x"), input_node(Type((16, columns)), "w")
    program = Program((x, w), (), (exp(dot(x, w)),), ())
    tasks = [step for step in lower(program, 8, 2).steps if step.mode == "rows"]
    assert len(tasks) == kernels


def test_a_cheap_map_stays_behind_its_product():
    x, w = input_node(Type((B, 16)), "x"), input_node(Type((16, 1)), "w")
    program = Program((x, w), (), (relu(dot(x, w)),), ())
    assert len([step for step in lower(program, 8, 2).steps if step.mode == "rows"]) == 1


def test_sums_over_steps_and_rows_run_along_what_lies_close():
    """What a time loop leaves has its steps first: neighbours of a step are rows of the batch."""
    states, slopes = input_node(Type((6, B, 8)), "states"), input_node(Type((B, 6, 5)), "slopes")
    for x, order in ((transpose(states, (1, 0, 2)), (6, B)), (slopes, (B, 6))):
        product = dot(x, slopes, ((0, 0), (1, 1)))
        program = Program((states, slopes), (), (product,), ())
        kernels = [
            s.kernel for s in lower(program, 8, 2).steps if isinstance(s.kernel, Contraction)
        ]
        assert [kernel.reduced for kernel in kernels] == [order]
