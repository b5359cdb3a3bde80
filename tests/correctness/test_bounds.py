"""`LAMINA_CHECK=bounds`: an access outside of an operand is an error, and nothing else changes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from kernel_oracle import TARGETS, call_checked, meaning
from test_llvm_steps import PROGRAMS, convolutional, rows_of, same_bits, states_of, trained

from lamina import config
from lamina.ir.contractions import dot
from lamina.ir.graph import input_node
from lamina.ir.program import Program
from lamina.ir.scalar import square
from lamina.llvm import cache, engine, generate, host, kernels
from lamina.llvm.checked import CheckedModule, UncheckedError
from lamina.llvm.emit import FLOAT, I64, POINTER, Place
from lamina.llvm.executor import compile_llvm
from lamina.llvm.faults import BoundsError
from lamina.llvm.kernel import (
    Access,
    Contraction,
    Core,
    Elementwise,
    Load,
    Lookup,
    Reduction,
    Scatter,
    Sort,
    Store,
    WindowGradient,
)
from lamina.types import Batch, Type

every_target = pytest.mark.parametrize("target", [host.target(name) for name in TARGETS])

LOAD = Load(0, "float32", 0, (1,))
STORE = Store(0, 1, "float32", 0, (1,))


def copy(count, load=LOAD, store=STORE):
    return Elementwise((count,), (load,), (store,))


def floats(*shape):
    return np.arange(np.prod(shape), dtype="f4").reshape(shape)


# Each leaves an operand by one element at most: (kernel, arrays, what the message says).
WRONG = {
    "vectors read behind": (copy(37), [floats(36), floats(37)], "read outside of operand 0"),
    "vectors write behind": (copy(64), [floats(64), floats(63)], "wrote outside of operand 1"),
    "one element before": (
        copy(5, replace(LOAD, offset=-1)),
        [floats(5), floats(5)],
        "read outside of operand 0",
    ),
    "apart": (
        copy(33, replace(LOAD, strides=(3,))),
        [floats(96), floats(33)],
        "read outside of operand 0",
    ),
    "scattered": (
        copy(33, LOAD, replace(STORE, strides=(3,))),
        [floats(33), floats(96)],
        "wrote outside of operand 1",
    ),
    "lookup": (
        Elementwise(
            (20,),
            (Load(0, "int32", 0, (1,)), Lookup(1, "float32", 0, (0,), ((0, 1, 8),))),
            (Store(1, 2, "float32", 0, (1,)),),
        ),
        [np.arange(20, dtype="i4"), floats(7), floats(20)],
        "read outside of operand 1",
    ),
    "reduction": (
        Reduction(
            (3,), (50,), (Load(0, "float32", 0, (50, 1)),), ((0, "sum"),),
            (Core(0, "float32"),), (Store(0, 1, "float32", 0, (1,)),),
        ),
        [floats(149), floats(3)],
        "read outside of operand 0",
    ),
    "product": (
        Contraction(
            (9, 40), (20,), Access(0, "float32", 0, (20, 0, 1)), Access(1, "float32", 0, (0, 1, 40)),
            (Core(0, "float32"),), (Store(0, 2, "float32", 0, (40, 1)),),
        ),
        [floats(9, 20), floats(799), floats(9, 40)],
        "read outside of operand 1",
    ),
    "scatter": (
        Scatter(1, 6, 4, 5, "add", "float32", "int32"),
        [floats(23), np.full(5, 5, "i4"), floats(5, 4)],
        "outside of operand 0",
    ),
    "sort": (
        Sort(1, 9, "float32", (), False),
        [floats(8), floats(9)],
        "read outside of operand 0",
    ),
    "window": (
        WindowGradient("max", 2, (4, 4), (2, 2), (2, 2), (2, 2), (0, 0), 3),
        [floats(2, 4, 4, 3), floats(2, 2, 2, 3), floats(95)],
        "wrote outside of operand 2",
    ),
}  # fmt: skip


def extent(kernel):
    match kernel:
        case Scatter():
            return kernel.table
        case Sort():
            return kernel.outer
        case WindowGradient():
            return kernel.batch
        case _:
            return kernel.space[0]


@every_target
@pytest.mark.parametrize("name", WRONG)
def test_an_access_outside_is_named(name, target):
    kernel, arrays, message = WRONG[name]
    arrays = [array.copy() for array in arrays]
    with pytest.raises(BoundsError, match=message):
        call_checked(kernel, target, arrays, 0, extent(kernel), 2)


@every_target
def test_nothing_outside_is_touched_and_the_message_says_how_far(target):
    area = np.full(80, 7, "f4")
    with pytest.raises(BoundsError) as caught:
        call_checked(copy(64), target, [floats(64), area[8:71]], 0, 64, 1)
    assert (area[:8] == 7).all() and (area[71:] == 7).all()
    assert "kernel: wrote outside of operand 1." in str(caught.value)
    assert "extent   252 bytes" in str(caught.value)
    first = int(str(caught.value).split("at offset ")[1].split("\n")[0])
    assert first <= 252 < first + 64


@every_target
@pytest.mark.parametrize("rows", [1, 5, 16, 31])
def test_what_stays_inside_computes_the_same(target, rows):
    kernel = Elementwise(
        (Batch(1), 3), (Load(0, "float32", 0, (3, 1)),), (Store(0, 1, "float32", 0, (1, 31)),)
    )
    arrays = [floats(rows, 3), np.zeros((3, 31), "f4")]
    expected = meaning(kernel, arrays, 0, rows, rows)
    call_checked(kernel, target, arrays, 0, rows, rows)
    assert same_bits(arrays, expected)


@pytest.mark.parametrize("name", WRONG)
def test_every_kernel_compiles_for_wider_vectors(name):
    """With masks, gathers and scatters that this machine may not have."""
    target = host.target("avx512")
    module = CheckedModule(target)
    kernels.build(WRONG[name][0], "kernel", module, target)
    assert engine.compile_text(module.text(), target)


def test_memory_of_unknown_extent_is_refused():
    """A generator that made an address in a way that the checks cannot follow would be found."""
    module = CheckedModule(host.detect())
    emit = module.function("f", [(POINTER, "p"), (I64, "n")])
    lost = emit.effect(POINTER, f"inttoptr i64 {emit.parameters[1].text} to ptr")
    with pytest.raises(UncheckedError, match=r"f: .* unknown extent"):
        emit.load(Place(lost), FLOAT)


# ------------------------------------------------------------------------- whole steps


@PROGRAMS
@pytest.mark.parametrize("sums", ["parts", "products", "whole"])
def test_a_checked_step_computes_the_same(build, sums, several_threads):
    several_threads(sums)
    program = build()
    plain = trained(compile_llvm(program, 12), program)
    with config.override(check="bounds", threads=2):
        assert same_bits(trained(compile_llvm(program, 12), program), plain)


def damaged(monkeypatch, chosen, change):
    """Change the specification of the first task that is chosen, behind the planner's back."""
    plan = generate.plan

    def damage(*arguments, **options):
        planned = plan(*arguments, **options)
        steps = [step for phase in planned.phases for step in (*phase.shared, *phase.rows)]
        task = next(step for step in steps if chosen(step))
        task.kernel = change(task.kernel)
        return planned

    monkeypatch.setattr(generate, "plan", damage)
    monkeypatch.setattr(generate, "verify", lambda _: None)


