"""Embeddings: a learned vector for each number of a vocabulary."""

from __future__ import annotations

from typing import Any

import numpy as np

from lamina import ops
from lamina.layers.layer import Layer
from lamina.layers.rules import add_ruled, rules_config, set_rules
from lamina.ops.indexing import lookup
from lamina.tensor import Variable, convert
from lamina.types import FLOATS


class Embedding(Layer):
    """The rows of a table (input_dim, output_dim) that the inputs number: (..., output_dim).

    input_dim    size of the vocabulary; inputs are integers in [0, input_dim)
    output_dim   length of the vectors
    mask_zero    0 marks steps that are not there: a mask is handed on to the layers behind
    weights      [table], the first value of the table
    raises       IndexRangeError for a number outside the vocabulary

    >>> layer = Embedding(10, 4)
    >>> layer(np.array([[1, 2, 3]])).shape
    (1, 3, 4)
    """

    embeddings: Variable

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        embeddings_initializer: Any = "uniform",
        embeddings_regularizer: Any = None,
        embeddings_constraint: Any = None,
        mask_zero: bool = False,
        weights: Any = None,
        **kwargs: Any,
    ) -> None:
        length = kwargs.pop("input_length", None)
        if length is not None:
            kwargs["input_shape"] = (length,)
        super().__init__(**kwargs)
        for what, size in (("input_dim", input_dim), ("output_dim", output_dim)):
            if not isinstance(size, (int, np.integer)) or size < 1:
                raise ValueError(f"{self.name}: {what} is a positive integer, got {size!r}.")
        self.input_dim = int(input_dim)
        self.output_dim = int(output_dim)
        self.mask_zero = mask_zero
        self.supports_masking = mask_zero
        set_rules(
            self,
            "embeddings",
            embeddings_initializer,
            embeddings_regularizer,
            embeddings_constraint,
        )
        # Numbers must not be rounded to a half-precision type on their way in.
        self.autocast = False
        if weights is not None:
            self.build()
            self.set_weights(weights if isinstance(weights, list) else [weights])

    def build(self, input_shape: Any = None) -> None:
        if self.built:
            return
        self.embeddings = add_ruled(self, "embeddings", (self.input_dim, self.output_dim))
        self.built = True

    def call(self, inputs: Any) -> Any:
        numbers = convert(inputs)
        if numbers.dtype in FLOATS or numbers.dtype == "bool":
            numbers = ops.cast(numbers, "int32")
        return ops.cast(lookup(self.embeddings, numbers), self.compute_dtype)

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> Any:
        return ops.not_equal(inputs, 0) if self.mask_zero else None

    def get_config(self) -> dict[str, Any]:
        known = super().get_config()
        known.update(input_dim=self.input_dim, output_dim=self.output_dim)
        known.update(rules_config(self, "embeddings"))
        return {**known, "mask_zero": self.mask_zero}
