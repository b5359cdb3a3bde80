"""Every op of the table compiled by the default executor: the same values as without a trace."""

from __future__ import annotations

import numpy as np
import pytest
from ops_cases import CASES

import lamina
from lamina import ops, tree
from lamina.errors import TraceError
from lamina.tensor import convert
from lamina.trace import executor_for, trace
from lamina.types import Batch, Type

# The number of elements of these depends on values, so that they work outside a trace only.
VALUES_NEEDED = {"nonzero", "unique", "nanmedian", "repeat", "bincount", "lexsort"}
# Computed by NumPy: the reference executor only.
HOST = {"cholesky", "inv", "det", "solve", "norm"}


def cases():
    for case in CASES:
        name, _, args, kwargs = case.values
        leaves = tree.flatten(list(args))
        arrays = [i for i, leaf in enumerate(leaves) if isinstance(leaf, np.ndarray) and leaf.size]
        if not arrays or name in VALUES_NEEDED:
            continue
        if name in HOST and kwargs.get("ord") in (None, 2, -2, "nuc") and "axis" not in kwargs:
            continue
        yield pytest.param(name, list(args), kwargs, arrays, id=case.id)


def compiled(name, args, kwargs, arrays, types, given, capacity):
    leaves = tree.flatten(args)

    def body(*tensors):
        filled = list(leaves)
        for position, tensor in zip(arrays, tensors, strict=True):
            filled[position] = tensor
        return getattr(ops, name)(*tree.pack(args, filled), **kwargs)

    traced = trace(body, *types)
    executable = executor_for(traced.program, capacity)
    return tree.flatten(traced.unflatten(executable(given, traced.states())))


@pytest.mark.parametrize(("name", "args", "kwargs", "arrays"), list(cases()))
def test_compiled_ops_equal_eager_ones(name, args, kwargs, arrays):
    leaves = tree.flatten(args)
    given = [np.ascontiguousarray(leaves[i]) for i in arrays]
    types = [Type(array.shape, str(array.dtype)) for array in given]
    found = compiled(name, args, kwargs, arrays, types, given, 1)
    expected = tree.flatten(getattr(ops, name)(*args, **kwargs))
    for one, other in zip(found, expected, strict=True):
        other = np.asarray(other)
        assert np.shape(one) == other.shape
        np.testing.assert_allclose(np.asarray(one), other, rtol=2e-4, atol=2e-5)


ROW_WISE = ["exp", "tanh", "softmax", "log_softmax", "sum", "mean", "max", "argmax", "cumsum"]
ROW_WISE += ["sort", "erfinv", "gelu", "normalize", "logsumexp", "var", "flip", "softplus"]


@pytest.mark.parametrize("name", ROW_WISE)
@pytest.mark.parametrize("rows", [1, 3, 5])
def test_rows_are_computed_for_any_number_of_rows(name, rows):
    kwargs = (
        {"axis": -1} if name in [*ROW_WISE[2:10], "normalize", "logsumexp", "var", "flip"] else {}
    )
    x = np.tanh(np.random.default_rng(rows).standard_normal((rows, 9))).astype(np.float32)
    (found,) = compiled(name, [x], kwargs, [0], [Type((Batch(1), 9))], [x], 5)
    expected = getattr(ops, name)(x, **kwargs).numpy()
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("name", sorted(VALUES_NEEDED - {"bincount", "lexsort", "repeat"}))
def test_ops_that_need_values_say_so_in_a_trace(name):
    with pytest.raises(TraceError, match="known only when the step runs"):
        trace(getattr(ops, name), Type((4,)))


def unending(x):
    return ops.while_loop(lambda y: True, lambda y: y, x)


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (
            lambda x: ops.cond(ops.sum(x) < 0.0, lambda: unending(x), lambda: x),
            "a while_loop inside",
        ),
        (lambda x: ops.inv(x + 3.0 * ops.eye(3)), "inv"),
        (lambda x: ops.map(lambda y: ops.det(y + 3.0 * ops.eye(3)), x[None]), "det"),
    ],
)
def test_what_cannot_be_compiled_is_interpreted_with_a_warning(function, name):
    x = np.random.default_rng(0).random((3, 3)).astype(np.float32)
    step = lamina.function(function)
    with pytest.warns(UserWarning, match=f"runs uncompiled.*because of {name}"):
        found = step(x)
    np.testing.assert_allclose(found.numpy(), function(convert(x)).numpy(), rtol=1e-5)
