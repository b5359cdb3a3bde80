"""Ops against real Keras 3.15: shapes, dtypes and values."""

from __future__ import annotations

import operator

import numpy as np
import pytest
from keras_ops_cases import CASES

from lamina import ops

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.filterwarnings("ignore:__array__ implementation"),
    pytest.mark.filterwarnings("ignore:Explicitly requested dtype"),
    pytest.mark.filterwarnings("ignore:invalid value"),
]


def leaves(result):
    if isinstance(result, (list, tuple)):
        return [leaf for part in result for leaf in leaves(part)]
    return [np.asarray(result)]


def described(case):
    name, args, kwargs = case
    shapes = "-".join(str(getattr(a, "shape", a if np.isscalar(a) else "")) for a in args)
    return f"{name}-{shapes}-{'-'.join(f'{k}={v}' for k, v in kwargs.items() if np.isscalar(v))}"


@pytest.mark.parametrize("case", CASES, ids=described)
def test_op_equals_keras(keras, case):
    name, args, kwargs = case
    expected = leaves(operator.attrgetter(name)(keras.ops)(*args, **kwargs))
    found = leaves(operator.attrgetter(name)(ops)(*args, **kwargs))
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        if other.dtype != np.int64:
            assert one.dtype == other.dtype
        np.testing.assert_allclose(
            one.astype(np.float64), other.astype(np.float64), rtol=1e-3, atol=2e-4
        )


def test_every_op_of_keras_is_there(keras):
    names = [name for name in dir(keras.ops) if not name.startswith("_")]
    missing = {
        name for name in names if callable(getattr(keras.ops, name)) and name not in dir(ops)
    }
    # Complex tensors are pairs here; decoding is a matter of the losses.
    assert missing <= {"view_as_complex", "view_as_real", "ctc_decode", "ctc_loss"}
