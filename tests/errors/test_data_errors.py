"""What users are told about data that cannot be used."""

import numpy as np
import pytest

from lamina.data import ArraySource, source_of, train_validation_split
from lamina.data.batches import as_batch


def told(action, kind=Exception):
    with pytest.raises(kind) as raised:
        action()
    return str(raised.value)


def test_lists_of_numbers():
    text = told(lambda: source_of([1, 2, 3]), ValueError)
    assert text == (
        "Unrecognized data type for x[0]: int; a list of numbers is not an array.\n"
        "  hint     pass np.array(...): a list is read as several inputs, each of them an array"
    )


def test_different_numbers_of_samples():
    text = told(lambda: ArraySource(np.zeros((10, 2)), {"a": np.zeros(9)}), ValueError)
    assert text == (
        "Data cardinality is ambiguous: the arrays hold different numbers of samples.\n"
        "  x        10\n"
        "  y['a']   9\n"
        "  hint     make sure all arrays contain the same number of samples (the first axis)"
    )


def test_empty_arrays():
    text = told(lambda: ArraySource(np.zeros((0, 3)), np.zeros(0)), ValueError)
    assert text == "the data is empty: there are 0 samples.\n  x        (0, 3)\n  y        (0)"


def test_ragged_rows():
    rows = np.empty(2, object)
    rows[:] = [[1, 2], [3]]
    text = told(lambda: ArraySource(rows), TypeError)
    assert text == (
        "x: the rows have different lengths, so they are no array.\n"
        "  got      object (2)\n"
        "  hint     make them equally long with lamina.utils.pad_sequences(rows)"
    )


def test_objects_text_and_complex_numbers():
    assert "the array holds Python objects" in told(
        lambda: ArraySource(np.array([1, None], object))
    )
    assert "x: arrays of dtype str64 cannot be used." in told(
        lambda: ArraySource(np.array(["ab", "cd"]))
    )
    assert "TextVectorization" in told(lambda: ArraySource(np.array(["ab", "cd"])))
    assert "real and imaginary" in told(lambda: ArraySource(np.zeros((2, 2), complex)))
    assert "datetime64" in told(lambda: ArraySource(np.zeros(2, "datetime64[s]")))


def test_a_lone_number():
    assert told(lambda: ArraySource(np.float32(3))) == (
        "x: expected an array whose first axis is the samples, got a single number.\n"
        "  hint     a batch of one sample is array[None]"
    )


def test_unknown_kinds():
    assert told(lambda: source_of(object())).startswith("Unrecognized data type: object.")
    assert told(lambda: source_of(None)) == "x is missing: no data was given."


def test_batch_size():
    x = np.zeros((4, 1))
    assert told(lambda: ArraySource(x, batch_size=0)) == "batch_size must be at least 1, got 0."
    assert told(lambda: ArraySource(x, batch_size=2.5)) == (
        "batch_size is a whole number, got float."
    )


def test_y_beside_a_generator():
    assert told(lambda: source_of(iter([]), np.zeros(3))) == (
        "y cannot be given beside data that yields batches.\n"
        "  hint     let it yield tuples (x, y) or (x, y, sample_weight)"
    )


def test_weights_that_exclude_one_another():
    text = told(
        lambda: source_of(np.zeros((2, 1)), np.zeros(2), np.ones(2), class_weight={0: 1.0}),
        ValueError,
    )
    assert text.startswith("class_weight and sample_weight cannot both be given")


def test_class_weight_needs_one_output():
    text = told(
        lambda: source_of(np.zeros((2, 1)), [np.zeros(2), np.zeros(2)], class_weight={0: 1.0})
    )
    assert text == "`class_weight` is only supported for Models with a single output."


def test_validation_split_without_a_side():
    assert told(lambda: train_validation_split((np.zeros((2, 1)), None, None), 0.9)) == (
        "validation_split=0.9 of 2 samples leaves 0 for training and 2 for validation.\n"
        "  hint     use more data, another fraction, or validation_data"
    )
    assert told(lambda: train_validation_split((np.zeros((2, 1)), None, None), 1.5)) == (
        "validation_split must be between 0 and 1, got 1.5."
    )


def test_batches_of_four_parts():
    assert told(lambda: as_batch((1, 2, 3, 4))) == (
        "a batch is (x,), (x, y) or (x, y, sample_weight), got a tuple of 4.\n"
        "  hint     several inputs are one list: yield ([a, b], y)"
    )


def test_batches_with_different_rows():
    assert told(lambda: as_batch((np.zeros((2, 1)), np.zeros(3)))) == (
        "the arrays of a batch hold different numbers of samples.\n  x        2\n  y        3"
    )
