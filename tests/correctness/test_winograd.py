"""Winograd's convolutions, used whether or not they pay, against the meaning of the contraction."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lamina import config
from lamina.ir.contractions import ConvInputGrad, conv
from lamina.ir.elementary import broadcast
from lamina.ir.graph import apply, input_node
from lamina.ir.program import Program
from lamina.ir.scalar import add, relu
from lamina.llvm import choices, host
from lamina.llvm.executor import compile_llvm
from lamina.llvm.generate import generate
from lamina.llvm.kernel import Contraction
from lamina.llvm.kernels import contraction
from lamina.llvm.kernels.winograd import winograd
from lamina.llvm.profile import task_flops
from lamina.llvm.task import Task
from lamina.types import Batch, Type

# The cases and their check are shared; test folders are no packages.
sys.path.insert(0, str(Path(__file__).parent))
from contraction_cases import BATCH, Case, Geometry, convolution, input_gradient, oracle, same
from test_contraction import TARGETS, check, compiled, guarded

sys.path.pop(0)

by_target = pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)


def image(high, wide, channels, filters, padding=((0, 0), (0, 0))):
    return Geometry(BATCH, (high, wide), channels, filters, padding=padding)


SAME_BY_TWO = ((0, 1), (0, 1))  # as TensorFlow pads for a stride of two
CASES = [
    convolution(image(3, 3, 16, 16), rows=2),
    convolution(image(4, 4, 16, 16), rows=2, kind="residual"),
    convolution(image(3, 8, 16, 48), rows=2, kind="bias_relu"),
    convolution(image(5, 7, 32, 16), rows=3, part=(1, 3), kind="bias_relu"),
    convolution(image(7, 6, 16, 80), rows=2, capacity=4, kind="residual"),
    convolution(image(1, 1, 16, 16, same(3)), rows=2),
    convolution(image(2, 5, 16, 32, same(3)), rows=2, kind="bias_relu"),
    convolution(image(9, 6, 32, 16, same(3)), rows=2, kind="residual"),
    convolution(image(6, 6, 16, 16, ((2, 0), (0, 1))), rows=2),
    convolution(image(5, 6, 16, 16, ((2, 2), (2, 2))), rows=2, kind="bias_relu"),
    convolution(replace(image(3, 3, 16, 16), strides=(2, 2)), rows=2),
    convolution(replace(image(9, 5, 16, 48), strides=(2, 2)), rows=2, kind="residual"),
    convolution(replace(image(8, 10, 32, 16, SAME_BY_TWO), strides=(2, 2)), rows=3, part=(1, 3)),
    convolution(replace(image(11, 7, 16, 16, same(3)), strides=(2, 2)), rows=2, kind="bias_relu"),
    convolution(replace(image(4, 5, 16, 32), kernel=(2, 2)), rows=2, kind="bias_relu"),
    convolution(replace(image(5, 6, 32, 16, same(3)), kernel=(2, 2)), rows=2),
    input_gradient(replace(image(6, 5, 16, 32), kernel=(2, 2)), rows=2, kind="residual"),
    input_gradient(image(3, 3, 16, 16), rows=2),
    input_gradient(image(6, 5, 32, 16), rows=2, capacity=3, kind="residual"),
    input_gradient(image(7, 8, 16, 32, same(3)), rows=3, part=(1, 3)),
    input_gradient(image(5, 5, 16, 48, same(3)), rows=2, kind="bias_relu"),
    input_gradient(image(6, 7, 16, 16, ((2, 0), (0, 1))), rows=2),
]


@by_target
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_it_computes_the_contraction(always, case, target):
    """Within the bound of direct sums; arrays end where an inaccessible page begins."""
    assert winograd(case.kernel, target) is not None
    check(case, target)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_nothing_before_an_operand_is_read(always, case):
    check(case, TARGETS[0], at_end=False)


def result(case: Case, target, low: int, high: int, rows: int) -> np.ndarray:
    arrays = [guarded(array, at_end=True) for array in case.arrays()]
    compiled(case.kernel, target, len(arrays))(arrays, low, high, rows)
    return arrays[2].reshape(4, -1)


@by_target
@pytest.mark.parametrize(
    "case",
    [
        convolution(image(6, 7, 32, 16, same(3)), rows=4, kind="bias_relu"),
        convolution(replace(image(7, 6, 16, 16), strides=(2, 2)), rows=4),
        input_gradient(image(5, 6, 16, 16), rows=4, kind="residual"),
    ],
    ids=lambda case: case.name,
)
def test_a_row_has_the_same_bits_alone(always, case, target):
    whole = result(case, target, 0, 4, 4)
    untouched = case.arrays()[2].reshape(4, -1)
    for rows in (1, 2, 3, 4):
        found = result(case, target, 0, rows, rows)
        assert np.array_equal(found[:rows], whole[:rows])
        assert np.array_equal(found[rows:], untouched[rows:])
        alone = result(case, target, rows - 1, rows, 4)
        assert np.array_equal(alone[rows - 1], whole[rows - 1])


@by_target
@pytest.mark.parametrize("form", [{}, {"strides": (2, 2)}, {"kernel": (2, 2)}], ids=str)
def test_errors_are_about_those_of_the_direct_sum(monkeypatch, target, form):
    case = convolution(replace(image(9, 9, 64, 32, same(3)), **form), rows=2)
    (_, _, exact), _ = oracle(
        replace(case.kernel, stores=tuple(replace(s, dtype="float64") for s in case.kernel.stores)),
        [array.astype(np.float64) for array in case.arrays()],
        0,
        2,
        2,
    )
    errors = []
    for pays in (True, False):
        monkeypatch.setattr(choices, "winograd_pays", lambda *_, pays=pays, **__: pays)
        contraction.plan.cache_clear()
        arrays = [guarded(array, at_end=True) for array in case.arrays()]
        compiled(case.kernel, target, 3)(arrays, 0, 2, 2)
        errors.append(float(np.sqrt(np.mean((arrays[2] - exact.ravel()) ** 2))))
    contraction.plan.cache_clear()
    assert 0 < errors[0] < 1.5 * errors[1]


def test_other_convolutions_stay_direct(always):
    target = TARGETS[0]
    plain = convolution(image(8, 8, 16, 16)).kernel
    assert winograd(plain, target) is not None
    others = [
        convolution(replace(image(8, 8, 16, 16), kernel=(5, 5))).kernel,
        convolution(replace(image(9, 9, 16, 16), strides=(2, 1))).kernel,
        convolution(replace(image(9, 9, 16, 16), dilation=(2, 2))).kernel,
        convolution(replace(image(8, 8, 32, 32), groups=2)).kernel,
        convolution(image(8, 8, 3, 16)).kernel,
        convolution(image(8, 8, 16, 20)).kernel,
        convolution(image(8, 8, 16, 16), split=1).kernel,
        replace(plain, accumulator="float64"),
        replace(plain, accumulate=True),
    ]
    assert [winograd(kernel, target) for kernel in others] == [None] * len(others)


@by_target
def test_it_is_left_where_it_does_not_pay(target):
    """Few channels, large filters, and images of a single tile."""
    for shape in (image(32, 32, 8, 64), image(8, 8, 256, 256), image(3, 3, 64, 64)):
        assert winograd(convolution(shape).kernel, target) is None
    assert winograd(convolution(image(16, 16, 64, 64, same(3))).kernel, target) is not None


def test_the_number_of_threads_changes_no_bit(always, several_threads):
    """Forward and input gradient of a whole program, against NumPy in float64 as well."""
    several_threads()
    rows = Batch(1)
    x, w, b = (input_node(Type(s), n) for s, n in (
        ((rows, 7, 6, 16), "x"), ((3, 3, 16, 32), "w"), ((32,), "b")))  # fmt: skip
    y = conv(x, w, padding=same(3))
    y = relu(add(y, broadcast(b, y.shape, (3,))))
    dx = apply(ConvInputGrad((7, 6), (1, 1), same(3), (1, 1)), y, w)
    program = Program((x,), (w, b), (y, dx), (None, None))
    random = np.random.default_rng(3)
    data = random.standard_normal((5, 7, 6, 16)).astype(np.float32)
    states = [random.standard_normal(s).astype(np.float32) for s in ((3, 3, 16, 32), (32,))]
    tasks = [task.kernel for task, _, _ in generate(program, 8, host.detect()).tasks]
    products = [kernel for kernel in tasks if isinstance(kernel, Contraction)]
    assert len(products) == 2 and all(winograd(one, host.detect()) for one in products)
    found = []
    for threads in (1, 2, 3):
        with config.override(threads=threads, cache="off"):
            executable = compile_llvm(program, 8)
            assert executable.threads(1) == threads
            found.append(executable([data], [state.copy() for state in states]))
    for other in found[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(found[0], other, strict=True))
    weights = states[0].astype(np.float64)
    padded = np.pad(data.astype(np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    taps = [(i, j) for i in range(3) for j in range(3)]
    forward = sum(padded[:, i : i + 7, j : j + 6] @ weights[i, j] for i, j in taps)
    forward = np.maximum(forward + states[1], 0)
    backward = np.zeros(padded.shape)
    for i, j in taps:
        backward[:, i : i + 7, j : j + 6] += forward @ weights[i, j].T
    np.testing.assert_allclose(found[0][0], forward, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(found[0][1], backward[:, 1:-1, 1:-1], rtol=1e-5, atol=1e-3)


def test_the_profile_counts_the_multiplications_that_run(always):
    case = convolution(image(5, 6, 16, 32, same(3)), rows=3)
    task = Task(case.kernel, (), (2,), "rows", BATCH)
    assert task_flops(task, 3, TARGETS[0]) == 3 * (3 * 3) * 16 * 2 * 16 * 32
    strided = convolution(replace(image(8, 10, 16, 32), strides=(2, 2)), rows=3)
    task = Task(strided.kernel, (), (2,), "rows", BATCH)
    assert task_flops(task, 3, TARGETS[0]) == 3 * (2 * 2) * 25 * 2 * 16 * 32
