"""Where the carries of time loops lie: in place, among the values of all steps, or copied."""

from __future__ import annotations

import numpy as np
import pytest

from lamina import config
from lamina.ir.contractions import dot
from lamina.ir.control import Body, scan
from lamina.ir.graph import input_node
from lamina.ir.movement import transpose
from lamina.ir.program import Program
from lamina.ir.scalar import add, mul, sub, tanh
from lamina.llvm.executor import compile_llvm
from lamina.llvm.lower import lower
from lamina.llvm.task import Loop
from lamina.reference import compile_reference
from lamina.types import Batch, Type

WIDTH, TIME, CAPACITY = 10, 6, 5
STATE = Type((Batch(1), WIDTH))

# (a, b, x, w) -> new a, new b, what every step hands out
STEPS = {
    "in place": lambda a, b, x, w: (tanh(add(a, x)), mul(b, x), ()),
    "each the other": lambda a, b, x, w: (b, a, (x,)),
    "the old one elsewhere": lambda a, b, x, w: (b, add(a, x), ()),
    "the new one of another": lambda a, b, x, w: (add(a, x), mul(add(a, x), b), ()),
    "both the same": lambda a, b, x, w: (sub(a, b), sub(a, b), (sub(a, b),)),
    "a product": lambda a, b, x, w: (tanh(add(dot(a, w), x)), add(b, dot(a, w)), ()),
    "a product of the new one": lambda a, b, x, w: (
        tanh(add(dot(a, w), x)),
        add(dot(tanh(add(dot(a, w), x)), w), a),
        (),
    ),
    "never changed": lambda a, b, x, w: (a, add(b, a), (a, b)),
    "old ones": lambda a, b, x, w: (tanh(add(dot(a, w), b)), add(b, x), (a, b)),
    "new ones": lambda a, b, x, w: (
        tanh(dot(a, w)),
        add(b, x),
        (tanh(dot(a, w)), add(b, x), add(b, x)),
    ),
    "old and new ones": lambda a, b, x, w: (
        tanh(dot(a, w)),
        mul(b, x),
        (a, tanh(dot(a, w)), b, mul(a, b)),
    ),
    "exchanged, and handed out": lambda a, b, x, w: (add(b, x), tanh(dot(a, w)), (a, b, add(b, x))),
}


def program(name, *, reverse, later):
    """The loop; with `later` what it hands out is read further, otherwise it leaves the program."""
    x = input_node(Type((Batch(1), TIME, WIDTH)), "x")
    first = [input_node(STATE, label) for label in ("a", "b")]
    w = input_node(Type((WIDTH, WIDTH)), "w")
    a, b, now = (input_node(STATE) for _ in range(3))
    inner = input_node(w.type)
    new_a, new_b, handed_out = STEPS[name](a, b, now, inner)
    body = Body((a, b, now, inner), (new_a, new_b, *handed_out))
    found = scan(body, TIME, first, [transpose(x, (1, 0, 2))], [w], reverse=reverse)
    roots = [transpose(one, (1, 0, 2)) if one.type.rank == 3 else one for one in found]
    if later:
        roots = [dot(root, w) if i % 2 else add(root, root) for i, root in enumerate(roots)]
    return Program((x, *first), (w,), tuple(roots), (None,))


@pytest.mark.parametrize("later", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", STEPS)
def test_every_way_of_handing_on(name, reverse, later, rng):
    made = program(name, reverse=reverse, later=later)
    with config.override(cache="off"):
        compiled = compile_llvm(made, CAPACITY)
        with config.override(arena="apart"):
            apart = compile_llvm(made, CAPACITY)
    w = rng.standard_normal((WIDTH, WIDTH)).astype("f4") / 3
    for rows in (1, CAPACITY - 1, CAPACITY):
        shapes = [node.type.at(rows).shape for node in made.inputs]
        inputs = [rng.standard_normal(shape).astype("f4") for shape in shapes]
        expected = compile_reference(made, CAPACITY)(inputs, [w])
        found = compiled(inputs, [w])
        for one, other, same in zip(found, expected, apart(inputs, [w]), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
            np.testing.assert_array_equal(one, same)


@pytest.mark.parametrize("name", ["in place", "old ones", "old and new ones"])
def test_a_step_copies_nothing(name):
    lowered = lower(program(name, reverse=False, later=True), CAPACITY, 2)
    (loop,) = [step for step in lowered.steps if isinstance(step, Loop)]
    assert not [task.label for task in loop.tasks() if task.label == "copy"]
