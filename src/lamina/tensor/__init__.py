"""What users hold: tensors, computed when asked for, and variables, which keep state."""

from lamina.tensor.tensor import (
    Operators,
    Tensor,
    as_dtype,
    binary,
    cast,
    convert,
    is_symbolic,
    is_tensor,
    matmul,
    operands,
    reshape,
    result_dtype,
    stack,
    unary,
)
from lamina.tensor.values import is_tracing, outside_trace, recording
from lamina.tensor.variable import Variable, autocast

__all__ = [
    "Operators",
    "Tensor",
    "Variable",
    "as_dtype",
    "autocast",
    "binary",
    "cast",
    "convert",
    "is_symbolic",
    "is_tensor",
    "is_tracing",
    "matmul",
    "operands",
    "outside_trace",
    "recording",
    "reshape",
    "result_dtype",
    "stack",
    "unary",
]