def test_a_wrong_kernel_ends_the_call_and_leaves_the_states(monkeypatch, rng):
    program = convolutional()
    damaged(
        monkeypatch,
        lambda task: isinstance(task.kernel, Contraction),
        lambda kernel: replace(kernel, b=replace(kernel.b, offset=1)),
    )
    with config.override(check="bounds", cache="off"):
        executable = compile_llvm(program, 12)
    states, data = states_of(program, rng), rows_of(program, 31, rng)
    before = [state.copy() for state in states]
    for _ in range(2):  # the executable stays usable, and says so again
        with pytest.raises(BoundsError, match=r"Contraction.*read outside of operand") as caught:
            executable.steps(data, states, batch_size=12)
        assert same_bits(states, before)
    assert "states are as they were before this step" in str(caught.value)
    assert "bytes at offset" in str(caught.value) and "float32" in str(caught.value)


def test_a_write_outside_of_a_state_touches_nothing_else(monkeypatch):
    state = input_node(Type((40,)), "w")
    program = Program((), (state,), (), (square(state),))
    damaged(
        monkeypatch,
        lambda task: bool(task.writes),
        lambda kernel: replace(kernel, stores=(replace(kernel.stores[0], offset=24),)),
    )
    with config.override(check="bounds", cache="off"):
        executable = compile_llvm(program, 1)
    area = np.full(100, 3, "f4")
    with pytest.raises(BoundsError, match="wrote outside of operand"):
        executable([], [area[20:60]])
    assert (area == 3).all()


def test_the_last_rows_of_an_input_are_its_end(monkeypatch, rng):
    """The extent of an input ends with the rows that are there, not with the capacity."""
    x = input_node(Type((Batch(1), 4)), "x")
    program = Program((x,), (), (square(x),), ())
    damaged(
        monkeypatch,
        lambda task: True,
        lambda kernel: replace(kernel, body=(replace(kernel.body[0], offset=1), *kernel.body[1:])),
    )
    with config.override(check="bounds", cache="off"):
        executable = compile_llvm(program, 32)
    with pytest.raises(BoundsError, match=r"(?s)input float32 \(batch, 4\).*extent   48 bytes"):
        executable([rng.standard_normal((3, 4)).astype("f4")], [])


def test_the_rows_of_a_block_are_the_end_of_what_lives_in_it(monkeypatch, rng):
    """A value between two products: one row too far is still in its memory, but not its row."""
    x, one, two = (input_node(Type(shape)) for shape in ((Batch(1), 4), (4, 6), (6, 5)))
    program = Program((x,), (one, two), (dot(dot(x, one), two),), (None, None))
    damaged(
        monkeypatch,
        lambda task: task.operands[task.writes[0]].buffer.place == "private",
        lambda kernel: replace(kernel, stores=(replace(kernel.stores[0], offset=6),)),
    )
    with config.override(check="bounds", cache="off"):
        executable = compile_llvm(program, 32)
    states = [rng.standard_normal(node.shape).astype("f4") for node in (one, two)]
    with pytest.raises(BoundsError, match=r"(?s)wrote outside of .*private.*extent   72 bytes"):
        executable([rng.standard_normal((3, 4)).astype("f4")], states)


def test_checked_objects_are_kept_apart_from_the_others(tmp_path):
    x = input_node(Type((Batch(1), 4)), "x")
    program = Program((x,), (), (square(x),), ())
    data = np.ones((3, 4), "f4")
    with config.override(cache=tmp_path / "objects"):
        for mode, compiles in [("off", 1), ("bounds", 1), ("off", 0), ("bounds", 0)]:
            parses = engine.counters.parses
            with config.override(check=mode):
                executable = compile_llvm(program, 8)
            assert engine.counters.parses - parses == compiles
            assert (executable.checked_names is not None) == (mode == "bounds")
            assert executable([data], [])[0].tolist() == data.tolist()
    cache.refusal.cache_clear()
