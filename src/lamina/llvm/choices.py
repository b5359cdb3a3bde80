"""Heuristics of the llvm executor: tile sizes, thresholds, who computes what.

Every function here is pure, and none may make a result wrong or let it depend on threads or on the
rows that are present. Most change speed only: an element's sum is taken in an order that its shape
alone fixes. These choose between ways that round differently: `winograd_pays`, `tiles_pay`,
`words_pay` (for bfloat16 where the target has an instruction for it), `tables_pay` and
`distinct_pay`, by what is multiplied; `parts`, `block_rows` and `sums_whole`, by program and
capacity, into what pieces a sum over the batch is cut; `SPARSE_POSITIONS`, where the zeros of a
gradient are passed over.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lamina.llvm.host import Target
from lamina.llvm.minimal import Minimal
from lamina.types import Batch, Dimension

# ------------------------------------------------------------------------- contractions

# Bytes of `b` from which on a tile finds its columns in the second level of cache.
FAR_BYTES = 32 << 10
# Bytes after which addresses fall on the same set of the first cache again.
SET_PERIOD = 4096
# What one more size of tile, which must be compiled, may cost at most.
VARIANT_CYCLES = 8000.0
# Vectors of columns in a tile, at most.
WIDEST_TILE = 5
# Where the number of rows is known only at run time, tiles are chosen for these numbers: one
# thread's share of a batch, or a block of it.
USUAL_ROWS = (8, 16, 32)
# Multiply-adds, and terms of a sum, that may be written out one after another.
LONGEST_BODY = 150
MOST_WRITTEN_OUT = 12
# Terms of a sum from which on the lines that its epilogue touches are asked for before its terms
# are added: fewer leave no time for a line to arrive.
PREFETCHED_TERMS = 32
LINE_BYTES = 64
# Bytes of both operands that one pass over a sum may touch before it is cut into blocks.
PASS_BYTES = 1 << 19
# Taps are taken one after another where fewer than this share of the positions of a copy with its
# border is reached by a tap, and a tap has at least so many terms.
USEFUL_SHARE = 0.8
TERMS_A_TAP = 24
# Channels x filters up to which the transformed filters of Winograd's method stay in cache.
LARGEST_WINOGRAD = 128 * 128
# Bytes of them that are read fast; of the inputs and products of a group of tiles beside them; and
# where the filters come from far away, so that a group must be large to make that worth while.
NEAR_WINOGRAD = 600_000
NEAR_GROUP = 150_000
FAR_GROUP = 400_000
# Bytes of `b` that stay in the second level of cache while one image after the other is taken.
RESIDENT_BYTES = 1 << 20
# Bytes of places and gradients that one filter after the other walks through, a number of each
# line at a time.
WINNER_BYTES = 16 << 10
# From how many terms, columns and tiles of rows on panels of `b` are packed (measured).
PACKED_TERMS = 128
PACKED_COLUMNS = 128
PACKED_TILES = 3
# From how many terms on few columns are packed that lie so far apart as to crowd each other out.
CROWDED_TERMS = 48
MANY_ROWS = 64
# Terms of a pass with packed columns that takes several steps of the whole batch (measured).
PACKED_PASS = 256
# Bytes of rows of `a` that stay in the second level of cache while all columns pass by.
ROWS_BYTES = 512 << 10


def typical(size: Dimension) -> int:
    """An extent to plan with."""
    return size if isinstance(size, int) else size.rows(USUAL_ROWS[1])


@dataclass(frozen=True)
class TileShape:
    """A register tile: rows along each axis of rows, and vectors of columns."""

    rows: tuple[int, ...]
    vectors: int

    @property
    def count(self) -> int:
        return math.prod(self.rows)


def pieces(extent: int, largest: int) -> list[tuple[int, int]]:
    """Cut `extent` into nearly equal sizes of at most `largest`: (size, how many) pairs.

    >>> pieces(32, 12), pieces(30, 10)
    ([(11, 2), (10, 1)], [(10, 3)])
    """
    count = max(1, -(-extent // largest))
    small, more = divmod(extent, count)
    sizes = [(small + 1, more), (small, count - more)]
    return [(size, number) for size, number in sizes if size and number]


def descending(largest: int, vectors: int) -> list[int]:
    """Tile sizes for an axis whose extent is known only at run time: the tile, then its edges.

    Eight sums keep the units busy, so between the whole tile and a single row stands one that has
    about eight.

    >>> descending(8, 2), descending(6, 4), descending(3, 4)
    ([8, 4, 1], [6, 2, 1], [3, 1])
    """
    middle = -(-8 // vectors)
    sizes = [largest, middle if middle < largest - 1 else 1, 1]
    return sorted(set(sizes), reverse=True)


def giving_back(sizes: Sequence[int]) -> list[int]:
    """Rows left over by the largest tile for which one tile fewer leaves fewer single rows.

    32 rows in tiles of 6 and 4 are four of 6 and two of 4, not five of 6 and two single rows.

    >>> giving_back([6, 4, 1]), giving_back([12, 4, 1]), giving_back([4, 1])
    ([2, 3], [], [])
    """
    if len(sizes) < 3:
        return []
    largest, smaller, _ = sizes
    return [left for left in range(largest) if (left + largest) % smaller < left % smaller]


def terms_a_pass(a: int, b: int, *, steps: bool = False) -> int:
    """Terms of a sum taken in one pass where sums stand in memory between passes.

    What a pass reads should lie in the first level of cache (64 channels: 96 terms, 128: 60 are
    best), but loading and storing the sums has to pay. Packed columns leave room for more.

    a, b    bytes from one term to the next in each operand
    steps   a pass takes several steps of the whole batch, and may pack its columns

    >>> terms_a_pass(256, 256), terms_a_pass(1024, 4096), terms_a_pass(1024, 4096, steps=True)
    (96, 60, 256)
    """
    if steps and Spread(PACKED_PASS, a, b).far(0):
        return PACKED_PASS
    return max(60, min(120, (48 << 10) // max(a + b, 1)))


def accumulators(target: Target, vectors: int) -> int:
    """How many rows fit: `vectors` columns and one broadcast stand beside the sums."""
    return max(1, (target.registers - vectors - 1) // vectors)


def crowded(rows: int, row_bytes: int, distance: int) -> bool:
    """Whether rows that lie `distance` bytes apart push each other out of the first cache.

    Rows a multiple of a power of two apart share few of its sets.

    >>> crowded(128, 128, 512), crowded(128, 128, 528)
    (True, False)
    """
    line = max(row_bytes, LINE_BYTES)
    share = min(1.0, line / math.gcd(distance, SET_PERIOD))
    return rows * min(line, distance) > FAR_BYTES * share


@dataclass(frozen=True)
class Spread:
    """How the terms of one pass over a sum lie in memory.

    terms   along the innermost reduced axis
    a, b    bytes from one term to the next in each operand
    vector  bytes of a vector
    """

    terms: int
    a: int
    b: int
    vector: int = 0

    def far(self, row_bytes: int) -> bool:
        """Whether pieces of rows, of so many bytes, come from the second level for every tile."""
        return self.b > row_bytes and crowded(self.terms, row_bytes, self.b)

    @property
    def askew(self) -> bool:
        """Whether the vectors of longer rows cross lines: they do not begin at a multiple."""
        return self.b > self.vector > 0 and self.b % self.vector > 0

    @property
    def a_far(self) -> bool:
        """Whether each term of `a` stands in a line of its own, fetched for every tile."""
        return self.a >= LINE_BYTES and crowded(self.terms, LINE_BYTES, self.a)


def tile_cycles(
    rows: int, vectors: int, *, a_vectors: bool, far: bool, a_far: bool = False
) -> float:
    """Estimated cycles of one term of a tile's sum: two multiply-adds or two loads a cycle.

    `far` says that the columns come from the second level of cache, in pieces of longer rows;
    `a_far` that a line of `a` comes from there for every term.
    """
    loads = rows * vectors + vectors if a_vectors else rows + vectors
    # A multiply-add takes four cycles, so fewer than eight sums leave the units idle. A broadcast
    # that serves few vectors costs more than its load, and columns come from further away than
    # rows (fitted to 16x1, 8x2, 12x2, 14x2, 8x3, 9x3, 6x4 and 5x5).
    broadcasts = rows * min(0.35, 0.6 / vectors**2)
    columns = vectors * (0.4 if far else 0.25)
    return max(rows * vectors / 2, loads / 2, 4.0) + broadcasts + columns + a_far


@dataclass(frozen=True)
class WinogradShape:
    """A convolution by Winograd's method: tiles of an image, and the method along either axis."""

    tiles: int
    channels: int
    filters: int
    form: Minimal

    @property
    def positions(self) -> int:
        return self.form.positions**2


