"""A register tile over two operands in scratch: the products of Winograd's method."""

from __future__ import annotations

from collections.abc import Sequence

from lamina.llvm.emit import Emit, Integer, Place, Value, element_bytes, parts


def product(
    emit: Emit,
    a: Place,
    b: Place,
    sums: Sequence[Value],
    terms: Integer,
    *,
    rows: int,
    steps: tuple[int, int, int],
) -> list[Value]:
    """Add to `rows` x vectors sums the products of `rows` scalars of `a` and a row of `b`, for
    each of at least one term.

    steps   bytes from one row to the next in `a`, from one term to the next in `a`, and in `b`
    """
    kind = sums[0].type
    element, lanes = parts(kind)
    vectors = len(sums) // rows
    row, along, column = steps
    with emit.loop(0, terms, carry=[*sums, a.base, b.base], nonempty=True) as k:
        *totals, left, right = k.carry
        columns = [
            emit.load(Place(right, b.offset + v * lanes * element_bytes(kind)), kind)
            for v in range(vectors)
        ]
        after: list[Value] = []
        for r in range(rows):
            scalar = emit.load(Place(left, a.offset + r * row), element)
            broadcast = emit.splat(scalar, lanes)
            after += [
                emit.fma(broadcast, columns[v], totals[r * vectors + v]) for v in range(vectors)
            ]
        k.next = [*after, Place(left, along).pointer, Place(right, column).pointer]
    return k.result[:-2]
