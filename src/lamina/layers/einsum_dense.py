"""A dense layer whose product is an einsum equation."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from lamina import activations, ops
from lamina.errors import ShapeError, layout
from lamina.initializers import VarianceScaling
from lamina.layers.layer import Layer
from lamina.layers.rules import add_ruled, rules_config, set_rules
from lamina.tensor import Variable


class EinsumDense(Layer):
    """`activation(einsum(equation, inputs, kernel) + bias)`.

    equation       such as "abc,cd->abd", or "...x,xy->...y"; the kernel is the second operand
    output_shape   sizes of the output without the batch; None where a size is that of the input
    bias_axes      the letters of the output over which the bias runs; None: no bias

    >>> import numpy as np
    >>> EinsumDense("abc,cd->abd", (None, 4), bias_axes="d")(np.ones((2, 5, 3), "float32")).shape
    (2, 5, 4)
    """

    kernel: Variable
    bias: Variable | None
    kernel_initializer: Any

    def __init__(
        self,
        equation: str,
        output_shape: Any,
        activation: Any = None,
        bias_axes: str | None = None,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(activity_regularizer=activity_regularizer, **kwargs)
        self.equation = equation.replace(" ", "")
        form = re.fullmatch(
            r"(\.*)([a-zA-Z]+)(\.*),([a-zA-Z]+)->(\.*)([a-zA-Z]+)(\.*)", self.equation
        )
        if form is None:
            raise ValueError(
                f"{self.name}: an equation looks like 'ab,bc->ac' or '...b,bc->...c', "
                f"got {equation!r}."
            )
        self._letters = (form[2], form[4], form[6])
        self._open = "left" if form[1] else "right" if form[3] else ""
        given = (output_shape,) if isinstance(output_shape, int) else tuple(output_shape)
        self.partial_output_shape = given
        self.activation = activations.get(activation)
        self.bias_axes = bias_axes
        set_rules(self, "kernel", kernel_initializer, kernel_regularizer, kernel_constraint)
        set_rules(self, "bias", bias_initializer, bias_regularizer, bias_constraint)
        self.bias = None

    def build(self, input_shape: Any = None) -> None:
        inputs, weights, outputs = self._letters
        shape = tuple(input_shape)
        elided = len(shape) - len(inputs)
        if elided < 0 or (elided and not self._open):
            raise ShapeError(
                layout(
                    f"{self.name}: the inputs do not fit the equation {self.equation}.",
                    [("inputs", str(shape))],
                )
            )
        known = shape[elided:] if self._open == "left" else shape[: len(inputs)]
        sizes: dict[str, Any] = dict(zip(inputs, known, strict=True))
        for letter, size in zip(reversed(outputs), reversed(self._tail(elided)), strict=False):
            if size is not None:
                if letter in sizes and sizes[letter] not in (None, size):
                    raise ShapeError(
                        f"{self.name}: axis {letter!r} is {sizes[letter]} in the inputs, but "
                        f"{size} in output_shape."
                    )
                sizes[letter] = size
        missing = [letter for letter in weights if sizes.get(letter) is None]
        if missing:
            raise ShapeError(
                layout(
                    f"{self.name}: the size of axis {missing[0]!r} of the kernel is not known.",
                    [("inputs", str(shape)), ("output", str(self.partial_output_shape))],
                )
            )
        self._scale_by_axes(weights, outputs)
        self.kernel = add_ruled(self, "kernel", [sizes[letter] for letter in weights])
        if self.bias_axes:
            unknown = set(self.bias_axes) - set(outputs)
            if unknown:
                raise ValueError(
                    f"{self.name}: bias_axes {self.bias_axes!r} are not all in the output "
                    f"{outputs!r}."
                )
            first = min(outputs.index(letter) for letter in self.bias_axes)
            bias = [sizes[x] if x in self.bias_axes else 1 for x in outputs[first:]]
            if self._open == "right":
                bias += [1] * elided
            self.bias = add_ruled(self, "bias", bias)

    def _scale_by_axes(self, weights: str, outputs: str) -> None:
        """Let an initializer that scales by fan in and out know which axes are which."""
        given = self.kernel_initializer
        if not isinstance(given, VarianceScaling) or given.input_axes is not None:
            return
        axes = range(len(weights))
        self.kernel_initializer = given.from_config(
            {
                **given.get_config(),
                "input_axes": [axis for axis in axes if weights[axis] not in outputs],
                "output_axes": [axis for axis in axes if weights[axis] in outputs],
            }
        )

    def _tail(self, elided: int) -> Sequence[Any]:
        """The sizes of `output_shape` that stand for letters."""
        given = self.partial_output_shape
        return given[: len(given) - elided] if self._open == "right" and elided else given

    def call(self, inputs: Any) -> Any:
        outputs = ops.einsum(self.equation, inputs, self.kernel)
        if self.bias is not None:
            outputs = outputs + self.bias
        return self.activation(outputs)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "output_shape": self.partial_output_shape,
            "equation": self.equation,
            "activation": activations.serialize(self.activation),
            "bias_axes": self.bias_axes,
            **rules_config(self, "kernel", "bias"),
        }
