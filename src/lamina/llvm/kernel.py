"""Kernel specifications: the seam between the planner, which writes them, and the generators.

A kernel is one loop nest. Its specification is a frozen value: everything that its machine code
depends on except the host, so equal specifications share one function. It never holds an address:
`operand` numbers name the pointers that the function is called with.

Every generated function has the signature

    void kernel(ptr operand_0, ..., ptr operand_n, ptr scratch, i64 low, i64 high, i64 rows)

`low` and `high` bound the index on the axis named by `split` (all other axes run over their whole
extent; a batch dimension's extent is `factor * rows`). Calls for disjoint ranges of an axis of
`space` may run at the same time. A batch dimension that is not split runs over `factor * rows`.
Strides and offsets count elements of the operand's dtype and are static, because memory is laid
out for the batch capacity.

Bodies are straight-line lists of instructions. Arguments are positions in the list, so sharing is
explicit, hashing is linear, and a body can be printed line by line.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from lamina.types import Dimension

# ------------------------------------------------------------------------- instructions


@dataclass(frozen=True)
class Guard:
    """`low <= offset + sum(index * strides) < high`, where index runs over the kernel's axes."""

    strides: tuple[int, ...]
    offset: int
    low: int
    high: int


@dataclass(frozen=True)
class Load:
    """The element at `offset + sum(index * strides)`; zero, untouched, outside of the guards."""

    operand: int
    dtype: str
    offset: int
    strides: tuple[int, ...]
    guards: tuple[Guard, ...] = ()


@dataclass(frozen=True)
class Lookup:
    """A load whose address also adds `clamp(value[arg], 0, limit - 1) * stride` per index."""

    operand: int
    dtype: str
    offset: int
    strides: tuple[int, ...]
    indexes: tuple[tuple[int, int, int], ...]  # (argument, stride, limit)
    guards: tuple[Guard, ...] = ()


@dataclass(frozen=True)
class Constant:
    """A scalar by its bits, in the machine's byte order."""

    bits: bytes
    dtype: str


@dataclass(frozen=True)
class Position:
    """`offset + sum(index * strides)` as a value (an iota, a coordinate)."""

    dtype: str
    offset: int
    strides: tuple[int, ...]


@dataclass(frozen=True)
class Count:
    """`factor` times the rows present."""

    factor: int
    dtype: str


@dataclass(frozen=True)
class Core:
    """Result `index` of the kernel's own work at this point (a contraction, a reduction)."""

    index: int
    dtype: str


@dataclass(frozen=True)
class Scalar:
    """A function of the scalar table, `lamina.ir.scalar.SCALARS[fn]`."""

    fn: str
    arguments: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Convert:
    """A cast; to and from the narrow types by rounding to nearest even, to bool by `!= 0`."""

    argument: int
    dtype: str


@dataclass(frozen=True)
class Inside:
    """bool: whether every guard holds at this point."""

    guards: tuple[Guard, ...]
    dtype: str = "bool"


@dataclass(frozen=True)
class Random:
    """Threefry-2x32-20 under the key in `operand` (u32[2]): the first word.

    The key's second word is xored with `site`. The counter is (row, position in the row), each
    affine in the index, so bits depend neither on the batch capacity nor on the rows present.
    """

    operand: int
    site: int
    row: tuple[int, ...]
    within: tuple[int, ...]
    within_offset: int = 0
    row_offset: int = 0
    dtype: str = "uint32"


Instruction: TypeAlias = (
    Load | Lookup | Constant | Position | Count | Core | Scalar | Convert | Inside | Random
)
Body: TypeAlias = tuple[Instruction, ...]


@dataclass(frozen=True)
class Store:
    """Write the value of instruction `argument` to `offset + sum(index * strides)`."""

    argument: int
    operand: int
    dtype: str
    offset: int
    strides: tuple[int, ...]


# ------------------------------------------------------------------------- kernels


@dataclass(frozen=True)
class Elementwise:
    """Evaluate `body` at every point of `space`, then store.

    `split` is an axis of `space`. Stores may alias loads only at the same index (an update in
    place): a generator loads everything of a vector before it stores any of it.
    """

    space: tuple[Dimension, ...]
    body: Body
    stores: tuple[Store, ...]
    split: int = 0


