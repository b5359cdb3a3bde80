"""What kernel specifications mean, in NumPy, and a way to run their machine code beside it.

The interpreter evaluates bodies point by point over index grids, floats in float64, and knows
nothing of the generators. Arrays are placed directly before an inaccessible page, so that a read
or write behind their end kills the process; with LAMINA_CHECK=bounds every access is checked too.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np

from lamina import config
from lamina.llvm import engine, faults, host, kernels
from lamina.llvm.checked import CheckedModule
from lamina.llvm.emit import I64, POINTER, Module, Place
from lamina.llvm.kernel import (
    Constant,
    Convert,
    Core,
    Count,
    Elementwise,
    Inside,
    Kernel,
    Load,
    Lookup,
    Position,
    Random,
    Reduction,
    RowGroup,
    Scalar,
)
from lamina.types import FLOATS, numpy_dtype, static_shape

NAMES = ("avx512", "avx2", "sse2")


def runnable(name: str) -> bool:
    """Whether this machine can run code for the target."""
    native = host.detect()
    return native.architecture == "x86_64" and host.target(name).lanes <= native.lanes


TARGETS = [name for name in NAMES if runnable(name)]


# ------------------------------------------------------------------------- running


@lru_cache(maxsize=16)
def compiled(kernel: Kernel, name: str) -> engine.Loaded:
    target = host.target(name)
    module = Module(target)
    kernels.build(kernel, "kernel", module, target)
    return engine.load(engine.compile_text(module.text(), target), target)


_libc = ctypes.CDLL(None, use_errno=True)
_libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


def guarded(array: np.ndarray) -> np.ndarray:
    """A copy that ends where an inaccessible page begins."""
    page = mmap.PAGESIZE
    size = -(-max(array.nbytes, 1) // page) * page
    area = mmap.mmap(-1, size + page)
    address = ctypes.addressof(ctypes.c_char.from_buffer(area))
    assert _libc.mprotect(address + size, page, 0) == 0
    copy = np.frombuffer(area, np.uint8, array.nbytes, size - array.nbytes).view(array.dtype)
    copy = copy.reshape(array.shape)
    copy[...] = array
    return copy


def run(
    kernel: Kernel,
    target: str,
    arrays: Sequence[np.ndarray],
    low: int,
    high: int,
    rows: int,
) -> list[np.ndarray]:
    """Call the kernel's machine code once; gives the operands as they are afterwards."""
    count = kernels.operand_count(kernel)
    assert count <= len(arrays)
    shared: dict[int, np.ndarray] = {}
    copies = []
    for array in arrays:  # the same array twice is an update in place
        if id(array) not in shared:
            shared[id(array)] = guarded(array)
        copies.append(shared[id(array)])
    if config.check() == "bounds":
        call_checked(kernel, host.target(target), copies, low, high, rows)
        return [copy.copy() for copy in copies]
    loaded = compiled(kernel, target)
    scratch = np.zeros(kernels.scratch_bytes(kernel, host.target(target)) + 64, np.uint8)
    start = scratch.ctypes.data + (-scratch.ctypes.data) % 64
    kinds = [ctypes.c_void_p] * (count + 1) + [ctypes.c_int64] * 3
    function = ctypes.CFUNCTYPE(None, *kinds)(loaded.address("kernel"))
    function(*(copy.ctypes.data for copy in copies[:count]), start, low, high, rows)
    return [copy.copy() for copy in copies]


@lru_cache(maxsize=16)
def compiled_checked(kernel: Kernel, target: host.Target) -> engine.Loaded:
    """`call(table, fault, low, high, rows)`; the table holds address and size of each operand."""
    module = CheckedModule(target)
    kernels.build(kernel, "kernel", module, target)
    parameters = [(POINTER, "table"), (POINTER, "fault"), (I64, "low"), (I64, "high")]
    emit = module.function("call", [*parameters, (I64, "rows")], outermost=True)
    table, fault, *bounds = emit.parameters
    emit.report(fault, 0)
    pointers = []
    for number in [*range(kernels.operand_count(kernel)), faults.SCRATCH]:
        place = Place(table) + 16 * len(pointers)
        start = emit.load(place, POINTER)
        pointers.append(emit.bounded(start, start, emit.load(place + 8, I64), number))
    emit.call("kernel", "void", *pointers, *bounds)
    emit.finish()
    return engine.load(engine.compile_text(module.text(), target), target)


def call_checked(
    kernel: Kernel,
    target: host.Target,
    arrays: Sequence[np.ndarray],
    low: int,
    high: int,
    rows: int,
) -> None:
    """Call the kernel's checked machine code on these arrays; BoundsError if it leaves them."""
    loaded = compiled_checked(kernel, target)
    size = kernels.scratch_bytes(kernel, target)
    memory = np.zeros(size + 64, np.uint8)
    scratch = memory[-memory.ctypes.data % 64 :][:size]
    count = kernels.operand_count(kernel)
    pairs = [(array.ctypes.data, array.nbytes) for array in (*arrays[:count], scratch)]
    table, fault = np.array(pairs, np.int64), faults.FaultArea()
    kinds = [ctypes.c_void_p] * 2 + [ctypes.c_int64] * 3
    function = ctypes.CFUNCTYPE(None, *kinds)(loaded.address("call"))
    function(table.ctypes.data, fault.address, low, high, rows)
    fault.check(faults.Checked(["kernel"], [[f"operand {number}" for number in range(count)]]))


