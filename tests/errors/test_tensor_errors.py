"""The texts of errors that users meet in tensors, traces and layers, line by line."""

from __future__ import annotations

import numpy as np
import pytest

import lamina
from lamina import layers, naming, ops, random
from lamina.errors import BatchError, DtypeError, LaminaError, ShapeError, TraceError
from lamina.layers import Dense, Input
from lamina.tensor import Variable, convert
from lamina.trace import grad, trace
from lamina.types import Batch, Type

ROWS = Type((Batch(1), 3))
SECRET = 123.456  # a value that no message may show


@pytest.fixture(autouse=True)
def _fresh_names():
    naming.reset_unique_names()


def text_of(error, call):
    with pytest.raises(error) as caught:
        call()
    assert isinstance(caught.value, LaminaError)
    text = "\n".join([str(caught.value), *getattr(caught.value, "__notes__", [])])
    assert str(SECRET) not in text, "a message shows the contents of an array"
    return text


def test_broadcasting():
    x = convert(np.full((2, 3), SECRET, np.float32))
    text = text_of(ShapeError, lambda: x + np.full(4, SECRET, np.float32))
    first, at, hint = text.splitlines()
    assert first == "shapes (2, 3) and (4,) do not broadcast: 3 against 4 on axis -1."
    assert at.startswith("  at       test_tensor_errors.py:")
    assert at.endswith("x + np.full(4, SECRET, np.float32))")
    assert hint == "  hint     two sizes fit if they are equal, or if one of them is 1"


def test_matmul():
    x = np.full((2, 3), SECRET, np.float32)
    text = text_of(ShapeError, lambda: ops.matmul(x, x))
    assert text.splitlines()[:3] == [
        "matmul: 3 columns do not match 2 rows.",
        "  first    float32 (2, 3)",
        "  second   float32 (2, 3)",
    ]


def test_a_branch_on_a_traced_value():
    def step(images):
        if ops.sum(images) > 0:
            return images
        return -images

    text = text_of(TraceError, lambda: trace(step, ROWS, labels=["images"]))
    lines = text.splitlines()
    assert lines[0] == (
        "this code is being compiled: the value it asks for is known only when the step runs."
    )
    assert lines[1] == "  needs    images, float32 (batch, 3)"
    assert lines[2].startswith("  at       test_tensor_errors.py:")
    assert lines[2].endswith("   if ops.sum(images) > 0:")
    assert lines[3] == (
        "  hint     use lamina.ops.where or lamina.ops.cond instead of `if`, "
        "lamina.ops.while_loop or scan instead of a loop over values, or "
        "compile(run_eagerly=True) to run with real values"
    )


def test_a_weight_that_is_asked_for_in_a_trace_is_named():
    weight = Variable(SECRET, name="temperature")
    text = text_of(TraceError, lambda: trace(lambda x: x * float(weight), ROWS))
    assert "  needs    temperature, float32 ()" in text


def test_a_tensor_of_another_trace():
    kept = []
    trace(lambda x: kept.append(x) or x, ROWS, labels=["images"])
    text = text_of(TraceError, lambda: trace(lambda x: x + kept[0], ROWS))
    assert text.splitlines() == [
        "a tensor of another trace was used in this one.",
        "  tensor   images, float32 (batch, 3)",
        (
            "  hint     a tensor lives as long as the step that made it; keep values in a Variable, "
            "or return them"
        ),
    ]


@pytest.mark.parametrize(
    ("use", "text"),
    [
        (lambda x: x[0], "row 0 of the batch axis of float32 (batch, 3)"),
        (lambda x: x[:2], "a part of the batch axis of float32 (batch, 3)"),
        (lambda x: range(x.shape[0]), "the number of rows is known only when the step runs"),
        (lambda x: x.shape[0] + 1, "the number of rows is known only when the step runs"),
        (lambda x: x.shape[0] > 1, "the number of rows is known only when the step runs"),
        (lambda x: ops.split(x, 2), "axis 0 of float32 (batch, 3) is the batch"),
        (lambda x: ops.squeeze(x, 0), "squeeze: axis 0 of float32 (batch, 3) has size batch"),
        (lambda x: ops.reshape(x, (-1, 7)), "float32 (batch, 3) cannot be reshaped to (-1, 7)"),
    ],
)
def test_what_needs_the_number_of_rows(use, text):
    assert text in text_of(BatchError, lambda: trace(use, ROWS))


def test_gradients_of_what_is_no_scalar():
    text = text_of(ShapeError, lambda: grad(lambda x: x * 2)(np.full(3, SECRET)))
    assert text.splitlines() == [
        "a gradient is taken of a scalar, got float64 (3).",
        "  hint     reduce it first: lamina.ops.mean(loss) or lamina.ops.sum(loss)",
    ]


def test_assigning_another_shape():
    layer = Dense(2, name="head")
    layer.build((None, 3))
    text = text_of(ShapeError, lambda: layer.kernel.assign(np.full((2, 3), SECRET)))
    assert text.splitlines() == [
        "head/kernel: a value of another shape cannot be assigned.",
        "  variable float32 (3, 2)",
        "  given    float32 (2, 3)",
    ]