@dataclass(frozen=True)
class Reduction:
    """Reduce `body` (evaluated over space + reduced axes) over the `reduced` axes.

    results   one (argument of body, kind) per result; kind is sum, prod, max, min, argmax or
              argmin (row-major position over the reduced axes, the first on a tie; NaN wins)
    after     evaluated over `space`, reads the results by `Core(i)`
    split     an axis of space + reduced; on a reduced axis the results are partial, and
              `accumulate` adds them to what stands at the stores (only kind sum, `after` empty
              but for Core)
    """

    space: tuple[Dimension, ...]
    reduced: tuple[Dimension, ...]
    body: Body
    results: tuple[tuple[int, str], ...]
    after: Body
    stores: tuple[Store, ...]
    split: int = 0
    accumulate: bool = False


@dataclass(frozen=True)
class Stage:
    """One pass over a row: evaluate `body` up to `argument` and reduce it by `kind`."""

    argument: int
    kind: str


@dataclass(frozen=True)
class RowGroup:
    """Softmax, layer norm, cross-entropy: several reductions over the last axis and maps around.

    The axes are `space` (the rows) and then `columns`. `body` is evaluated over all of them; an
    instruction `Core(i)` in it is the result of `stages[i]`, constant along the row. Stages run
    in order; stage i may read `Core(j)` for j < i. Stores come last: `stores` over space +
    columns, `row_stores` over space only (their arguments must be constant along the row).
    """

    space: tuple[Dimension, ...]
    columns: int
    body: Body
    stages: tuple[Stage, ...]
    stores: tuple[Store, ...]
    row_stores: tuple[Store, ...]
    split: int = 0


@dataclass(frozen=True)
class Access:
    """An operand of a contraction, affine over space + reduced axes; zero outside the guards."""

    operand: int
    dtype: str
    offset: int
    strides: tuple[int, ...]
    guards: tuple[Guard, ...] = ()


@dataclass(frozen=True)
class Contraction:
    """`core[space] = sum over reduced of a * b`: products of matrices and all convolutions.

    The last axis of `space` is the column axis, the one that fills a vector. Usually `a` has
    stride 0 on it (a broadcast scalar) and `b` stride 1; both with stride 1 is a depthwise
    convolution. Axes of space on which `b` has stride 0 are rows of the register tile. The sum
    runs in row-major order of `reduced`, one fused multiply-add a term, for every tile size.

    dot           a (M, K), b (K, N)   space (M, N), reduced (K,)
    convolution   a = x, b = w         space (n, oy, ox, f), reduced (kh, kw, c), x guarded where
                                       padding makes an index leave the image
    its filter    a = x, b = dy        space (kh, kw, c, f), reduced (n, oy, ox)

    body      the epilogue, over `space`; reads the sum as Core(0), dtype `accumulator`
    split     an axis of space + reduced; on a reduced axis the sum is partial and, with
              `accumulate`, is added to what stands at the (only) store
    """

    space: tuple[Dimension, ...]
    reduced: tuple[Dimension, ...]
    a: Access
    b: Access
    body: Body
    stores: tuple[Store, ...]
    split: int = 0
    accumulate: bool = False
    accumulator: str = "float32"


@dataclass(frozen=True)
class WindowGradient:
    """The gradient of pooling: for each window, give its gradient to what it came from.

    Operands: 0 the pooled input x (max only), 1 the gradient of the output, 2 the result. Layout
    (batch, spatial..., channels), all row-major contiguous. The result is cleared first, sample
    by sample. Max gives to the first maximum in row-major order of the window; average divides by
    the number of cells inside the image; sum gives to all.
    """

    kind: str
    batch: Dimension
    image: tuple[int, ...]
    windows: tuple[int, ...]
    size: tuple[int, ...]
    strides: tuple[int, ...]
    low: tuple[int, ...]
    channels: int
    dtype: str = "float32"
    split: int = 0


