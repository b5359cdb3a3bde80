"""Vocabularies: by hand, and against real Keras (which needs TensorFlow for strings)."""

from __future__ import annotations

import numpy as np
import pytest

from lamina import layers
from lamina.trace import executor_for, trace
from lamina.types import Batch, Type

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation"),
    pytest.mark.filterwarnings("ignore:Explicitly requested dtype"),  # Keras's own, on JAX
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

WORDS = np.array(["b", "a", "b", "c", "b", "a", "d"])
TEXTS = ["The cat sat.", "the CAT, the dog!", "a dog & a cat", "xyz"]


def test_the_most_frequent_words_come_first():
    layer = layers.StringLookup(max_tokens=3)
    layer.adapt(WORDS)
    assert layer.get_vocabulary() == ["[UNK]", "b", "a"]
    assert layer(np.array([["a", "c"], ["b", "zz"]])).numpy().tolist() == [[2, 0], [1, 0]]
    assert layer.vocabulary_size() == 3
    back = layers.StringLookup(vocabulary=["b", "a"], invert=True)
    assert back(np.array([2, 1, 0])).tolist() == ["a", "b", "[UNK]"]


def test_masked_words_and_several_unknown_ones():
    layer = layers.StringLookup(vocabulary=["a"], mask_token="", num_oov_indices=2)
    found = layer(np.array(["", "a", "x", "y", "x"])).numpy().tolist()
    assert found[:2] == [0, 3]
    assert found[2] == found[4]
    assert {found[2], found[3]} <= {1, 2}


def test_integers_run_inside_a_step():
    layer = layers.IntegerLookup(vocabulary=[30, 10, 20], mask_token=0)
    x = np.array([[10, 20], [30, 99], [0, 10]], "int32")
    expected = [[3, 4], [2, 1], [0, 3]]
    assert layer(x).numpy().tolist() == expected
    traced = trace(layer, Type((Batch(1), 2), "int32"))
    (found,) = executor_for(traced.program, 3)([x], traced.states())
    assert found.tolist() == expected


def test_texts():
    layer = layers.TextVectorization(output_sequence_length=4)
    layer.adapt(TEXTS)
    assert layer.get_vocabulary()[:3] == ["", "[UNK]", "the"]
    found = layer(["the dog barks", ""]).numpy()
    assert found.shape == (2, 4)
    assert found[1].tolist() == [0, 0, 0, 0]
    assert found[0, 2] == 1
    again = layers.TextVectorization.from_config(layer.get_config())
    np.testing.assert_array_equal(again(TEXTS).numpy(), layer(TEXTS).numpy())
    assert layer("the cat").numpy().shape == (4,)
    own = layers.TextVectorization(standardize=str.upper, split="character", vocabulary=["A", "B"])
    assert own(["abz"]).numpy().tolist() == [[2, 3, 1]]


CASES = [
    ("TextVectorization", {}),
    ("TextVectorization", {"max_tokens": 5, "output_sequence_length": 3}),
    ("TextVectorization", {"ngrams": 2, "split": "whitespace"}),
    ("TextVectorization", {"standardize": "lower", "output_mode": "count"}),
    (
        "TextVectorization",
        {"output_mode": "multi_hot", "max_tokens": 20, "pad_to_max_tokens": True},
    ),
    ("TextVectorization", {"output_mode": "tf_idf"}),
    ("TextVectorization", {"split": "character", "standardize": None}),
    ("StringLookup", {}),
    ("StringLookup", {"mask_token": "a"}),
    ("StringLookup", {"output_mode": "one_hot"}),
    ("StringLookup", {"output_mode": "multi_hot", "num_oov_indices": 0}),
]


@pytest.mark.oracle
@pytest.mark.parametrize(("name", "options"), CASES)
def test_strings_equal_keras(keras, name, options):
    pytest.importorskip("tensorflow")
    data = TEXTS if name == "TextVectorization" else WORDS
    ours, theirs = getattr(layers, name)(**options), getattr(keras.layers, name)(**options)
    ours.adapt(data)
    theirs.adapt(data)
    assert ours.get_vocabulary() == theirs.get_vocabulary()
    asked = data if options.get("num_oov_indices") == 0 else [*data, "a new one"]
    found, wanted = ours(np.array(asked)).numpy(), np.asarray(theirs(np.array(asked)))
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    again = type(ours).from_config(ours.get_config())
    np.testing.assert_array_equal(again(np.array(asked)).numpy(), found)


@pytest.mark.oracle
@pytest.mark.parametrize(
    "options", [{}, {"mask_token": 0}, {"output_mode": "count"}, {"oov_token": -7}]
)
def test_integers_equal_keras(keras, options):
    pytest.importorskip("tensorflow")
    data = np.array([[5, 7, 5], [9, 5, 7]])
    ours, theirs = layers.IntegerLookup(**options), keras.layers.IntegerLookup(**options)
    ours.adapt(data)
    theirs.adapt(data)
    assert ours.get_vocabulary() == [int(token) for token in theirs.get_vocabulary()]
    asked = np.array([[7, 9, 5], [100, 0, 5]])
    np.testing.assert_allclose(ours(asked).numpy(), np.asarray(theirs(asked)))


def test_errors():
    with pytest.raises(ValueError, match="there is no vocabulary yet; call adapt"):
        layers.StringLookup()(np.array(["a"]))
    with pytest.raises(ValueError, match="holds 1 tokens more than once"):
        layers.StringLookup(vocabulary=["a", "a"])
    strict = layers.StringLookup(vocabulary=["a"], num_oov_indices=0, name="words")
    with pytest.raises(
        ValueError, match=r"words: a token is not in the vocabulary.\n  token    'b'"
    ):
        strict(np.array(["b"]))
    with pytest.raises(ValueError, match=r"output_mode is one of .* Did you mean 'one_hot'"):
        layers.StringLookup(output_mode="onehot")
