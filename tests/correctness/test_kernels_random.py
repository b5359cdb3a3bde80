"""Random elementwise kernels, reductions and row groups against their meaning."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from kernel_oracle import TARGETS, meaning, run

from lamina.llvm.kernel import (
    Constant,
    Core,
    Elementwise,
    Guard,
    Inside,
    Instruction,
    Load,
    Lookup,
    Position,
    Reduction,
    RowGroup,
    Scalar,
    Stage,
    Store,
)
from lamina.types import Batch

ROWS = 5
UNARY = ("neg", "abs", "square", "tanh", "exp", "sigmoid")  # none with steps, for rounding
BINARY = ("add", "sub", "mul", "maximum", "minimum")


class Maker:
    """Builds one random specification and its arrays."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.arrays: list[np.ndarray] = []

    def pick(self, options):
        return options[int(self.rng.integers(len(options)))]

    def extents(self, most: int) -> list[int]:
        sizes = (1, 2, 3, 5, 8, 16, 17, 33, 40)
        return [self.pick(sizes) for _ in range(int(self.rng.integers(1, most + 1)))]

    def layout(self, extents: list[int], *, may_repeat: bool) -> tuple[tuple[int, ...], int, int]:
        """(strides, offset, size): axes in any order, some flipped, some with gaps, some left out."""
        strides, offset, size = [0] * len(extents), 0, 1
        for axis in self.order(len(extents)):
            if may_repeat and self.rng.random() < 0.25:
                continue
            gap = self.pick((1, 1, 1, 2))
            step = size * gap
            if may_repeat and self.rng.random() < 0.15:
                offset += step * (extents[axis] - 1)
                step = -step
            strides[axis] = step
            size = abs(step) * (extents[axis] - 1) + size
        return tuple(strides), offset, size

    def order(self, count: int) -> list[int]:
        if self.rng.random() < 0.5:
            return list(range(count - 1, -1, -1))
        return [int(axis) for axis in self.rng.permutation(count)]

    def operand(self, size: int, dtype: str) -> int:
        if dtype == "int32":
            array = self.rng.integers(-3, 12, size).astype(dtype)
        else:
            array = self.rng.standard_normal(size).astype(dtype)
        self.arrays.append(array)
        return len(self.arrays) - 1

    def load(self, extents: list[int], dtype: str = "float32") -> Load:
        """A load, sometimes of a window of the index space only."""
        axis = int(self.rng.integers(len(extents)))
        if self.rng.random() < 0.35 and extents[axis] > 1:
            low = int(self.rng.integers(0, extents[axis]))
            high = int(self.rng.integers(low, extents[axis])) + 1
            inner = list(extents)
            inner[axis] = high - low
            strides, offset, size = self.layout(inner, may_repeat=True)
            along = tuple(int(a == axis) for a in range(len(extents)))
            guard = Guard(along, -low, 0, high - low)
            number = self.operand(size, dtype)
            return Load(number, dtype, offset - low * strides[axis], strides, (guard,))
        strides, offset, size = self.layout(extents, may_repeat=True)
        return Load(self.operand(size, dtype), dtype, offset, strides)

    def body(self, extents: list[int]) -> list[Instruction]:
        """A few loads and what is computed from them; every value is a float32."""
        body: list[Instruction] = [self.load(extents) for _ in range(int(self.rng.integers(1, 4)))]
        if self.rng.random() < 0.3:
            strides = tuple(int(self.rng.integers(-2, 3)) for _ in extents)
            body.append(Position("float32", 3, strides))
        values = list(range(len(body)))
        if self.rng.random() < 0.25:
            body.append(self.load(extents, "int32"))
            table = self.operand(10 * extents[-1], "float32")
            along = tuple(int(a == len(extents) - 1) for a in range(len(extents)))
            indexes = ((len(body) - 1, extents[-1], 10),)
            body.append(Lookup(table, "float32", 0, along, indexes))
            values.append(len(body) - 1)
        for _ in range(int(self.rng.integers(1, 5))):
            if self.rng.random() < 0.5:
                body.append(Scalar(self.pick(UNARY), (self.pick(values),), "float32"))
            else:
                pair = (self.pick(values), self.pick(values))
                body.append(Scalar(self.pick(BINARY), pair, "float32"))
            # Keep numbers small, so that nothing overflows.
            body.append(Scalar("tanh", (len(body) - 1,), "float32"))
            values.append(len(body) - 1)
        if self.rng.random() < 0.3:
            axis = int(self.rng.integers(len(extents)))
            along = tuple(int(a == axis) for a in range(len(extents)))
            body.append(Inside((Guard(along, 0, 1, max(2, extents[axis] - 1)),)))
            body.append(Constant(np.float32(0.5).tobytes(), "float32"))
            last = len(body)
            body.append(Scalar("where", (last - 2, values[-1], last - 1), "float32"))
        return body

    def store(self, extents: list[int], argument: int, dtype: str = "float32") -> Store:
        strides, offset, size = self.layout(extents, may_repeat=False)
        return Store(argument, self.operand(size, dtype), dtype, offset, strides)

    def dimensions(self, extents: list[int]) -> tuple:
        """The extents, one perhaps as the batch."""
        space: list = list(extents)
        if self.rng.random() < 0.5:
            axis = int(self.rng.integers(len(space)))
            extents[axis] = 2 * ROWS
            space[axis] = Batch(2)
        return tuple(space)

    def part(self, extent: int) -> tuple[int, int]:
        if self.rng.random() < 0.5:
            return 0, extent
        low = int(self.rng.integers(0, extent + 1))
        return low, int(self.rng.integers(low, extent + 1))