# ------------------------------------------------------------------------- meaning


def _threefry(k0: int, k1: int, x0: np.ndarray, x1: np.ndarray) -> np.ndarray:
    """Salmon et al. 2011, Threefry-2x32-20, in uint64 arithmetic modulo 2**32."""
    mask = np.uint64(0xFFFFFFFF)
    keys = [k0, k1, k0 ^ k1 ^ 0x1BD11BDA]
    x = (x0.astype(np.uint64) + np.uint64(keys[0])) & mask
    y = (x1.astype(np.uint64) + np.uint64(keys[1])) & mask
    for group in range(5):
        for turn in ((13, 15, 26, 6), (17, 29, 16, 24))[group % 2]:
            x = (x + y) & mask
            y = ((y << np.uint64(turn)) | (y >> np.uint64(32 - turn))) & mask
            y ^= x
        x = (x + np.uint64(keys[(group + 1) % 3])) & mask
        y = (y + np.uint64((keys[(group + 2) % 3] + group + 1) & 0xFFFFFFFF)) & mask
    return x.astype(np.uint32)


FUNCTIONS = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "mod": np.mod,
    "floordiv": np.floor_divide, "pow": np.power, "maximum": np.maximum, "minimum": np.minimum,
    "atan2": np.arctan2, "neg": np.negative, "abs": np.abs, "sign": np.sign, "floor": np.floor,
    "ceil": np.ceil, "round": np.rint, "exp": np.exp, "expm1": np.expm1, "log": np.log,
    "log1p": np.log1p, "sqrt": np.sqrt, "rsqrt": lambda x: 1 / np.sqrt(x), "sin": np.sin,
    "cos": np.cos, "tan": np.tan, "asin": np.arcsin, "acos": np.arccos, "atan": np.arctan,
    "sinh": np.sinh, "cosh": np.cosh, "asinh": np.arcsinh, "acosh": np.arccosh,
    "atanh": np.arctanh, "tanh": np.tanh, "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "reciprocal": lambda x: 1 / x, "square": np.square, "eq": np.equal, "ne": np.not_equal,
    "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal,
    "isnan": np.isnan, "isinf": np.isinf, "isfinite": np.isfinite, "where": np.where,
    "and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor, "not": np.invert,
    "shl": np.left_shift, "shr": np.right_shift,
}  # fmt: skip


def wide(dtype: str) -> np.dtype:
    """The dtype in which the oracle computes."""
    return np.dtype(np.float64) if dtype in FLOATS else np.dtype(dtype)


def cast(value: np.ndarray, dtype: str) -> np.ndarray:
    """A conversion that rounds to the narrow type and comes back to the oracle's."""
    if dtype == "bool":
        return value != 0
    return value.astype(numpy_dtype(dtype)).astype(wide(dtype))


class Grid:
    """All points of `extents`, the split axis limited to [low, high)."""

    def __init__(self, extents: Sequence[int], split: int, low: int, high: int) -> None:
        ranges = [range(extent) for extent in extents]
        if extents:
            ranges[split] = range(low, high)
        self.indexes = np.meshgrid(*(np.array(r, np.int64) for r in ranges), indexing="ij")
        self.shape = tuple(len(r) for r in ranges)

    def affine(self, strides: Sequence[int], offset: int) -> np.ndarray:
        total = np.full(self.shape, offset, np.int64)
        for number, stride in zip(self.indexes, strides, strict=False):
            total = total + number * stride
        return total

    def guards(self, guards: Sequence) -> np.ndarray:
        inside = np.ones(self.shape, bool)
        for guard in guards:
            position = self.affine(guard.strides, guard.offset)
            inside &= (guard.low <= position) & (position < guard.high)
        return inside


