"""Machine code for kernel specifications: one generator for each class of specification."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lamina.llvm.emit import Module
from lamina.llvm.host import Target
from lamina.llvm.kernel import (
    Contraction,
    Cumulative,
    Distinct,
    Elementwise,
    Kernel,
    Reduction,
    RowGroup,
    Scatter,
    Sort,
    TileFilterGradient,
    WindowGradient,
    WinnerFilterGradient,
    WinnerInputGradient,
)
from lamina.llvm.kernels import (
    contraction,
    cumulative,
    distinct,
    elementwise,
    filters,
    reduction,
    rowgroup,
    scatter,
    sort,
    window,
    winners,
)


def _none(_kernel: Any, _target: Target) -> int:
    return 0


@dataclass(frozen=True)
class Generator:
    """What is known of a class of kernels.

    build          adds the function of a kernel to a module under a name
    operands       how many pointers stand before `scratch` in its arguments
    scratch_bytes  how many bytes of scratch, aligned to 64, one call needs
    """

    build: Callable[[Any, str, Module], None]
    operands: Callable[[Any], int]
    scratch_bytes: Callable[[Any, Target], int] = _none


GENERATORS: dict[type, Generator] = {
    Elementwise: Generator(elementwise.build, elementwise.operands),
    Reduction: Generator(reduction.build, reduction.operands),
    RowGroup: Generator(rowgroup.build, rowgroup.operands, rowgroup.scratch_bytes),
    WindowGradient: Generator(window.build, window.operands),
    WinnerFilterGradient: Generator(winners.build_filter, winners.operands, winners.scratch_bytes),
    WinnerInputGradient: Generator(winners.build_input, winners.operands, winners.scratch_bytes),
    TileFilterGradient: Generator(filters.build, filters.operands, filters.scratch_bytes),
    Scatter: Generator(scatter.build, scatter.operands),
    Distinct: Generator(distinct.build, distinct.operands, distinct.scratch_bytes),
    Cumulative: Generator(cumulative.build, cumulative.operands),
    Sort: Generator(sort.build, sort.operands, sort.scratch_bytes),
    Contraction: Generator(contraction.build, contraction.operands, contraction.scratch_bytes),
}


def build(kernel: Kernel, name: str, module: Module, target: Target) -> None:
    """Add the function `name` of a kernel to the module, which must be for that target."""
    assert module.target == target
    GENERATORS[type(kernel)].build(kernel, name, module)


def operand_count(kernel: Kernel) -> int:
    """How many pointers stand before `scratch` in the arguments of the kernel's function."""
    return GENERATORS[type(kernel)].operands(kernel)


def scratch_bytes(kernel: Kernel, target: Target) -> int:
    """How many bytes of scratch, aligned to 64, a call of the kernel needs for itself."""
    return GENERATORS[type(kernel)].scratch_bytes(kernel, target)
