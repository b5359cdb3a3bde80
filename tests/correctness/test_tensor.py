"""Tensors and variables outside a trace: NumPy's arithmetic and indexing, laziness, state."""

from __future__ import annotations

import copy
import gc
import operator
import pickle
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamina import config
from lamina.errors import BatchError, DtypeError, ShapeError
from lamina.tensor import Tensor, Variable, convert, recording, values
from lamina.types import promote

ARRAY = np.arange(60, dtype=np.float32).reshape(3, 4, 5) / 7 - 3


@pytest.mark.parametrize(
    "operation",
    [
        *(operator.add, operator.sub, operator.mul, operator.truediv, operator.floordiv),
        *(operator.mod, operator.lt, operator.le, operator.gt, operator.ge),
        *(operator.eq, operator.ne),
    ],
)
@pytest.mark.parametrize(
    ("left", "right"),
    [((3, 4), (3, 4)), ((3, 4), (4,)), ((3, 1), (1, 4)), ((), (2, 3)), ((2, 1, 4), (3, 1))],
)
def test_operators_broadcast_as_numpy(operation, left, right, rng):
    a = rng.integers(-6, 6, left).astype(np.float32)
    b = rng.integers(1, 6, right).astype(np.float32)
    expected = operation(a, b)
    for found in (operation(convert(a), convert(b)), operation(convert(a), b)):
        assert found.dtype == str(expected.dtype)
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6)
    np.testing.assert_allclose(operation(a, convert(b)).numpy(), expected, rtol=1e-6)


def test_bits_and_shifts():
    a, b = np.array([6, -7, 8], np.int32), np.array([3, 5, 2], np.int32)
    x, y = convert(a), convert(b)
    for operation in (operator.and_, operator.or_, operator.xor):
        assert (operation(x, y).numpy() == operation(a, b)).all()
    assert ((x >> 1).numpy() == a >> 1).all()
    assert ((x << 2).numpy() == a << 2).all()
    assert ((~(x > 0)).numpy() == ~(a > 0)).all()


@pytest.mark.parametrize("number", [2, 2.5, True])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int32", "int8", "bool"])
def test_numbers_take_the_dtype_of_the_tensor(number, dtype):
    result = (convert(np.ones(3, dtype)) + number).dtype
    if isinstance(number, float) and not dtype.startswith("float"):
        assert result == "float32"
    elif dtype == "bool":
        assert result == ("bool" if number is True else "int32")
    else:
        assert result == dtype


@pytest.mark.parametrize("one", ["float32", "float16", "int32", "int64", "uint8", "bool"])
@pytest.mark.parametrize("other", ["float32", "float64", "bfloat16", "int16", "bool"])
def test_dtypes_are_promoted(one, other):
    a, b = convert(np.ones(2, np.float32), one), convert(np.ones(2, np.float32), other)
    assert (a * b).dtype == promote(one, other)


def test_numpys_scalars_adapt_like_numbers():
    x = convert(np.ones(2, np.float32))
    assert (x * np.sqrt(2.0)).dtype == "float32"
    assert (np.float64(2.0) * x).dtype == "float32"
    assert (convert([1, 2]) * np.prod([2, 3])).dtype == "int32"
    assert (x * np.array(2.0)).dtype == "float64"


def test_division_of_integers_gives_floats():
    quotient = convert([1, 2]) / 2
    assert quotient.dtype == "float32"
    assert quotient.tolist() == [0.5, 1.0]


@pytest.mark.parametrize(
    ("base", "exponent"),
    [(3, 4), (-2, 5), (np.array([2, 3, -1], np.int32), np.array([10, 0, 7], np.int32))],
)
def test_integer_powers_are_exact(base, exponent):
    result = convert(base) ** convert(exponent)
    assert result.dtype == "int32"
    assert (result.numpy() == np.power(base, exponent)).all()


@pytest.mark.parametrize("exponent", [0.5, -1, 1, 2, 3, 4, 2.5, 0])
def test_powers_of_floats(exponent):
    x = np.array([0.5, 1.5, 3.0], np.float32)
    np.testing.assert_allclose((convert(x) ** exponent).numpy(), x**exponent, rtol=1e-6)