def winograd_group(shape: WinogradShape, *, rows: int, vectors: int, lanes: int) -> int:
    """How many Winograd tiles are taken together.

    They should fill register tiles of `rows` x `vectors`, and be many where the transformed
    filters, which pass by once for every group, come from far away. The positions of a group
    should not lie a multiple of `SET_PERIOD` apart: transforms touch all of them at once.

    >>> from lamina.llvm.minimal import FORMS
    >>> shape = WinogradShape(256, 32, 32, FORMS[3, 1])
    >>> winograd_group(shape, rows=6, vectors=2, lanes=8)
    43
    """
    channels, filters, positions = shape.channels, shape.filters, shape.positions
    weights = 4 * shape.form.weights**2 * channels * filters
    near = weights <= NEAR_WINOGRAD
    bytes_a_cycle = 32 if near else 6
    room = (NEAR_GROUP if near else FAR_GROUP) // (4 * positions * (channels + vectors * lanes))
    best, least = 1, math.inf
    for most in range(1, max(1, min(shape.tiles, room, 48)) + 1):
        cost, variants = 0.0, 0
        for size, count in pieces(shape.tiles, most):
            inner = pieces(size, rows)
            cycles = sum(
                number * tile_cycles(part, vectors, a_vectors=False, far=False)
                for part, number in inner
            )
            products = positions * channels * filters / (vectors * lanes) * cycles
            transforms = 4 * positions * size * (channels + filters)
            crowded = size * channels * 4 % SET_PERIOD == 0
            passing = weights / bytes_a_cycle + 0.15 * crowded * transforms
            cost += count * (products + passing)
            variants += len(inner)
        cost *= 1 + 0.03 * variants
        if cost < least:
            best, least = most, cost
    return best