def test_losses_say_what_they_expected():
    text = text_of(
        ShapeError, lambda: ops.sparse_categorical_crossentropy(np.ones((4, 3)), np.ones((4, 3)))
    )
    assert text.splitlines() == [
        (
            "sparse_categorical_crossentropy: there must be one class number for each row of the "
            "output."
        ),
        "  target   int32 (4, 3), expected (4,)",
        "  output   float64 (4, 3)",
        "  hint     for one-hot targets use categorical_crossentropy",
    ]


def test_missing_axes_are_suggested():
    layer = layers.Permute((2, 1), name="turn")
    text = text_of(ShapeError, lambda: layer(np.full((28, 28), SECRET, np.float32)))
    lines = text.splitlines()
    assert lines[0] == "turn: expected 3 axes, got 2."
    assert lines[1] == "  inputs   float32 (28, 28)"
    assert lines[-1] == (
        "  hint     one axis is missing: a batch axis in front (x[None]) or channels behind "
        "(x[..., None])"
    )


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: layers.Add()(Input((3,))), ShapeError, "add: a list of inputs is expected"),
        (
            lambda: layers.Add()([Input((3,)), Input((4,))]),
            ShapeError,
            (
                "add: the inputs do not broadcast to one shape.\n"
                "  input 1  float32 (batch, 3)\n"
                "  input 2  float32 (batch, 4)"
            ),
        ),
        (
            lambda: layers.Concatenate()([Input((3, 2)), Input((4, 2))]),
            ShapeError,
            (
                "concatenate: the inputs must agree on all axes but axis -1.\n"
                "  input 1  (None, 3, 2)\n"
                "  input 2  (None, 4, 2)"
            ),
        ),
        (
            lambda: layers.Dot(1)([Input((3,)), Input((4,))]),
            ShapeError,
            "dot: axes 1 and 1 cannot be summed together.",
        ),
        (lambda: layers.Subtract()([Input((3,))] * 3), ShapeError, "two inputs are expected"),
        (lambda: layers.Cropping1D(3)(Input((5, 2))), ShapeError, "3 + 3 leaves nothing of size 5"),
    ],
)
def test_layers_that_join_and_move(make, error, text):
    assert text in text_of(error, make)


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: Dense(0), ValueError, "dense: units is a positive integer, got 0"),
        (lambda: Dense("4"), ValueError, "dense: units is a positive integer, got '4'"),
        (lambda: layers.Dropout(1.5), ValueError, "rate is a number from 0 to 1, got 1.5"),
        (lambda: layers.GaussianNoise(-1), ValueError, "stddev is a number of at least 0, got -1"),
        (lambda: layers.ReLU(negative_slope=-1), ValueError, "negative_slope is a number of at"),
        (lambda: layers.Permute((0, 1)), ShapeError, "dims orders the axes from 1, got (0, 1)"),
        (lambda: layers.Reshape((-1, -1)), ShapeError, "one size may be -1"),
        (lambda: layers.UpSampling2D(0), ShapeError, "size is 2 positive integers, got 0"),
        (lambda: layers.ZeroPadding2D((1, 2, 3)), ShapeError, "2 integers or pairs"),
        (lambda: layers.ZeroPadding1D(-1), ShapeError, "cannot be negative"),
        (lambda: layers.Lambda("text"), TypeError, "a function is expected, got str"),
        (lambda: layers.RepeatVector(1.5), TypeError, "n is an integer, got float"),
        (lambda: layers.Flatten(data_format="last"), ValueError, "flatten: data_format is"),
        (lambda: layers.ZeroPadding2D(data_format="last"), ValueError, "data_format is"),
        (lambda: random.dropout(np.ones(3), 2), ValueError, "rate of dropout lies in [0, 1]"),
        (lambda: random.SeedGenerator("x"), ValueError, "a seed is an integer or None, got str"),
        (lambda: random.uniform((2,), dtype="int32"), DtypeError, "are floats, not int32"),
        (lambda: random.randint((2,), 0, 3, "float32"), DtypeError, "draws integers, not float32"),
    ],
)
def test_arguments_of_constructors(make, error, text):
    with pytest.raises(error) as caught:
        make()
    assert text in str(caught.value)


def test_an_unknown_size_cannot_be_a_weight():
    text = text_of(ShapeError, lambda: Dense(3)(Input((None,))))
    assert text.splitlines() == [
        "dense: a weight needs known sizes, got (None, 3).",
        "  hint     the input must have a known size on this axis when the layer is built",
    ]


@pytest.mark.parametrize(
    ("given", "what"), [(("abc",), "str"), ((None,), "NoneType"), ((), "nothing")]
)
def test_a_layer_needs_a_tensor(given, what):
    layer = Dense(3, name="head")
    text = text_of(DtypeError, lambda: layer(*given))
    assert text.splitlines()[0] == f"head: a tensor or an array is expected, got {what}."


def test_a_refused_input_builds_nothing():
    layer = layers.Conv2D(3, 3, name="filters")
    text = text_of(ShapeError, lambda: layer(np.full((28, 28, 3), SECRET, np.float32)))
    assert text.splitlines()[0] == "filters: expected 4 axes, got 3."
    assert not layer.built
    assert layer(np.zeros((1, 28, 28, 3), np.float32)).shape == (1, 26, 26, 3)


def test_a_function_gives_the_same_errors():
    @lamina.function
    def step(x):
        return x + np.ones(7, np.float32)

    assert "do not broadcast" in text_of(ShapeError, lambda: step(np.ones(3, np.float32)))
    assert step.__name__ == "step"