INDICES = [
    0,
    -1,
    slice(None),
    slice(1, None),
    slice(None, None, -1),
    slice(2, 0, -1),
    slice(1, 1),
    slice(-2, None),
    None,
    ...,
    (0, 1),
    (slice(None), 2),
    (..., 0),
    (..., slice(0, 4, 3)),
    (None, ..., None),
    (1, ..., slice(4, 1, -2)),
    (slice(None), None, 1),
    [2, 0],
    np.array([[0, -1], [1, 1]]),
    (slice(None), [3, 0, 0]),
    (slice(None), slice(None), np.array([[1], [4]])),
    ([0, 1, 2], [1, 0, 3]),
    (slice(None), [0, 3], [[1], [2]]),
    ([0, 2], slice(None), [1, 4]),
    (1, [2, 0]),
    np.array([True, False, True]),
    (slice(None), np.array([True, False, True, True])),
]


@pytest.mark.parametrize("key", INDICES, ids=str)
def test_indexing_is_numpys(key):
    expected = ARRAY[key]
    given = convert(ARRAY)[key]
    assert given.shape == expected.shape
    assert (given.numpy() == expected).all()


slices = st.builds(
    slice,
    st.none() | st.integers(-7, 7),
    st.none() | st.integers(-7, 7),
    st.none() | st.sampled_from([-3, -2, -1, 1, 2, 3]),
)


@settings(max_examples=150, deadline=None)
@given(st.tuples(slices, slices | st.integers(-4, 3), slices | st.just(None)))
def test_random_slices_are_numpys(key):
    expected = ARRAY[key]
    given = convert(ARRAY)[key]
    assert given.shape == expected.shape
    assert (given.numpy() == expected).all()


def test_indexing_with_a_tensor_and_clamping():
    x = convert(ARRAY)
    assert (x[convert([2, 1])].numpy() == ARRAY[[2, 1]]).all()
    assert (x[convert([7])].numpy() == ARRAY[[2]]).all()


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ((0, 0, 0, 0), "4 indices are too many"),
        (9, "index 9 is out of range for axis 0"),
        ((..., ...), "only one ellipsis"),
        (1.5, "must hold integers or truth values"),
        (True, "bare True or False"),
    ],
)
def test_wrong_indices_are_named(key, text):
    with pytest.raises((ShapeError, DtypeError), match=text):
        convert(ARRAY)[key]


def test_shapes_that_do_not_broadcast():
    with pytest.raises(ShapeError, match=r"shapes \(3,\) and \(4,\) do not broadcast"):
        convert(np.ones(3)) + np.ones(4)


@pytest.mark.parametrize("value", [None, "text", object(), [None], [1 + 2j]])
def test_what_holds_no_numbers_is_refused(value):
    with pytest.raises(DtypeError, match="numbers or truth values"):
        convert(value)


def test_conversion_keeps_dtypes_of_arrays_only():
    assert convert(np.ones(2)).dtype == "float64"
    assert convert([1.0]).dtype == "float32"
    assert convert([1]).dtype == "int32"
    assert convert([True]).dtype == "bool"
    assert convert([2**40]).dtype == "int64"
    assert convert(1.0, "bfloat16").dtype == "bfloat16"
    assert convert([convert(1.0), 2.0]).numpy().tolist() == [1.0, 2.0]
    with config.override(floatx="float64"):
        assert convert([1.0]).dtype == "float64"


def test_a_tensor_does_not_follow_its_array():
    array = np.ones(3)
    x = convert(array)
    array[:] = 5
    assert x.tolist() == [1, 1, 1]
    x.numpy()[:] = 7
    assert x.tolist() == [1, 1, 1]


def test_python_protocols():
    x = convert([[1.5, 2.0], [3.0, 4.0]])
    assert len(x) == 2
    assert [row.tolist() for row in x] == [[1.5, 2.0], [3.0, 4.0]]
    assert float(x[0, 0]) == 1.5
    assert int(x[1, 1]) == 4
    assert bool(x[0, 0] > 1)
    assert ["a", "b", "c"][convert(1)] == "b"
    assert f"{x[0, 1]:.2f}" == "2.00"
    assert np.asarray(x, np.float64).dtype == np.float64
    assert x.T.tolist() == [[1.5, 3.0], [2.0, 4.0]]
    assert x.size == 4
    assert x.ndim == 2
    with pytest.raises(TypeError, match="only a tensor with one element"):
        float(x)
    with pytest.raises(TypeError, match="no length"):
        len(convert(1.0))
    with pytest.raises(TypeError):
        hash(x)