def evaluate(
    body: Sequence, grid: Grid, arrays: Sequence[np.ndarray], rows: int, cores: Sequence = ()
) -> list[np.ndarray]:
    """Every instruction at every point of the grid."""
    values: list[np.ndarray] = []
    for item in body:
        match item:
            case Load() | Lookup():
                position = grid.affine(item.strides, item.offset)
                if isinstance(item, Lookup):
                    for argument, stride, limit in item.indexes:
                        number = values[argument].astype(np.int64)
                        position = position + np.clip(number, 0, limit - 1) * stride
                inside = grid.guards(item.guards)
                flat = arrays[item.operand].reshape(-1)
                assert flat.dtype == numpy_dtype(item.dtype)
                safe = np.where(inside, position, 0)
                loaded = np.where(inside, flat[safe].astype(wide(item.dtype)), 0)
                values.append(loaded.astype(wide(item.dtype)))
            case Constant(bits, dtype):
                number = np.frombuffer(bits, numpy_dtype(dtype))[0]
                values.append(np.full(grid.shape, number).astype(wide(dtype)))
            case Position(dtype, offset, strides):
                values.append(cast(grid.affine(strides, offset), dtype))
            case Count(factor, dtype):
                values.append(cast(np.full(grid.shape, factor * rows), dtype))
            case Core(number):
                values.append(np.broadcast_to(cores[number], grid.shape))
            case Scalar(fn, arguments, dtype):
                with np.errstate(all="ignore"):
                    result = FUNCTIONS[fn](*(values[a] for a in arguments))
                if dtype in {"float16", "bfloat16"}:
                    result = cast(result, dtype)
                values.append(result.astype(wide(dtype)))
            case Convert(argument, dtype):
                values.append(cast(values[argument], dtype))
            case Inside(guards):
                values.append(grid.guards(guards))
            case Random():
                key = arrays[item.operand].reshape(-1).astype(np.uint64)
                row = grid.affine(item.row, item.row_offset)
                within = grid.affine(item.within, item.within_offset)
                values.append(_threefry(int(key[0]), int(key[1]) ^ item.site, row, within))
    return values


def put(arrays: Sequence[np.ndarray], store, grid: Grid, value: np.ndarray) -> None:
    flat = arrays[store.operand].reshape(-1)
    position = grid.affine(store.strides, store.offset)
    with np.errstate(over="ignore"):
        flat[position.reshape(-1)] = (
            np.broadcast_to(value, grid.shape).astype(flat.dtype).reshape(-1)
        )


def reduce(kind: str, values: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """NaN wins; the position is row-major over the reduced axes."""
    if kind in {"argmax", "argmin"}:
        kept = values.shape[: values.ndim - len(axes)]
        flat = values.reshape(*kept, int(np.prod(values.shape[len(kept) :])))
        return flat.argmax(-1) if kind == "argmax" else flat.argmin(-1)
    with np.errstate(all="ignore"):
        function = {"sum": np.sum, "prod": np.prod, "max": np.max, "min": np.min}[kind]
        if kind in {"sum", "prod"}:
            return function(values, axis=axes, dtype=values.dtype)
        return function(values, axis=axes)


def meaning(
    kernel: Kernel, arrays: Sequence[np.ndarray], low: int, high: int, rows: int
) -> list[np.ndarray]:
    """The operands after a call, by definition."""
    shared = {id(array): array.copy() for array in arrays}
    result = [shared[id(array)] for array in arrays]
    match kernel:
        case Elementwise():
            grid = Grid(static_shape(kernel.space, rows), kernel.split, low, high)
            values = evaluate(kernel.body, grid, result, rows)
            for store in kernel.stores:
                put(result, store, grid, values[store.argument])
        case Reduction():
            _reduction(kernel, result, low, high, rows)
        case RowGroup():
            _row_group(kernel, result, low, high, rows)
        case _:
            raise NotImplementedError(type(kernel))
    return result


def _reduction(kernel: Reduction, arrays, low: int, high: int, rows: int) -> None:
    space = static_shape(kernel.space, rows)
    extents = space + static_shape(kernel.reduced, rows)
    grid = Grid(extents, kernel.split, low, high)
    values = evaluate(kernel.body, grid, arrays, rows)
    axes = tuple(range(len(space), len(extents)))
    cores = [reduce(kind, values[argument], axes) for argument, kind in kernel.results]
    if kernel.split < len(space):
        outer = Grid(space, kernel.split, low, high)
    else:
        outer = Grid(space, 0, 0, space[0]) if space else Grid((), 0, 0, 0)
    after = evaluate(kernel.after, outer, arrays, rows, cores)
    for store in kernel.stores:
        value = after[store.argument]
        if kernel.accumulate:
            position = outer.affine(store.strides, store.offset)
            value = value + arrays[store.operand].reshape(-1)[position]
        put(arrays, store, outer, value)


def _row_group(kernel: RowGroup, arrays, low: int, high: int, rows: int) -> None:
    space = static_shape(kernel.space, rows)
    grid = Grid((*space, kernel.columns), kernel.split, low, high)
    outer = Grid(space, kernel.split, low, high)
    cores = [np.zeros((*outer.shape, 1)) for _ in kernel.stages]
    for number, stage in enumerate(kernel.stages):
        values = evaluate(kernel.body, grid, arrays, rows, cores)
        cores[number] = reduce(stage.kind, values[stage.argument], (grid.indexes[0].ndim - 1,))[
            ..., None
        ]
    values = evaluate(kernel.body, grid, arrays, rows, cores)
    for store in kernel.stores:
        put(arrays, store, grid, values[store.argument])
    for store in kernel.row_stores:
        put(arrays, store, outer, values[store.argument][..., 0])


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """The oracle's own overflows and invalid values are meant."""
    with np.errstate(all="ignore"):
        yield
