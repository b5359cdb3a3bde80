"""Reading and writing at computed places. An index that leaves its axis is clamped into it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lamina.errors import BatchError, DtypeError, ShapeError, layout
from lamina.ir.graph import Node, Op, Vjp, apply
from lamina.ir.movement import iota
from lamina.ir.scalar import add, cast, div, eq, mul, scale, where, zeros_like
from lamina.types import Batch, Dimension, Shape, Type, static_shape


def _gathered(table: Type, index: Type, axis: int, batch: int, what: str) -> Shape:
    """The shape of a gather, after checking that table and index fit."""
    details = [("table", str(table)), ("index", str(index))]
    if not index.is_integer:
        raise DtypeError(layout(f"{what}: the index must be integer.", details))
    if not 0 <= batch <= axis < table.rank or batch > index.rank:
        raise ShapeError(
            layout(f"{what}: axis {axis} with {batch} shared leading axes does not fit.", details)
        )
    if table.shape[:batch] != index.shape[:batch]:
        raise ShapeError(layout(f"{what}: the first {batch} axes must be equal.", details))
    if table.shape[axis] == 0:
        raise ShapeError(layout(f"{what}: axis {axis} of the table is empty.", details))
    return (*table.shape[:axis], *index.shape[batch:], *table.shape[axis + 1 :])


def _places(table: Any, index: Any, axis: int, batch: int) -> tuple[Any, ...]:
    """Indexes for a table whose `axis` stands at `batch`: a grid per shared axis, the index."""
    grids = np.ogrid[tuple(slice(size) for size in index.shape[:batch])] if batch else []
    extra = (1,) * (index.ndim - batch)
    shared = [grid.reshape(grid.shape + extra) for grid in grids]
    return (*shared, np.clip(index, 0, table.shape[axis] - 1))


@dataclass(frozen=True)
class Gather(Op):
    """Pick rows: `out[..., i..., ...] = table[..., index[i...], ...]` (an embedding look-up).

    table (..., V, ...) of any dtype with V on `axis`; index integer. The first `batch` axes are
    shared: each row of the table has its own index. Returns
    `table.shape[:axis] + index.shape[batch:] + table.shape[axis + 1:]`.
    """

    axis: int = 0
    batch: int = 0

    def infer(self, table: Type, index: Type) -> Type:
        return Type(_gathered(table, index, self.axis, self.batch, "gather"), table.dtype)

    def vjp(self, gradient: Node, out: Node, table: Node, index: Node) -> Vjp:
        nothing = zeros_like(table)
        return scatter("add", nothing, index, gradient, axis=self.axis, batch=self.batch), None

    def numpy(self, table: Any, index: Any) -> Any:
        if self.batch == 0:
            return np.take(table, index, axis=self.axis, mode="clip")
        places = _places(table, index, self.axis, self.batch)
        picked = np.moveaxis(table, self.axis, self.batch)[places]
        return picked.transpose(_rows_first(table.ndim, index.ndim, self.axis, self.batch))


def _rows_first(table: int, index: int, axis: int, batch: int) -> list[int]:
    """The order that takes (shared, index, middle, rest) to (shared, middle, index, rest)."""
    middle, own = axis - batch, index - batch
    order = [*range(batch), *range(batch + own, batch + own + middle), *range(batch, batch + own)]
    return [*order, *range(batch + own + middle, table - 1 + own)]


_SCATTERS: dict[str, Any] = {"add": np.add.at, "max": np.maximum.at}


@dataclass(frozen=True)
class Scatter(Op):
    """`base` with `rows` added ("add"), written ("set") or taken if larger ("max") at the index.

    Shapes as in `Gather`: `rows` has the shape of `gather(base, index)`. Rows are taken in
    row-major order of the index, so with "set" the last of several wins.

    counted   "": there are three inputs. Else the fourth is an int32 (see `Distinct`) that counts
              on the first axis of the "index" how many of its rows there are, or on that of the
              "base" how many the index names: what becomes of the others is left open
    """

    kind: str
    axis: int = 0
    batch: int = 0
    counted: str = ""

    def infer(self, base: Type, index: Type, rows: Type, *count: Type) -> Type:
        expected = _gathered(base, index, self.axis, self.batch, f"scatter {self.kind}")
        details = [("base", str(base)), ("index", str(index)), ("rows", str(rows))]
        if [*count] != [Type((), "int32")] * bool(self.counted):
            raise DtypeError(
                layout(f"scatter {self.kind}: rows are counted by one int32.", details)
            )
        if self.kind not in {"add", "set", "max"}:
            raise ShapeError(f"scatter: unknown kind {self.kind!r}; known: add, set, max")
        if rows.shape != expected:
            wanted = Type(expected, base.dtype)
            raise ShapeError(layout(f"scatter {self.kind}: rows must be {wanted}.", details))
        if rows.dtype != base.dtype:
            raise DtypeError(
                layout(f"scatter {self.kind}: rows and base have different dtypes.", details)
            )
        if base.dtype == "bool" and self.kind != "set":
            raise DtypeError(layout(f"scatter {self.kind}: takes numbers.", details))
        return base

    def vjp(
        self, gradient: Node, out: Node, base: Node, index: Node, rows: Node, *count: Node
    ) -> Vjp:
        if count:
            raise ShapeError("scatter: counted rows have no gradient; take it before.")

        def read(node: Node) -> Node:
            return gather(node, index, axis=self.axis, batch=self.batch)

        def write(kind: str, onto: Node, values: Node) -> Node:
            return scatter(kind, onto, index, values, axis=self.axis, batch=self.batch)

        if self.kind == "add":
            return gradient, None, read(gradient)
        nothing = zeros_like(rows)
        if self.kind == "set":
            place = _numbered(rows)
            last = read(write("set", zeros_like(cast(base, "int32")), place))
            return (
                write("set", gradient, nothing),
                None,
                where(eq(place, last), read(gradient), nothing),
            )
        own = cast(eq(base, out), gradient.dtype)
        theirs = cast(eq(rows, read(out)), gradient.dtype)
        share = div(gradient, write("add", own, theirs))
        return mul(own, share), None, mul(theirs, read(share))

    def numpy(self, base: Any, index: Any, rows: Any, *count: Any) -> Any:
        if self.counted == "index":
            index, rows = index[: int(count[0])], rows[: int(count[0])]
        out = np.array(base)
        target = np.moveaxis(out, self.axis, self.batch)
        order = _rows_first(base.ndim, index.ndim, self.axis, self.batch)
        source = rows.transpose(sorted(range(rows.ndim), key=lambda axis: order[axis]))
        places = _places(base, index, self.axis, self.batch)
        if self.kind == "set":
            target[places] = source
        else:
            _SCATTERS[self.kind](target, places, source)
        return out


def _numbered(like: Node) -> Node:
    """A different int32 at every element, for up to a million rows."""
    total: Node | None = None
    running = 1
    for axis in reversed(range(like.type.rank)):
        size = like.shape[axis]
        part = scale(iota(like.shape, axis), running)
        total = part if total is None else add(total, part)
        running *= 1_000_003 if isinstance(size, Batch) else size
    return total if total is not None else zeros_like(cast(like, "int32"))


@dataclass(frozen=True)
class DynamicSlice(Op):
    """The block of `sizes` that begins at the starts (int32 scalars, one an axis), kept inside."""

    sizes: Shape

    def infer(self, x: Type, *starts: Type) -> Type:
        _check_starts("dynamic slice", x, starts)
        _check_block("dynamic slice", x, self.sizes)
        return Type(self.sizes, x.dtype)

    def vjp(self, gradient: Node, out: Node, x: Node, *starts: Node) -> Vjp:
        return (dynamic_update(zeros_like(x), gradient, starts), *(None,) * len(starts))

    def numpy(self, x: Any, *starts: Any) -> Any:
        return x[_block(x.shape, static_shape(self.sizes, 0), starts)].copy()

    def at(self, rows: int) -> DynamicSlice:
        return DynamicSlice(static_shape(self.sizes, rows))


@dataclass(frozen=True)
class DynamicUpdate(Op):
    """`x` with the block that begins at the starts replaced by `patch`, kept inside."""

    def infer(self, x: Type, patch: Type, *starts: Type) -> Type:
        _check_starts("dynamic update", x, starts)
        _check_block("dynamic update", x, patch.shape)
        if patch.dtype != x.dtype:
            raise DtypeError(f"dynamic update: the patch is {patch.dtype}, the value {x.dtype}.")
        return x

    def vjp(self, gradient: Node, out: Node, x: Node, patch: Node, *starts: Node) -> Vjp:
        return (
            dynamic_update(gradient, zeros_like(patch), starts),
            dynamic_slice(gradient, starts, patch.shape),
            *(None,) * len(starts),
        )

    def numpy(self, x: Any, patch: Any, *starts: Any) -> Any:
        out = np.array(x)
        out[_block(x.shape, patch.shape, starts)] = patch
        return out


def _block(shape: Sequence[int], sizes: Sequence[int], starts: Sequence[Any]) -> tuple[slice, ...]:
    found = []
    for whole, size, start in zip(shape, sizes, starts, strict=True):
        first = min(max(int(start), 0), whole - size)
        found.append(slice(first, first + size))
    return tuple(found)


def _check_starts(what: str, x: Type, starts: Sequence[Type]) -> None:
    details = [("input", str(x)), *((f"start {i}", str(s)) for i, s in enumerate(starts))]
    if len(starts) != x.rank:
        raise ShapeError(layout(f"{what}: needs {x.rank} starts, got {len(starts)}.", details))
    if any(start.shape or not start.is_integer for start in starts):
        raise ShapeError(layout(f"{what}: starts must be integer scalars.", details))


def _check_block(what: str, x: Type, sizes: Shape) -> None:
    details = [("input", str(x)), ("block", f"({', '.join(map(str, sizes))})")]
    if len(sizes) != x.rank:
        raise ShapeError(layout(f"{what}: the block must have {x.rank} axes.", details))
    for axis, (whole, size) in enumerate(zip(x.shape, sizes, strict=True)):
        if isinstance(whole, Batch) or isinstance(size, Batch):
            if whole != size:
                raise BatchError(
                    layout(f"{what}: axis {axis} is the batch, taken whole or not.", details)
                )
        elif size > whole:
            raise ShapeError(layout(f"{what}: the block leaves axis {axis}.", details))


def gather(table: Node, index: Node, axis: int = 0, batch: int = 0) -> Node:
    """`table[..., index, ...]` along `axis`; the first `batch` axes of both are shared."""
    return apply(Gather(axis % table.type.rank, batch), table, index)


def scatter(kind: str, base: Node, index: Node, rows: Node, axis: int = 0, batch: int = 0) -> Node:
    """`base` with `rows` combined in at `index` along `axis`: kind "add", "set" or "max"."""
    return apply(Scatter(kind, axis % base.type.rank, batch), base, index, rows)


def scatter_counted(counted: str, base: Node, index: Node, rows: Node, count: Node) -> Node:
    """`base` with `rows` added at `index`, of which, or of whose rows, `count` are there."""
    return apply(Scatter("add", counted=counted), base, index, rows, count)


def dynamic_slice(x: Node, starts: Sequence[Node], sizes: Sequence[Dimension]) -> Node:
    """The block of `sizes` that begins at `starts`, integer scalars."""
    return apply(DynamicSlice(tuple(sizes)), x, *starts)


def dynamic_update(x: Node, patch: Node, starts: Sequence[Node]) -> Node:
    """`x` with the block at `starts` replaced by `patch`."""
    return apply(DynamicUpdate(), x, patch, *starts)


Gather.samples = (
    (Gather(), "float32 (7, 3)", "int32 (batch, 2)<7"),
    (Gather(), "float32 (5)", "int32 (6)<5"),
    (Gather(1, 0), "float32 (batch, 5, 2)", "int32 (3)<5"),
    (Gather(1, 1), "float32 (batch, 5)", "int32 (batch)<5"),
    (Gather(2, 1), "float32 (batch, 2, 5, 3)", "int32 (batch, 4)<5"),
    (Gather(), "float32 (4, 2)", "int32 (3)<9"),
)
Scatter.samples = (
    *(
        (Scatter(kind), "float32 (7, 3)", "int32 (4)<7", "float32 (4, 3)")
        for kind in ("add", "set", "max")
    ),
    (Scatter("add"), "float32 (7, 2)", "int32 (batch)<7", "float32 (batch, 2)"),
    (Scatter("add"), "float32 (7, 2)", "int32 (3, batch)<7", "float32 (3, batch, 2)"),
    (
        Scatter("add", counted="index"),
        "int32 (7, 2)<9",
        "int32 (6)<7",
        "int32 (6, 2)<9",
        "int32 ()<7",
    ),
    (Scatter("max", 2, 2), "float32 (2, batch, 5)", "int32 (2, batch)<5", "float32 (2, batch)"),
    (Scatter("set", 1, 1), "float32 (batch, 5)", "int32 (batch, 2)<5", "float32 (batch, 2)"),
    (
        Scatter("add", 2, 1),
        "float32 (batch, 2, 5, 3)",
        "int32 (batch, 4)<5",
        "float32 (batch, 2, 4, 3)",
    ),
)
DynamicSlice.samples = (
    (DynamicSlice((2, 3)), "float32 (4, 5)", "int32 ()<6", "int32 ()<6"),
    (DynamicSlice((Batch(1), 2)), "float32 (batch, 5)", "int32 ()<1", "int32 ()<6"),
)
DynamicUpdate.samples = (
    (DynamicUpdate(), "float32 (4, 5)", "float32 (2, 3)", "int32 ()<6", "int32 ()<6"),
    (DynamicUpdate(), "float32 (batch, 5)", "float32 (batch, 2)", "int32 ()<1", "int32 ()<6"),
)
