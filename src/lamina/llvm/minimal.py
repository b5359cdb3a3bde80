"""Filters along one axis by few multiplications: what Winograd's method is made of.

Two neighbouring outputs of a filter g over an image d are `A^T [(G g) * (B^T d)]`: the transformed
filter and the transformed tile of the image are multiplied position by position. A filter of two
axes is transformed along both (Lavin & Gray 2016, section 4.1).

A filter of stride 2 is one of stride 1 on the even elements, where taps 0 and 2 are neighbours, and
one of a single tap on the odd ones; so it takes 5 multiplications instead of 6, all of whose
coefficients are 1 or -1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lamina.llvm.emit import Value

Transform = Callable[[Sequence[Value]], list[Value]]


@dataclass(frozen=True)
class Minimal:
    """Two outputs of a filter of `taps` taps, whose windows stand `stride` elements apart.

    inputs     elements of the image that they come from
    positions  multiplications; those from `weights` on meet the last transformed tap, too
    additions  of the transform of the image, and of the result
    filter     G g, `weights` values
    image      B^T d
    result     A^T m
    """

    taps: int
    stride: int
    inputs: int
    positions: int
    weights: int
    additions: tuple[int, int]
    filter: Transform
    image: Transform
    result: Transform

    @property
    def step(self) -> int:
        """Elements of the image from one tile to the next."""
        return 2 * self.stride

    @property
    def image_cost(self) -> int:
        """Instructions that transform a vector of channels of a tile: loads, additions, stores."""
        return 2 * self.positions**2 + self.additions[0] * (self.inputs + self.positions)

    @property
    def result_cost(self) -> int:
        """The same of a vector of filters."""
        return self.positions**2 + self.additions[1] * (self.positions + 2) + 4


def _halves(g: Sequence[Value]) -> list[Value]:
    ends = g[0] + g[2]
    return [g[0], (ends + g[1]) * 0.5, (ends - g[1]) * 0.5, g[2]]


FORMS = {
    (form.taps, form.stride): form
    for form in (
        Minimal(
            3, 1, 4, 4, 4, (4, 4),
            _halves,
            lambda d: [d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]],
            lambda m: [m[0] + m[1] + m[2], m[1] - m[2] - m[3]],
        ),
        Minimal(
            3, 2, 5, 5, 4, (2, 4),
            lambda g: [g[0], g[0] + g[2], g[2], g[1]],
            lambda d: [d[0] - d[2], d[2], d[4] - d[2], d[1], d[3]],
            lambda m: [m[0] + m[1] + m[3], m[1] + m[2] + m[4]],
        ),
        Minimal(
            2, 1, 3, 3, 3, (2, 2),
            lambda g: [g[0], g[0] + g[1], g[1]],
            lambda d: [d[0] - d[1], d[1], d[2] - d[1]],
            lambda m: [m[0] + m[1], m[1] + m[2]],
        ),
    )
}  # fmt: skip
"""By taps and stride."""


def both_ways(rows: Sequence[Sequence[Value]], transform: Transform) -> list[Value]:
    """The transform along the columns, then along the rows: row-major."""
    columns = [transform([row[j] for row in rows]) for j in range(len(rows[0]))]
    turned = [[column[i] for column in columns] for i in range(len(columns[0]))]
    return [value for row in turned for value in transform(row)]
