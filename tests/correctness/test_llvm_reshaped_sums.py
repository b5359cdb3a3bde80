"""Sums over the batch, kept in parts, that are read in another shape."""

from __future__ import annotations

import numpy as np
import pytest

from lamina import ops
from lamina.llvm.executor import compile_llvm
from lamina.reference import compile_reference
from lamina.trace import trace
from lamina.types import Batch, Type

READERS = {
    "whole": lambda s: ops.reshape(s, (24,)),
    "in an expression": lambda s: ops.reshape(s, (6, 4)) * 2.0,
    "turned first": lambda s: ops.reshape(ops.transpose(s, (1, 0)), (24,)) * 2.0,
    "also as it is": lambda s: [ops.reshape(s, (24,)) * 2.0, s + 1.0],
    "twice": lambda s: ops.exp(ops.reshape(ops.reshape(s, (8, 3)), (2, 12)) * 0.01),
    "in a product": lambda s: ops.matmul(ops.reshape(s, (6, 4)), s),
}


@pytest.mark.parametrize("name", READERS)
def test_partial_sums_in_another_shape(rng, name):
    traced = trace(lambda x: READERS[name](ops.sum(x, axis=(0, 1))), Type((Batch(1), 3, 4, 6)))
    for rows in (64, 40, 1):
        x = rng.normal(size=(rows, 3, 4, 6)).astype("float32")
        expected = compile_reference(traced.program, 64)([x], [])
        found = compile_llvm(traced.program, 64)([x], [])
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