def winograd_pays(shape: WinogradShape, direct: int, lanes: int, *, copied: bool) -> bool:
    """Whether Winograd's transforms cost less than the multiplications that they save.

    `direct` counts the positions of the image that the direct sum computes.
    """
    channels, filters, form = shape.channels, shape.filters, shape.form
    if channels < 16 or channels * filters > LARGEST_WINOGRAD:
        return False
    # A direct sum whose positions stand apart in the image is slower by a fifth.
    apart = 1.2 if form.stride > 1 else 1.0
    plain = apart * direct * form.taps**2 * channels * filters / (2 * lanes)
    product = shape.positions * channels * filters / (2 * lanes) + 40
    copying = form.step**2 * 4 * copied * channels
    into, out = 1.1 * form.image_cost * channels, 1.7 * form.result_cost * filters
    transforms = (into + out + copying) / lanes
    return shape.tiles * (1.06 * product + transforms) < 0.9 * plain


# Bytes of transformed images and gradients that stay in the second level of cache, of a filter's
# gradient by tiles; and how many tiles make up for what it costs once a step.
TILES_BYTES = 220_000
FEWEST_TILES = 32


def tiles_together(tiles: tuple[int, int], columns: int) -> tuple[int, int]:
    """(images, rows of tiles) that a filter's gradient transforms at once.

    columns   channels and filters

    >>> tiles_together((16, 16), 64), tiles_together((4, 4), 256)
    ((1, 8), (3, 4))
    """
    fitting = max(1, TILES_BYTES // (4 * 4 * columns))
    whole = math.prod(tiles)
    if fitting >= whole:
        return fitting // whole, tiles[0]
    count = -(-tiles[0] // max(1, fitting // tiles[1]))
    return 1, -(-tiles[0] // count)


def tiles_pay(
    outputs: tuple[int, int], tiles: tuple[int, int], rows: int, channels: int, filters: int
) -> bool:
    """Whether a filter's gradient by tiles costs less than the direct sum.

    rows   that the batch has room for
    """
    if channels % 8 or filters % 8 or rows * math.prod(tiles) < FEWEST_TILES:
        return False
    direct = math.prod(outputs) * 9 * channels * filters / 16
    product = 16 * channels * filters / 16
    transforms = (40 * channels + 24 * filters) / 8
    return math.prod(tiles) * (1.1 * product + transforms) < 0.9 * direct


@functools.cache
def tile_shape(
    target: Target,
    rows: tuple[Dimension, ...],
    vectors: int,
    terms: int,
    *,
    a_vectors: bool = False,
    guarded: bool = False,
    packed: bool = False,
    spread: Spread | None = None,
) -> TileShape:
    """The register tile for the given axes of rows and number of column vectors.

    rows       extents, outermost first; Batch where it is known only at run time
    vectors    vectors in a row of columns
    terms      products in a sum
    a_vectors  both operands are vectors along the columns (depthwise), nothing is broadcast
    guarded    every element is tested: much code, for the few outputs at a border
    packed     columns come from panels in scratch, one after another
    spread     how terms lie in memory, where that is known
    """
    best, least = TileShape((1,) * len(rows), 1), math.inf
    for width in range(1, min(vectors, WIDEST_TILE) + 1):
        most = accumulators(target, width)
        if a_vectors and terms <= 64:
            # Few taps are written out; more would keep too many loaded vectors alive at a time.
            most = min(most, max(1, 8 // width))
        if guarded:
            most = min(most, 2)
        for box in _boxes(rows, most):
            cost = _tiling_cost(
                target,
                rows,
                box,
                vectors,
                width,
                terms,
                a_vectors=a_vectors,
                packed=packed,
                spread=spread,
            )
            if cost < least:
                best, least = TileShape(box, width), cost
    return best


def _boxes(rows: Sequence[Dimension], most: int) -> Iterator[tuple[int, ...]]:
    """Boxes of at most `most` rows; an axis is cut only if all inside of it are taken whole."""
    if not rows:
        yield ()
        return
    for outer in range(len(rows)):
        inner = [extent for extent in rows[outer + 1 :] if isinstance(extent, int)]
        whole = math.prod(inner)
        if len(inner) < len(rows) - outer - 1 or whole > most:
            continue
        extent = rows[outer]
        largest = min(most // whole, extent) if isinstance(extent, int) else most // whole
        for size in range(1, largest + 1):
            yield (1,) * outer + (size, *inner)
    # Rows of several small images: fewer tiles then pass through all of `b`.
    if len(rows) > 2 and isinstance(rows[0], Batch) and isinstance(rows[-1], int):
        for images in range(2, most // rows[-1] + 1):
            yield (images, *(1,) * (len(rows) - 2), rows[-1])
    # Two axes cut at once: an image of rows longer than a tile, cut across.
    if len(rows) > 1 and isinstance(rows[-1], int) and isinstance(rows[-2], int):
        for high, wide in itertools.product(range(2, 5), range(2, rows[-1])):
            if high * wide <= most and high <= rows[-2] and rows[-1] % wide == 0:
                yield (1,) * (len(rows) - 2) + (high, wide)


def _short_cycles(target: Target, rows: int, vectors: int, terms: int, *, a_vectors: bool) -> float:
    """The same for a sum so short that it is written out: all its columns may stay in registers.

    Neighbouring tiles overlap, so few sums do no harm; sums that do not fit beside the columns do.
    """
    loads = rows * vectors if a_vectors else rows
    cycles = max(rows * vectors / 2, loads / 2)
    fits = (rows + terms) * vectors + 3 <= target.registers
    return cycles if fits else 2 * cycles + 0.5 * vectors


def _tiling_cost(
    target: Target,
    rows: Sequence[Dimension],
    box: Sequence[int],
    vectors: int,
    width: int,
    terms: int,
    *,
    a_vectors: bool,
    packed: bool,
    spread: Spread | None,
) -> float:
    """Estimated cycles for everything, with a penalty for every variant that must be compiled."""
    cuts = []
    for extent, size in zip(rows, box, strict=True):
        if isinstance(extent, int):
            cuts.append(pieces(extent, size))
            continue
        found = dict.fromkeys(descending(size, width), 0)
        spared = giving_back(list(found))
        for left in USUAL_ROWS:
            left *= extent.factor
            for step in found:
                number = left // step
                if step == size and number and left % step in spared:
                    number -= 1
                found[step] += number
                left -= number * step
        cuts.append([(step, count) for step, count in found.items() if count])
    columns = pieces(vectors, width)
    total, variants = 0.0, 0
    for combination in itertools.product(columns, *cuts):
        (across, panels), *along = combination
        count = math.prod(size for size, _ in along)
        tiles = panels * math.prod(number for _, number in along)
        far = across < vectors and terms * vectors * target.vector_bytes > FAR_BYTES
        far = not packed and (far or bool(spread and spread.far(across * target.vector_bytes)))
        a_far = bool(spread and spread.a_far)
        cycles = tile_cycles(count, across, a_vectors=a_vectors, far=far, a_far=a_far)
        if terms <= MOST_WRITTEN_OUT:
            cycles = _short_cycles(target, count, across, terms, a_vectors=a_vectors)
        total += tiles * (terms * cycles + 12 + 2 * count * across)
        variants += 1
    return total + (variants - 1) * min(0.04 * total, VARIANT_CYCLES)


def winner_band(count: int, bytes_each: int) -> int:
    """How many of `count` rows of windows are taken together, of so many bytes each."""
    return max(1, min(count, WINNER_BYTES // bytes_each))


# ------------------------------------------------------------------------- narrow numbers

# Rows, columns in vectors, terms and terms side by side from which on copying narrow numbers into
# words pays; and the most bytes of words of the right side that a thread may take for itself.
WORD_ROWS = 4
WORD_TERMS = 16
WORD_RUN = 8
MOST_WORD_BYTES = 8 << 20
# Bytes of words of rows that are copied at a time.
WORD_CHUNK_BYTES = 64 << 10


def words_pay(rows: int, columns: int, terms: int, run: int, target: Target) -> bool:
    """Whether a product of narrow numbers is worth copies of both sides; fixed by the shape."""
    return (
        rows >= WORD_ROWS
        and columns >= target.lanes
        and terms >= WORD_TERMS
        and run >= WORD_RUN
        and 4 * columns * terms <= MOST_WORD_BYTES
    )


def word_tile(target: Target) -> tuple[int, int]:
    """Rows and vectors of a tile of words: two vectors, as a register for a product is needed."""
    return accumulators(target, 2), 2


def rows_in_words(row_bytes: int, tile: int) -> int:
    """How many rows are copied at a time: whole tiles."""
    return max(1, min(48, WORD_CHUNK_BYTES // (row_bytes * tile))) * tile


# ------------------------------------------------------------------------- rewriting

# Input channels of a convolution from which on its gradients are taken at the winners of the
# pooling behind it: fewer do not fill a vector.
WINNER_CHANNELS = 8
# Positions of which a maximum takes one, from which on its gradient is searched for what is not 0.
SPARSE_POSITIONS = 16
# How often a row of a table is met at least for the table to be multiplied instead of its rows, and
# the terms of products that are saved where rows are added first.
TABLE_MEETINGS = 4
TABLE_TERMS = 16
# Look-ups of a batch from which on the different rows among them are found.
DISTINCT_LOOKUPS = 256
# Taps of a convolution over rows of a table, at most, whose products are looked up one by one.
LOOKED_UP_TAPS = 16


def tables_pay(rows: int, lookups: int, terms: int | None) -> bool:
    """Whether products with rows of a table give way to products with the table.

    terms   of the products that sums by row save; None where rows of the product are looked up

    >>> tables_pay(65, 4096, None), tables_pay(10_000, 4096, None), tables_pay(65, 4096, 8)
    (True, False, False)
    """
    return rows * TABLE_MEETINGS <= lookups and (terms is None or terms >= TABLE_TERMS)


def distinct_pay(lookups: int, terms: int) -> bool:
    """Whether products with rows of a large table give way to those with the different ones.

    How many these are is not known: of text, whose words are spread by Zipf's law, a fifth of some
    thousand words. Where nearly all are different (3200 of 10000, drawn evenly), an LSTM takes 7 %
    longer, a dense layer of each word 18 %, a convolution and its pooling 39 %.

    terms   of the products

    >>> distinct_pay(3200, 64), distinct_pay(100, 64), distinct_pay(3200, 8)
    (True, False, False)
    """
    return lookups >= DISTINCT_LOOKUPS and terms >= TABLE_TERMS


def counted_unit(room: Dimension) -> int:
    """In units of how many rows products take rows that are counted as the step runs.

    Kernels are planned for 16 units, and the different words of a batch are some hundred.

    >>> counted_unit(3200), counted_unit(50)
    (32, 1)
    """
    return 32 if isinstance(room, int) and room % 32 == 0 else 1


# ------------------------------------------------------------------------- fusion and planning

# A map that is read more than once is computed again up to this cost, stored above it.
INLINE_COST = 4
# Costs of leaves that are no rows of the scalar table.
RANDOM_COST = 60
LOOKUP_COST = 2
# The largest tree of maps computed in one kernel, and the most values that a kernel stores.
LARGEST_TREE = 80
LARGEST_GROUP = 12
# Operations below which a kernel without a batch axis is left to one thread.
SMALLEST_SHARED_WORK = 2048
# Operations of a step below which sums over the batch are taken whole, and have an epilogue.
SMALLEST_STEP_IN_PARTS = 2_000_000.0
# Bytes of a product's operands for a byte of its sums over the batch, in all parts: where they are
# fewer, sending them to all threads costs less than to write, clear and add the parts.
OPERANDS_A_PARTIAL_BYTE = 0.5
# Operations of a step for which one more thread pays, and of a call for which it is woken: passing
# a barrier takes 31 ns, waking a thread some 100 us (measured with two threads only).
OPERATIONS_A_THREAD = 130_000.0
SMALLEST_THREADED_CALL = 4_000_000.0
# Bytes of private memory that one block of rows may take. It is the same whatever the size of a
# core's second cache: a third to one and a half of it changed no step measurably where that is
# 512 kB, and a block decides in what pieces a sum over the batch is added.
BLOCK_BYTES = 800_000
SMALLEST_BLOCK = 8


def parts(capacity: int, work: float) -> int:
    """Into how many parts the batch is cut where it is summed; fixed by the program alone.

    work   operations of a step

    >>> parts(1, 1e9), parts(32, 1e9), parts(1024, 1e9), parts(32, 1e6)
    (1, 2, 8, 1)
    """
    if capacity < 2 or work < SMALLEST_STEP_IN_PARTS:
        return 1
    return 2 if capacity < 128 else 4 if capacity < 512 else 8


def block_rows(
    capacity: int, parts: int, row_bytes: int, streamed: int = 0, constant: int = 0
) -> int:
    """Rows that a thread takes at once through a phase, so that their values stay in its cache.

    row_bytes   of a row, written and read again
    streamed    bytes of a row that come from other phases
    constant    bytes that pass by once for every block: weights, and sums over the batch. Rows
                that only pass by should weigh as much

    >>> block_rows(64, 2, 100_000), block_rows(64, 2, 20_000, 180_000, 2_000_000)
    (8, 10)
    """
    most = -(-capacity // parts)
    if row_bytes + streamed <= 0:
        return most
    fitting = max(1, BLOCK_BYTES // (row_bytes + streamed))
    if fitting > SMALLEST_BLOCK:
        fitting -= fitting % SMALLEST_BLOCK
    near = BLOCK_BYTES // max(row_bytes, 1)
    return min(most, max(fitting, min(near, constant // (row_bytes + streamed))))


# Columns of a panel, and how wide a constant matrix in a time loop must be to be cut into panels.
PANEL_COLUMNS = 32
WIDEST_UNCUT = 128
# Rows that lie this many elements apart fall on so few lines of the first cache that any product
# with them is better off with panels.
FAR_APART = 512


def in_panels(
    shape: Sequence[Dimension], columns: Dimension, distance: int, *, repeated: bool
) -> bool:
    """Whether the right side of a product is copied into panels of columns beforehand.

    distance   elements between its rows
    repeated   it is constant in a time loop, so that one copy serves many products
    """
    return (
        isinstance(columns, int)
        and columns > WIDEST_UNCUT
        and columns % PANEL_COLUMNS == 0
        and all(isinstance(size, int) for size in shape)
        and (repeated or distance >= FAR_APART)
    )


# Columns that leave most of a vector empty, so that vectors run along the sum.
HARDLY_ANY_COLUMNS = (1, 2, 3)


def reduces_better(
    space: Sequence[Dimension],
    reduced: Sequence[Dimension],
    a_strides: Sequence[int],
    b_strides: Sequence[int],
) -> bool:
    """Whether a contraction with hardly any columns is better computed as a reduction.

    Both fill vectors along the sum; the contraction does it faster where the last axis of the sum
    is a multiple of every vector's length.
    """
    if space[-1] not in HARDLY_ANY_COLUMNS or not reduced:
        return False
    last = reduced[-1]
    if not isinstance(last, int) or last % 16 == 0:
        return False
    return last >= 8 and a_strides[-1] == 1 and b_strides[-1] == 1


# Elements of a row from which on threads share a scatter by columns: their shares are equal then,
# whatever the indices are.
WIDE_ROW = 256


def scatter_by_column(inner: int) -> bool:
    """Whether threads take columns of every row of a table, rather than rows of it."""
    return inner >= WIDE_ROW


def sums_whole(operands: int, sums: int, parts: int) -> bool:
    """Whether a product that sums over the batch is taken whole, by threads that share its rows.

    operands   bytes of both operands: all threads read what each of them wrote
    sums       bytes of the result: every part writes as much, which somebody adds

    >>> sums_whole(128 * (784 + 512) * 4, 784 * 512 * 4, 4), sums_whole(6_000_000, 36_000, 2)
    (True, False)
    """
    return operands <= OPERANDS_A_PARTIAL_BYTE * parts * sums


def threads_wanted(work: float, steps: int) -> int:
    """How many threads a call deserves for its steps of about `work` operations; 64 at most.

    >>> threads_wanted(1e6, 1), threads_wanted(1e6, 100), threads_wanted(1e9, 1)
    (1, 7, 64)
    """
    if work * steps < SMALLEST_THREADED_CALL:
        return 1
    return max(1, min(int(work / OPERATIONS_A_THREAD), 64))
