"""Rates of single kernels in GFLOP/s, beside what NumPy's matmul reaches in the same minute.

    python benchmarks/kernels.py [--cpu avx2] [--filter conv] [--repeat 7]

Columns: GFLOP/s (operations of the direct sum, which Winograd's method saves; the best of several
short runs on one thread), the share of NumPy's single-thread rate for 512 x 512 matrices (measured
again beside every shape, since a shared machine's rate moves), milliseconds to write the LLVM text
and to compile it, and the tile. The cost of a call from Python (that of a call for no rows) is
taken off.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import sys
import time
from pathlib import Path

# One thread: a kernel is compared with one core's rate.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

import numpy as np

from lamina.llvm import engine, host
from lamina.llvm.emit import Module
from lamina.llvm.kernels import contraction
from lamina.llvm.kernels.schedule import Schedule

# The specifications are those of the tests.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "correctness"))
from contraction_cases import (
    BATCH,
    Case,
    Geometry,
    convolution,
    depthwise,
    depthwise_filter,
    dot,
    filter_gradient,
    input_gradient,
    same,
    single_filter,
)


def cases() -> list[Case]:
    """The listed shapes: those of the workloads, and one of every kind beside them."""

    def image(size: int, channels: int, filters: int, **more: object) -> Geometry:
        return Geometry(BATCH, (size, size), channels, filters, **more)

    return [
        dot(BATCH, 64, 64, rows=32),
        dot(BATCH, 64, 576, rows=32, kind="bias_relu"),
        dot(BATCH, 576, 64, rows=32),
        dot(BATCH, 10, 64, rows=32),
        dot(BATCH, 512, 128, rows=32),
        dot(BATCH, 1024, 320, rows=32),
        dot(BATCH * 100, 256, 128, rows=32, kind="bias_relu"),
        dot(336, 384, 64),
        dot(336, 384, 256),
        dot(336, 384, 1024),
        dot(512, 512, 512),
        dot(1024, 1024, 1024),
        dot(BATCH, 64, 32, batch=(32 * 4,), rows=64, split=1),
        dot(BATCH, 1, 64, rows=32),
        dot(1, 512, 512),
        dot(576, 64, BATCH, rows=32, a_transposed=True, split=0, kind="momentum"),
        dot(784, 128, BATCH, rows=128, a_transposed=True, split=0, kind="momentum"),
        convolution(image(28, 1, 32), rows=32, kind="bias_relu"),
        convolution(image(32, 3, 32, padding=same(3)), rows=32, kind="bias_relu"),
        convolution(image(13, 32, 64), rows=32, kind="bias_relu"),
        convolution(image(5, 64, 64), rows=32, kind="bias_relu"),
        convolution(image(32, 64, 64), rows=16, kind="bias_relu"),
        convolution(image(32, 64, 64, padding=same(3)), rows=16, kind="bias_relu"),
        convolution(image(16, 128, 128, padding=same(3)), rows=16, kind="bias_relu"),
        convolution(image(8, 256, 256, padding=same(3)), rows=16, kind="bias_relu"),
        convolution(image(32, 64, 128, strides=(2, 2), padding=((0, 1), (0, 1))), rows=16),
        convolution(image(64, 3, 64, kernel=(7, 7), strides=(2, 2), padding=same(7)), rows=4),
        convolution(image(16, 128, 64, kernel=(1, 1)), rows=16),
        convolution(image(32, 24, 24, padding=same(3)), rows=16),
        convolution(image(16, 64, 64, padding=same(3), groups=4), rows=16),
        filter_gradient(image(28, 1, 32), rows=32, accumulate=True),
        filter_gradient(image(13, 32, 64), rows=32, accumulate=True),
        filter_gradient(image(5, 64, 64), rows=32, split=2, kind="momentum"),
        filter_gradient(image(32, 64, 64), rows=16, accumulate=True),
        filter_gradient(image(32, 64, 64, padding=same(3)), rows=16, accumulate=True),
        filter_gradient(image(16, 128, 128, padding=same(3)), rows=16, accumulate=True),
        filter_gradient(image(32, 3, 32, padding=same(3)), rows=32, accumulate=True),
        input_gradient(image(13, 32, 64), rows=32),
        input_gradient(image(5, 64, 64), rows=32),
        input_gradient(image(32, 64, 64, padding=same(3)), rows=16),
        depthwise(image(32, 64, 64, padding=same(3)), rows=16),
        depthwise(image(14, 192, 192, padding=same(3)), rows=16),
        depthwise(image(56, 128, 128, padding=same(3), strides=(2, 2)), rows=2),
        depthwise_filter(image(14, 192, 192, padding=same(3)), rows=16),
        convolution(image(28, 32, 1, padding=same(3)), rows=8),
        single_filter(image(28, 32, 1, padding=same(3)), rows=8),
    ]


def best(call, seconds: float, repeat: int) -> float:
    """The shortest time of one call, over `repeat` runs of about `seconds` each.

    Processor time of this thread, which does not count while another process has the core.
    """
    call()
    start = time.thread_time()
    call()
    count = max(1, int(seconds / max(time.thread_time() - start, 1e-7)))
    shortest = float("inf")
    for _ in range(repeat):
        start = time.thread_time()
        for _ in range(count):
            call()
        shortest = min(shortest, (time.thread_time() - start) / count)
    return shortest


def aligned(array: np.ndarray) -> np.ndarray:
    """A copy that begins at a cache line."""
    area = np.zeros(array.nbytes + 64, np.uint8)
    start = -area.ctypes.data % 64
    copy = area[start : start + array.nbytes].view(array.dtype)
    copy[:] = array.ravel()
    return copy


def measure(case: Case, target: host.Target, repeat: int) -> tuple[float, float, float]:
    """GFLOP/s, milliseconds to emit, milliseconds to compile."""
    start = time.thread_time()
    module = Module(target)
    contraction.build(case.kernel, "kernel", module)
    text = module.text()
    emitting = time.thread_time() - start
    compiling = float("inf")
    for _ in range(3):
        start = time.thread_time()
        code = engine.compile_text(text, target)
        compiling = min(compiling, time.thread_time() - start)
    loaded = engine.load(code, target)
    arrays = [aligned(array) for array in case.arrays()]
    arrays.append(aligned(np.zeros(contraction.scratch_bytes(case.kernel, target), np.uint8)))
    kinds = [ctypes.c_void_p] * len(arrays) + [ctypes.c_int64] * 3
    function = ctypes.CFUNCTYPE(None, *kinds)(loaded.address("kernel"))
    arguments = (*[array.ctypes.data for array in arrays], case.low, case.high, case.rows)
    nothing = (*arguments[:-3], case.low, case.low, case.rows)
    seconds = best(lambda: function(*arguments), 0.001, repeat)
    calling = best(lambda: function(*nothing), 0.0002, 10)
    rate = case.flops / max(seconds - calling, 1e-9) / 1e9
    loaded.close()
    return rate, emitting * 1e3, compiling * 1e3


def matmul_rate(repeat: int, size: int = 512) -> float:
    """NumPy's rate on one thread, in GFLOP/s."""
    a = np.random.default_rng(0).random((size, size), np.float32)
    out = np.empty_like(a)
    return 2 * size**3 / best(lambda: np.matmul(a, a, out=out), 0.001, repeat) / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description="Rates of single kernels.")
    parser.add_argument("--cpu", default="native", help="native, avx512, avx2, sse2")
    parser.add_argument("--filter", default="", help="only shapes whose name contains one of these")
    parser.add_argument("--repeat", type=int, default=40)
    arguments = parser.parse_args()
    filters = arguments.filter.split(",")
    target = host.target(arguments.cpu)
    print(f"{'shape':44s} GFLOP/s  share  emit ms  compile ms  tile")
    for case in cases():
        if not any(word in case.name for word in filters):
            continue
        rate, emit, compiling = measure(case, target, arguments.repeat)
        roof = matmul_rate(10)
        plan = contraction.plan(case.kernel, target)
        match plan:
            case Schedule():
                tile = "x".join(map(str, [size for size in plan.tile[:-1] if size > 1])) or "1"
                tile += f" x {plan.vectors}"
            case _:
                tile = type(plan).__name__
        print(
            f"{case.name:44s} {rate:7.0f} {rate / roof:6.2f} {emit:8.1f} {compiling:11.1f}  {tile}",
            flush=True,
        )


if __name__ == "__main__":
    main()