def test_printing_shows_dtype_shape_and_values():
    text = repr(convert([[1.0, 2.0]]))
    assert "float32 (1, 2)" in text
    assert "[[1. 2.]]" in text


def test_copies_and_pickles():
    x = convert([1.0, 2.0]) * 3
    for twin in (copy.deepcopy(x), copy.copy(x), pickle.loads(pickle.dumps(x))):
        assert twin.tolist() == [3.0, 6.0]


def test_nothing_is_computed_before_it_is_asked_for():
    x = convert([1.0, 2.0])
    y = x * 2
    assert values.known_value(y.node) is None
    y.numpy()
    assert values.known_value(y.node) is not None


def test_long_chains_are_realised():
    x = convert(np.zeros(2, np.float32))
    for _ in range(2000):
        x = x + 1.0
        assert values.chain_length(x.node) <= values.LONGEST_CHAIN
    assert x.tolist() == [2000.0, 2000.0]


def test_recording_keeps_history():
    with recording():
        x = convert([2.0])
        y = x
        for _ in range(700):
            y = y + 1.0
        assert y.tolist() == [702.0]
        assert y.node.inputs


def test_values_are_freed_with_their_tensors():
    x = convert(np.ones(1000, np.float32)) * 2.0
    x.numpy()
    alive = weakref.ref(x.node)
    before = len(values._values)
    del x
    gc.collect()
    assert alive() is None
    assert len(values._values) < before


# ------------------------------------------------------------------------------- variables


def test_reading_takes_the_value_at_that_moment():
    v = Variable([1.0, 2.0], name="v")
    before = v.value
    later = v * 10.0
    v.assign([5.0, 6.0])
    assert before.tolist() == [1.0, 2.0]
    assert later.tolist() == [10.0, 20.0]
    assert (v + 1.0).tolist() == [6.0, 7.0]


def test_a_variable_owns_one_buffer_for_life():
    v = Variable(np.zeros(3, np.float32))
    buffer = v.buffer
    v.assign(np.ones(3))
    v.assign_add([1.0, 1.0, 1.0])
    v.assign_sub(0.5 * np.ones(3))
    assert v.buffer is buffer
    assert buffer.tolist() == [1.5, 1.5, 1.5]
    assert v.numpy() is not buffer


def test_reads_share_a_node_until_the_buffer_changes():
    v = Variable(np.ones(3, np.float32))
    first = v.value
    assert v.value.node is first.node
    v.buffer[0] = 9
    assert v.value.node is not first.node
    assert first.tolist() == [1, 1, 1]


def test_assignment_checks_the_shape():
    v = Variable(np.zeros((2, 3), np.float32), name="kernel")
    with pytest.raises(ShapeError, match="kernel: a value of another shape"):
        v.assign(np.zeros((3, 2)))
    v.assign(np.ones((2, 3), np.int32))
    assert v.dtype == "float32"


def test_initializers_and_dtypes_of_variables():
    assert Variable(3).dtype == "int32"
    assert Variable(3.0).dtype == "float32"
    assert Variable([1, 2]).dtype == "float32"
    assert Variable(np.array([1, 2])).dtype == "int64"
    made = Variable(lambda shape, dtype: np.full(shape, 2, dtype), shape=(2, 2), dtype="float16")
    assert made.dtype == "float16"
    assert made.numpy().tolist() == [[2, 2], [2, 2]]
    with pytest.raises(ShapeError, match="needs the shape"):
        Variable(np.zeros)
    with pytest.raises(ShapeError, match=r"has shape \(2,\), expected \(3,\)"):
        Variable([1.0, 2.0], shape=(3,))


def test_variables_compare_by_identity_and_copy_deeply():
    v, w = Variable([1.0]), Variable([1.0])
    assert v == copy.copy([v])[0]
    assert v != w
    assert len({v, w}) == 2
    twin = copy.deepcopy(v)
    twin.assign([4.0])
    assert v.numpy().tolist() == [1.0]
    assert pickle.loads(pickle.dumps(v)).numpy().tolist() == [1.0]
    memo = copy.deepcopy([v, v])
    assert memo[0] is memo[1]


def test_a_size_of_the_batch_is_no_number():
    from lamina.ir.graph import input_node
    from lamina.types import Batch, Type

    x = Tensor(input_node(Type((Batch(1), 2))))
    with pytest.raises(BatchError, match="known only when the step runs"):
        _ = x.size
    with pytest.raises(BatchError, match="number of rows"):
        len(x)