@dataclass(frozen=True)
class WinnerFilterGradient:
    """`lamina.ir.winners.WinnerFilterGrad`, added to what stands in the result.

    Operands: 0 x (batch, *image, channels), 1 places and 2 gradient (batch, *windows, filters),
    3 the result (filters, *kernel, channels), all contiguous float32, places int32. The windows
    of `size` stand side by side. Without places (`SparseFilterGrad`) a window is one cell.
    """

    batch: Dimension
    image: tuple[int, int]
    kernel: tuple[int, int]
    windows: tuple[int, int]
    size: tuple[int, int]
    channels: int
    filters: int
    placed: bool = True
    accumulate: bool = True


@dataclass(frozen=True)
class WinnerInputGradient:
    """`lamina.ir.winners.WinnerInputGrad`. Every sample's result is cleared first.

    Operands: 0 places and 1 gradient (batch, *windows, filters), 2 the filters (filters, *kernel,
    channels), 3 the result (batch, *image, channels), all contiguous float32, places int32. The
    windows of `size` stand side by side. Without places (`SparseInputGrad`) a window is one cell.
    """

    batch: Dimension
    image: tuple[int, int]
    kernel: tuple[int, int]
    windows: tuple[int, int]
    size: tuple[int, int]
    channels: int
    filters: int
    placed: bool = True


@dataclass(frozen=True)
class TileFilterGradient:
    """The gradient of a 3 x 3 filter of stride 1, by tiles; added to what stands in the result.

    Operands: 0 x (batch, *image, channels), 1 the gradient of the output (batch, *outputs,
    filters), 2 the sums (4, 4, channels, filters), see `kernels.filters`, all contiguous float32.
    `low` counts the padding before both axes of the image.
    """

    batch: Dimension
    image: tuple[int, int]
    outputs: tuple[int, int]
    low: tuple[int, int]
    channels: int
    filters: int
    accumulate: bool = True


@dataclass(frozen=True)
class Scatter:
    """`out[index[i]] (+)= rows[i]` in place, rows taken in order, split by destination.

    Operands: 0 out (it already holds the base), 1 index (int32 or int64), 2 rows. `outer` counts
    independent problems (leading batch axes of all three), `table` destinations of `inner`
    contiguous elements each, `count` indices per problem. Indices are clamped. `split` 0 is the
    outer axis, 1 the table axis, 2 the inner one: a call handles only destinations in [low, high),
    whatever order others run in.

    clear   the base is zero: a call clears its destinations first
    named   where it is not 0, operand 3 counts the destinations that the indices name (int32): the
            others are not cleared, but for those that fill up the last so many
    steps   how often `count` indices stand one behind the other, each time with room for all
            rows of the capacity, which is `pitch` indices (time before the batch)
    """

    outer: Dimension
    table: int
    inner: int
    count: Dimension
    kind: str
    dtype: str
    index_dtype: str
    split: int = 1
    clear: bool = False
    named: int = 0
    steps: int = 1
    pitch: int = 0


@dataclass(frozen=True)
class Distinct:
    """`lamina.ir.distinct.Distinct`: the different rows of a table that an index names.

    Operands: 0 index (`count` of them, contiguous), 1 rows (`room`), 2 the place of each index
    among them, 3 their number; all int32 but the index. Indices are clamped to the `table`. Behind
    the last row the first one is repeated.
    """

    count: Dimension
    table: int
    room: int
    index_dtype: str


@dataclass(frozen=True)
class Cumulative:
    """Running sum, product or maximum along the middle axis of (outer, length, inner)."""

    outer: Dimension
    length: int
    inner: int
    kind: str
    reverse: bool
    dtype: str
    split: int = 0


@dataclass(frozen=True)
class Sort:
    """Stable sort along the last axis of (outer, length): keys, and `carried` other arrays.

    Operands: keys in, each carried in, keys out, each carried out, all contiguous. NaNs go last.
    With `top` the first `top` are written only.
    """

    outer: Dimension
    length: int
    dtype: str
    carried: tuple[str, ...]
    descending: bool
    top: int | None = None
    split: int = 0


Kernel: TypeAlias = (
    Elementwise
    | Reduction
    | RowGroup
    | Contraction
    | WindowGradient
    | WinnerFilterGradient
    | WinnerInputGradient
    | TileFilterGradient
    | Scatter
    | Distinct
    | Cumulative
    | Sort
)
