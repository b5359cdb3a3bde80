"""Contraction kernels against the float64 oracle of their specification.

Every array ends right before an inaccessible page, or begins right after one, so that a kernel
that reads or writes outside of an operand kills the test.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from pathlib import Path

import numpy as np
import pytest

from lamina import config
from lamina.llvm import engine, host
from lamina.llvm.emit import Module
from lamina.llvm.kernel import Contraction
from lamina.llvm.kernels import contraction

# The cases are shared with the benchmarks; test folders are no packages.
sys.path.insert(0, str(Path(__file__).parent))
from contraction_cases import (
    BATCH,
    Case,
    Geometry,
    convolution,
    depthwise,
    depthwise_filter,
    dot,
    filter_gradient,
    heads,
    input_gradient,
    oracle,
    same,
    single_filter,
    steps_gradient,
)
from kernel_oracle import call_checked

sys.path.pop(0)

PAGE = mmap.PAGESIZE
TARGETS = host.runnable_targets()
EPSILON = {"float32": 2.0**-24, "float64": 2.0**-53}


def guarded(array: np.ndarray, *, at_end: bool) -> np.ndarray:
    """A copy of the array that touches an inaccessible page with its last, or first, byte."""
    pages = -(-max(array.nbytes, 1) // PAGE)
    area = mmap.mmap(-1, (pages + 2) * PAGE)
    start = ctypes.addressof(ctypes.c_char.from_buffer(area))
    protect = ctypes.CDLL(None, use_errno=True).mprotect
    for page in (0, pages + 1):
        address = ctypes.c_void_p(start + page * PAGE)
        assert protect(address, ctypes.c_size_t(PAGE), 0) == 0
    offset = (pages + 1) * PAGE - array.nbytes if at_end else PAGE
    copy = np.frombuffer(area, array.dtype, array.size, offset)
    copy[:] = array.ravel()
    return copy


def compiled(kernel: Contraction, target: host.Target, operands: int):
    """The kernel as a Python function of arrays, scratch, low, high and rows."""
    module = Module(target)
    contraction.build(kernel, "kernel", module)
    loaded = engine.load(engine.compile_text(module.text(), target), target)
    kinds = [ctypes.c_void_p] * (operands + 1) + [ctypes.c_int64] * 3
    function = ctypes.CFUNCTYPE(None, *kinds)(loaded.address("kernel"))

    def call(arrays, low: int, high: int, rows: int) -> None:
        scratch = guarded(
            np.full(-(-contraction.scratch_bytes(kernel, target) // 64) * 64, 0xFF, np.uint8),
            at_end=True,
        )
        function(*[array.ctypes.data for array in arrays], scratch.ctypes.data, low, high, rows)

    call.loaded = loaded
    return call


def check(case: Case, target: host.Target, *, at_end: bool = True) -> list[np.ndarray]:
    given = case.arrays()
    expected, scales = oracle(case.kernel, given, case.low, case.high, case.rows)
    arrays = [guarded(array, at_end=at_end) for array in given]
    if config.check() == "bounds":
        call_checked(case.kernel, target, arrays, case.low, case.high, case.rows)
    else:
        compiled(case.kernel, target, len(arrays))(arrays, case.low, case.high, case.rows)
    compare(case, arrays, expected, scales)
    return arrays


def compare(case: Case, arrays: list[np.ndarray], expected: list[np.ndarray], scales) -> None:
    """What was written is right within its rounding; nothing else has changed."""
    written = {store.operand for store in case.kernel.stores}
    for number, (array, right) in enumerate(zip(arrays, expected, strict=True)):
        if number not in written:
            assert np.array_equal(array.ravel(), right.ravel())
            continue
        if array.dtype.kind in "iu" or not array.size:
            assert np.array_equal(array.ravel(), right.ravel())
            continue
        epsilon = EPSILON.get(str(array.dtype), 2.0**-8)
        error = np.abs(array.ravel().astype(np.float64) - right.ravel().astype(np.float64))
        # Operands of the epilogue are about 1, and may cancel.
        limit = 8 * epsilon * (scales[number] + np.abs(right.ravel().astype(np.float64)) + 1)
        worst = int(np.argmax(error - limit))
        assert (error <= limit).all(), (worst, array.ravel()[worst], right.ravel()[worst])


PRODUCTS = [
    dot(5, 7, 9),
    dot(1, 1, 1),
    dot(3, 21, 0, kind="bias_relu"),
    dot(BATCH, 1, 64, rows=13, kind="bias_relu", b_transposed=True),
    dot(BATCH, 3, 128, rows=13, kind="bias_relu", b_transposed=True, dtype="float64"),
    dot(BATCH, 1, 48, rows=5, b_transposed=True, dtype="int32", inputs=("int8", "int8")),
    dot(0, 21, 5),
    dot(8, 32, 16),
    dot(8, 32, 16, kind="bias_relu"),
    dot(23, 37, 11, kind="bias_relu"),
    dot(17, 100, 65, kind="residual"),
    dot(64, 48, 100),
    dot(13, 200, 3),
    dot(BATCH, 33, 20, rows=11, capacity=16, kind="bias_relu"),
    dot(BATCH * 3, 33, 20, rows=5, capacity=7),
    dot(30, 33, 20, part=(7, 19)),
    dot(4, 40, 20, split=1, part=(3, 29)),
    dot(4, 40, 20, split=2, part=(3, 17)),
    dot(4, 40, 20, split=2, part=(3, 17), accumulate=True),
    dot(9, 40, BATCH, rows=13, capacity=16, split=0, kind="momentum"),
    dot(9, 40, BATCH, rows=13, capacity=16, split=2, accumulate=True),
    dot(9, 40, BATCH, rows=0, capacity=16, split=0),
    dot(12, 20, 6, batch=(2, 3), split=0),
    dot(12, 20, 6, batch=(2, 3), split=1, part=(1, 3), kind="residual"),
    dot(BATCH, 20, 6, batch=(2,), rows=3, capacity=4),
    dot(19, 21, 40, a_transposed=True),
    dot(19, 21, 40, b_transposed=True),
    dot(19, 21, 40, a_transposed=True, b_transposed=True, kind="bias_relu"),
    dot(100, 130, 300),
    dot(100, 131, 130, b_transposed=True),
    dot(BATCH, 131, 130, rows=37, capacity=64, kind="bias_relu"),
    dot(BATCH, 131, 130, rows=7, capacity=64),
    dot(BATCH, 256, 130, rows=41, part=(11, 33)),
    dot(BATCH * 3, 131, 130, rows=9, batch=(2,)),
    dot(700, 131, 1000),
    dot(BATCH * 100, 131, 600, rows=5, capacity=8),
    dot(BATCH * 100, 131, 600, rows=1, capacity=8),
    dot(19, 21, 40, dtype="float64", kind="bias_relu"),
    dot(19, 21, 40, dtype="int32", inputs=("int8", "int8")),
    dot(19, 21, 40, dtype="int32", inputs=("uint8", "int8")),
    dot(19, 37, 40, inputs=("bfloat16", "bfloat16"), out_dtype="bfloat16"),
    dot(19, 37, 40, inputs=("float16", "float32"), out_dtype="float16"),
    heads(128, 32, 128, heads=4, rows=2, capacity=3),
    heads(37, 40, 100, heads=16, rows=1, capacity=2),
    heads(70, 32, 60, heads=16, rows=2, capacity=2, a_transposed=True),
    heads(33, 8, 50, heads=128, rows=1, capacity=1),
    dot(48, 256, BATCH * 50, rows=9, capacity=9, a_transposed=True, split=2, accumulate=True),
    dot(50, 256, BATCH * 50, rows=4, capacity=9, a_transposed=True, split=2, part=(70, 143)),
    dot(48, 264, 700, batch=(2,), a_transposed=True, split=0, kind="bias_relu"),
    dot(48, 256, 700, batch=(2,), a_transposed=True, split=0, kind="bias_relu"),
    steps_gradient(64, 60, 1024, rows=64, capacity=64),
    steps_gradient(17, 37, 1024, rows=1, capacity=40),
    steps_gradient(17, 48, 1030, rows=2, capacity=40),
    steps_gradient(17, 48, 1024, rows=39, capacity=40),
    steps_gradient(17, 48, 1024, rows=40, capacity=40, part=(20, 40)),
    steps_gradient(17, 48, 1024, rows=40, capacity=40, part=(5, 5)),
    steps_gradient(17, 48, 1024, rows=40, capacity=40, split=2, part=(3, 14)),
    steps_gradient(3, 48, 256, rows=300, capacity=300),
    steps_gradient(17, 48, 65, rows=39, capacity=40),
    steps_gradient(50, 48, 1024, rows=9, capacity=10, batch_first=True),
]

CONVOLUTIONS = [
    convolution(Geometry(BATCH, (8, 8), 5, 20), rows=2),
    convolution(Geometry(BATCH, (28, 28), 1, 32), rows=2, kind="bias_relu"),
    convolution(Geometry(BATCH, (13, 13), 32, 64), rows=3, capacity=4, kind="bias_relu"),
    convolution(Geometry(BATCH, (5, 5), 24, 40), rows=5, capacity=8, kind="bias_relu"),
    convolution(Geometry(BATCH, (5, 4), 24, 40), rows=1, capacity=8, kind="bias_relu"),
    convolution(Geometry(BATCH, (5, 5), 8, 40), rows=3, part=(1, 3)),
    convolution(Geometry(BATCH, (9, 7), 3, 17, padding=same(3)), rows=2),
    convolution(Geometry(BATCH, (9, 7), 3, 17, padding=same(3)), rows=5, part=(2, 4)),
    convolution(Geometry(BATCH, (9, 11), 16, 32, padding=same(3)), rows=2, kind="bias_relu"),
    convolution(Geometry(BATCH, (14, 10), 3, 16, (7, 7), (2, 2), same(7)), rows=2),
    convolution(Geometry(BATCH, (9, 9), 4, 16, strides=(2, 2), padding=((0, 1), (0, 1))), rows=2),
    convolution(Geometry(BATCH, (9, 9), 4, 16, strides=(2, 3)), rows=2),
    convolution(Geometry(BATCH, (12, 12), 4, 16, dilation=(2, 2)), rows=2),
    convolution(Geometry(BATCH, (12, 12), 4, 16, padding=same(3, 2), dilation=(2, 2)), rows=2),
    convolution(Geometry(BATCH, (12, 12), 4, 16, (1, 1)), rows=2, kind="residual"),
    convolution(Geometry(BATCH, (12, 12), 4, 16, (1, 1), strides=(2, 2)), rows=2),
    convolution(Geometry(BATCH, (8, 8), 8, 24, padding=same(3), groups=4), rows=2),
    convolution(Geometry(BATCH, (8, 8), 6, 20, groups=2), rows=2),
    convolution(Geometry(BATCH, (8, 9), 4, 16, (1, 3), padding=((0, 0), (1, 1))), rows=2),
    convolution(Geometry(BATCH, (8, 9), 4, 16, (3, 3), padding=((0, 0), (1, 1))), rows=2),
    convolution(Geometry(BATCH, (8, 9), 4, 16, (3, 2), padding=((1, 1), (0, 0))), rows=2),
    convolution(Geometry(2, (8, 8), 3, 10, padding=same(3)), split=1, part=(2, 5)),
    convolution(Geometry(3, (8, 8), 3, 40, padding=same(3)), split=3, part=(5, 39)),
    convolution(Geometry(BATCH, (13, 13), 32, 64), rows=3, part=(1, 3), kind="residual"),
    convolution(Geometry(BATCH, (16, 12), 16, 48, padding=same(3)), rows=2, kind="bias_relu"),
    convolution(Geometry(BATCH, (11, 16), 48, 32, padding=((2, 0), (0, 1))), rows=2),
    convolution(Geometry(BATCH, (12, 12), 64, 80), rows=1, kind="residual"),
    convolution(Geometry(BATCH, (2, 2), 300, 1000, padding=same(3)), rows=2, kind="bias_relu"),
]

GRADIENTS = [
    filter_gradient(Geometry(BATCH, (8, 8), 5, 20), rows=3, capacity=4, accumulate=True),
    filter_gradient(Geometry(BATCH, (8, 8), 5, 20), rows=3, capacity=4),
    filter_gradient(Geometry(BATCH, (9, 7), 5, 20, padding=same(3)), rows=3, accumulate=True),
    filter_gradient(Geometry(BATCH, (9, 7), 5, 20, padding=same(3)), rows=3, kind="momentum"),
    filter_gradient(
        Geometry(BATCH, (9, 7), 16, 32, padding=same(3)), rows=3, split=2, part=(3, 13)
    ),
    filter_gradient(Geometry(BATCH, (9, 9), 4, 16, strides=(2, 2)), rows=2, split=0),
    filter_gradient(Geometry(BATCH, (33, 31), 16, 32), rows=6, split=2, kind="momentum"),
    filter_gradient(Geometry(BATCH, (33, 31), 16, 32), rows=6, part=(2, 5), accumulate=True),
    filter_gradient(Geometry(BATCH, (12, 12), 3, 33, dilation=(2, 2)), rows=2, split=2),
    input_gradient(Geometry(BATCH, (8, 8), 5, 20), rows=3, capacity=4),
    input_gradient(Geometry(BATCH, (8, 8), 5, 20), rows=3, transposed=False),
    input_gradient(Geometry(BATCH, (9, 11), 16, 24, padding=same(3)), rows=3, kind="residual"),
    input_gradient(Geometry(BATCH, (12, 12), 3, 16, dilation=(2, 2)), rows=2),
    input_gradient(Geometry(BATCH, (8, 8), 37, 33), rows=3, capacity=4, kind="residual"),
    input_gradient(Geometry(BATCH, (8, 9), 16, 40, (3, 2)), rows=5, part=(1, 4)),
    input_gradient(Geometry(BATCH, (12, 11), 3, 40, dilation=(2, 3)), rows=2, kind="bias_relu"),
    input_gradient(Geometry(BATCH, (15, 16), 32, 64, padding=same(3)), rows=2, kind="residual"),
    input_gradient(Geometry(BATCH, (17, 16), 32, 64), rows=2),
    convolution(Geometry(BATCH, (9, 8), 32, 1, padding=same(3)), rows=3, kind="bias_relu"),
    convolution(Geometry(BATCH, (9, 8), 16, 3, padding=same(3)), rows=3, part=(1, 3)),
    convolution(Geometry(BATCH, (9, 8), 48, 2, strides=(2, 1)), rows=3, kind="residual"),
    convolution(Geometry(3, (9, 8), 32, 1, padding=same(3)), split=1, part=(2, 6)),
    depthwise(Geometry(BATCH, (9, 8), 20, 20), rows=2, kind="bias_relu"),
    depthwise(Geometry(BATCH, (9, 8), 32, 32, padding=same(3)), rows=2),
    depthwise(
        Geometry(BATCH, (9, 8), 32, 32, (5, 4), padding=((3, 1), (0, 2))), rows=3, kind="residual"
    ),
    depthwise(
        Geometry(BATCH, (13, 12), 40, 40, padding=same(3), strides=(2, 2)), rows=3, part=(1, 3)
    ),
    single_filter(Geometry(BATCH, (9, 8), 32, 1, padding=same(3)), rows=2),
    single_filter(Geometry(BATCH, (9, 8), 20, 1, padding=same(3)), rows=3),
    depthwise_filter(Geometry(BATCH, (9, 8), 32, 32, padding=same(3)), rows=2),
    depthwise_filter(Geometry(BATCH, (9, 8), 20, 20), rows=2, split=0),
    depthwise_filter(Geometry(BATCH, (11, 8), 20, 20, padding=same(3), strides=(2, 2)), rows=3),
    depthwise(Geometry(BATCH, (2, 2), 40, 40, padding=same(3)), rows=3),
    depthwise(Geometry(BATCH, (9, 8), 7, 7, strides=(2, 2), padding=same(3)), rows=2),
]

CASES = [*PRODUCTS, *CONVOLUTIONS, *GRADIENTS]


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_kernel_computes_its_specification(case, target):
    check(case, target)


@pytest.mark.parametrize("case", CASES[::3], ids=lambda case: case.name)
def test_nothing_before_an_operand_is_read(case):
    check(case, TARGETS[0], at_end=False)


def drawn(seed: int) -> Case:
    """A random specification: any kind, any sizes, on all rows or a part of them."""
    random = np.random.default_rng(seed)

    def pick(*options):
        return options[int(random.integers(len(options)))]

    def size(low: int, high: int) -> int:
        return int(random.integers(low, high + 1))

    rows = size(1, 9)
    capacity = rows + size(0, 3)
    first = size(0, rows - 1)
    part = pick(None, (first, size(first, rows)))
    epilogue = pick("none", "bias_relu", "residual")
    if pick(True, False):
        m, n, k = size(1, 70), size(1, 140), size(1, 150)
        if pick(True, False):
            return dot(BATCH * size(1, 20), n, k, rows=rows, capacity=capacity, kind=epilogue)
        low = size(0, m - 1)
        return dot(
            m,
            n,
            k,
            batch=pick((), (), (size(1, 3),)),
            kind=epilogue,
            a_transposed=pick(True, False),
            b_transposed=pick(True, False),
            part=None if part is None else (low, size(low, m)),
        )
    kernel = (size(1, 4), size(1, 4))
    dilation = (size(1, 2), size(1, 2))
    span = [dilation[i] * (kernel[i] - 1) + 1 for i in range(2)]
    padding = tuple((size(0, span[i] - 1), size(0, span[i] - 1)) for i in range(2))
    image = tuple(span[i] + size(0, 9) for i in range(2))
    geometry = Geometry(
        BATCH,
        image,
        pick(size(1, 40), 16, 32, 48),
        pick(size(1, 70), 16, 32, 64),
        kernel,
        (size(1, 3), size(1, 3)),
        pick(((0, 0), (0, 0)), padding),
        dilation,
    )
    if pick(True, False, False):
        # What Winograd's method takes.
        image = tuple(3 + size(0, 14) for _ in range(2))
        geometry = Geometry(BATCH, image, 32, pick(32, 48, 64), padding=pick(same(3), padding))
    more = {"rows": rows, "capacity": capacity}
    match pick("forward", "forward", "input", "filter", "units", "depthwise"):
        case "forward":
            return convolution(geometry, kind=epilogue, part=part, **more)
        case "input":
            geometry.strides = (1, 1)
            return input_gradient(geometry, kind=epilogue, part=part, **more)
        case "filter":
            return filter_gradient(geometry, accumulate=True, part=part, **more)
        case "units":
            low = size(0, geometry.channels - 1)
            part = (low, size(low, geometry.channels))
            return filter_gradient(geometry, kind="momentum", split=2, part=part, **more)
    geometry.filters = geometry.channels
    return depthwise(geometry, kind=epilogue, part=part, **more)


@pytest.mark.parametrize("seed", range(60))
def test_a_random_specification(seed):
    case = drawn(seed)
    check(case, TARGETS[seed % len(TARGETS)])


def prefetches(case: Case) -> int:
    """How many lines the tiles of a kernel ask for."""
    module = Module(TARGETS[0])
    contraction.build(case.kernel, "kernel", module)
    return module.text().count("call void @llvm.prefetch")


def test_long_sums_ask_for_the_lines_that_their_epilogue_touches():
    plain, residual = (dot(8, 32, 100, kind=kind) for kind in ("none", "residual"))
    assert prefetches(dot(8, 32, 5, kind="residual")) == 0
    assert prefetches(plain) > 0
    assert prefetches(residual) == 2 * prefetches(plain)
    # A bias is the same for all rows, so it is there already.
    assert prefetches(dot(8, 32, 100, kind="bias_relu")) == prefetches(plain)


def test_sums_that_wait_in_memory_are_asked_for_a_tile_ahead():
    added = dot(64, 64, BATCH * 16, rows=4, a_transposed=True, split=2, accumulate=True)
    assert prefetches(added) > 0


def test_columns_that_crowd_each_other_out_are_packed():
    packs = {
        case.name: contraction.plan(case.kernel, target).pack
        for case in (heads(128, 32, 128, heads=4, rows=2, capacity=3), dot(128, 32, 128))
        for target in TARGETS
    }
    assert packs == {"heads 4x128x32x128": "first", "dot 128x32x128": ""}


@pytest.mark.parametrize("columns", [100, 104])
def test_columns_whose_rows_cross_lines_are_packed_for_many_rows(columns):
    def packed(rows: int, terms: int) -> str:
        return contraction.plan(dot(rows, columns, terms, split=1).kernel, target).pack

    target = next(target for target in TARGETS if target.vector_bytes == 32)
    case = dot(96, columns, 320, batch=(3,), split=0)
    assert contraction.plan(case.kernel, target).pack == ("first" if columns == 100 else "")
    check(case, target)
    assert packed(24, 320) == packed(96, 64) == ""


def test_columns_of_a_pass_are_packed_where_they_crowd_each_other_out():
    def packed(columns: int) -> str:
        case = dot(128, columns, BATCH * 50, rows=9, a_transposed=True, split=2, accumulate=True)
        return contraction.plan(case.kernel, TARGETS[0]).pack

    assert packed(512) == "first"
    assert packed(520) == packed(64) == ""


def test_steps_of_a_time_loop_are_packed_together_where_they_crowd_each_other_out():
    def packed(columns: int) -> str:
        case = steps_gradient(64, 60, columns, rows=64, capacity=64)
        return contraction.plan(case.kernel, TARGETS[0]).pack

    assert packed(1024) == "first"
    assert packed(65) == ""


@pytest.mark.parametrize("columns", [1024, 65])
@pytest.mark.parametrize("rows", [1, 2, 39, 100, 300])
def test_sums_over_steps_and_rows_keep_the_order_of_the_axes(rows, columns):
    """The same bits as the sum over all steps x rows as one axis, however passes cut it."""
    case = steps_gradient(5, 48, columns, rows=rows, capacity=rows)
    one = dot(48, columns, BATCH, rows=5 * rows, a_transposed=True, split=2, accumulate=True)
    for target in TARGETS:
        for array, other in zip(check(case, target), check(one, target), strict=True):
            assert array.tobytes() == other.tobytes()