def check(kernel, target, maker: Maker, low: int, high: int) -> None:
    expected = meaning(kernel, maker.arrays, low, high, ROWS)
    got = run(kernel, target, maker.arrays, low, high, ROWS)
    for have, want in zip(got, expected, strict=True):
        if have.dtype.kind == "f":
            np.testing.assert_allclose(have, want, rtol=1e-5, atol=1e-5)
        else:
            np.testing.assert_array_equal(have, want)


def check_bits(kernel, target, maker: Maker, extent: int) -> None:
    """However many calls share the work, the bits are the same."""
    if any(load.operand == store.operand for load in loads(kernel) for store in kernel.stores):
        return
    whole = run(kernel, target, maker.arrays, 0, extent, ROWS)
    cuts = sorted({0, extent, extent // 3, min(extent, 7), extent - extent // 4})
    shared = list(maker.arrays)
    for low, high in pairwise(cuts):
        shared = run(kernel, target, shared, low, high, ROWS)
    for one, other in zip(whole, shared, strict=True):
        np.testing.assert_array_equal(one, other)


def loads(kernel) -> list[Load]:
    bodies = (kernel.body, getattr(kernel, "after", ()))
    return [item for body in bodies for item in body if isinstance(item, Load)]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("seed", range(60))
def test_random_elementwise(target, seed):
    maker = Maker(seed)
    extents = maker.extents(3)
    space = maker.dimensions(extents)
    body = maker.body(extents)
    stores = [maker.store(extents, len(body) - 1)]
    if maker.rng.random() < 0.3:
        stores.append(maker.store(extents, 0))
    split = int(maker.rng.integers(len(extents)))
    low, high = maker.part(extents[split])
    kernel = Elementwise(space, tuple(body), tuple(stores), split)
    check(kernel, target, maker, low, high)
    check_bits(kernel, target, maker, extents[split])


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("seed", range(60))
def test_random_reductions(target, seed):
    maker = Maker(1000 + seed)
    space_extents, reduced_extents = maker.extents(2), maker.extents(2)
    extents = [*space_extents, *reduced_extents]
    dimensions = maker.dimensions(extents)
    count = len(space_extents)
    space, reduced = dimensions[:count], dimensions[count:]
    body = maker.body(extents)
    kinds = [maker.pick(("sum", "max", "min", "sum"))]
    batch = next((a for a, d in enumerate(dimensions) if isinstance(d, Batch)), 0)
    if maker.rng.random() < 0.3 and batch <= count:
        kinds.append("argmax")
    # Positions are asked of what is loaded, where float32 and float64 have the same ties.
    results = tuple((0 if kind == "argmax" else len(body) - 1, kind) for kind in kinds)
    cores = [Core(i, "int32" if kind == "argmax" else "float32") for i, kind in enumerate(kinds)]
    kept = extents[:count]
    stores = [maker.store(kept, i, core.dtype) for i, core in enumerate(cores)]
    split, accumulate = int(maker.rng.integers(count)), False
    if kinds == ["sum"] and maker.rng.random() < 0.5:
        split = int(maker.rng.integers(len(extents)))
        accumulate = True
    after: list[Instruction] = list(cores)
    if not accumulate and maker.rng.random() < 0.5:
        other = maker.load(kept)
        after += [other, Scalar("add", (0, len(after)), "float32")]
        stores[0] = Store(len(after) - 1, *list(vars(stores[0]).values())[1:])
    low, high = maker.part(extents[split])
    if split >= count and low == high:  # NumPy has no sum over nothing that keeps a shape
        low, high = 0, 1
    kernel = Reduction(
        space, reduced, tuple(body), results, tuple(after), tuple(stores), split, accumulate
    )
    check(kernel, target, maker, low, high)
    if split < count:
        check_bits(kernel, target, maker, extents[split])


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("seed", range(40))
def test_random_row_groups(target, seed):
    maker = Maker(2000 + seed)
    space_extents = maker.extents(2)
    columns = maker.pick((1, 3, 16, 20, 64, 100, 200))
    space = maker.dimensions(space_extents)
    extents = [*space_extents, columns]
    body = maker.body(extents)
    first = len(body) - 1
    body += [
        Core(0, "float32"),
        Scalar("sub", (first, first + 1), "float32"),
        Scalar("exp", (first + 2,), "float32"),
        Core(1, "float32"),
        Scalar("div", (first + 3, first + 4), "float32"),
        Load(maker.operand(columns, "float32"), "float32", 0, (*([0] * len(space)), 1)),
        Scalar("add", (first + 5, first + 6), "float32"),
    ]
    stages = (Stage(first, "max"), Stage(first + 3, "sum"))
    stores = (maker.store(extents, first + 7),)
    row_stores = (maker.store(space_extents, first + 4),)
    split = int(maker.rng.integers(len(space)))
    low, high = maker.part(space_extents[split])
    kernel = RowGroup(space, columns, tuple(body), stages, stores, row_stores, split)
    check(kernel, target, maker, low, high)
