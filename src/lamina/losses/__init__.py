"""Losses: `Model.compile(loss="mse")`, or called by hand as `loss(y_true, y_pred)`."""

from __future__ import annotations

from typing import Any

from lamina.losses.ctc import CTC, SEQUENCES, ctc
from lamina.losses.loss import Loss, LossFunctionWrapper, reduce_values
from lamina.losses.overlap import OVERLAP, Circle, Dice, Tversky, circle, dice, tversky
from lamina.losses.probability import (
    PROBABILITY,
    BinaryCrossentropy,
    BinaryFocalCrossentropy,
    CategoricalCrossentropy,
    CategoricalFocalCrossentropy,
    CategoricalGeneralizedCrossEntropy,
    CategoricalHinge,
    KLDivergence,
    SparseCategoricalCrossentropy,
    binary_crossentropy,
    binary_focal_crossentropy,
    categorical_crossentropy,
    categorical_focal_crossentropy,
    categorical_generalized_cross_entropy,
    categorical_hinge,
    kl_divergence,
    sparse_categorical_crossentropy,
)
from lamina.losses.regression import (
    REGRESSION,
    CosineSimilarity,
    Hinge,
    Huber,
    LogCosh,
    MeanAbsoluteError,
    MeanAbsolutePercentageError,
    MeanSquaredError,
    MeanSquaredLogarithmicError,
    Poisson,
    SquaredHinge,
    cosine_similarity,
    hinge,
    huber,
    log_cosh,
    mean_absolute_error,
    mean_absolute_percentage_error,
    mean_squared_error,
    mean_squared_logarithmic_error,
    poisson,
    squared_hinge,
)
from lamina.naming import by_both_names, resolve
from lamina.serialization import deserialize_keras_object, serialize_keras_object

FUNCTIONS = (
    *(mean_squared_error, mean_absolute_error, mean_absolute_percentage_error),
    *(mean_squared_logarithmic_error, huber, log_cosh, cosine_similarity, poisson, hinge),
    *(squared_hinge, categorical_crossentropy, sparse_categorical_crossentropy),
    *(binary_crossentropy, binary_focal_crossentropy, categorical_focal_crossentropy),
    *(kl_divergence, categorical_hinge, categorical_generalized_cross_entropy),
    *(dice, tversky, circle, ctc),
)

# Functions last: a name in snake_case means the function, as in Keras.
OBJECTS: dict[str, Any] = {
    **by_both_names(Loss, *REGRESSION, *PROBABILITY, *OVERLAP, *SEQUENCES),
    **{function.__name__: function for function in FUNCTIONS},
    "mse": mean_squared_error,
    "MSE": mean_squared_error,
    "mae": mean_absolute_error,
    "MAE": mean_absolute_error,
    "mape": mean_absolute_percentage_error,
    "MAPE": mean_absolute_percentage_error,
    "msle": mean_squared_logarithmic_error,
    "MSLE": mean_squared_logarithmic_error,
    "bce": binary_crossentropy,
    "BCE": binary_crossentropy,
    "kld": kl_divergence,
    "KLD": kl_divergence,
    "logcosh": log_cosh,
    "huber_loss": huber,
}

# Strings that mean one of several functions, chosen when the shapes are known.
CHOSEN_BY_SHAPE = ("crossentropy", "ce")


def get(identifier: Any) -> Any:
    """A loss function or object from a string ("mse"), a configuration, a class or a callable.

    >>> get("mse").__name__
    'mean_squared_error'
    """
    return resolve(identifier, OBJECTS, "loss", "keras.losses")


def get_loss(identifier: Any, y_true: Any, y_pred: Any) -> Any:
    """What `compile(loss=identifier)` means for these targets and predictions, as an object.

    "crossentropy" and "ce" choose between the binary, the sparse and the categorical form by the
    shapes, as "accuracy" does among metrics.
    """
    if isinstance(identifier, str) and identifier.lower() in CHOSEN_BY_SHAPE:
        found: Any = {
            "binary": binary_crossentropy,
            "sparse": sparse_categorical_crossentropy,
            "categorical": categorical_crossentropy,
        }[classification_kind(y_true, y_pred)]
    else:
        found = get(identifier)
    if found is None or isinstance(found, Loss):
        return found
    name = identifier if isinstance(identifier, str) else getattr(found, "__name__", "loss")
    return LossFunctionWrapper(found, name=name)


def classification_kind(y_true: Any, y_pred: Any) -> str:
    """One of "binary", "sparse" and "categorical", by the shapes of targets and predictions.

    >>> import numpy as np
    >>> classification_kind(np.zeros((4,)), np.zeros((4, 3)))
    'sparse'
    """
    target, prediction = tuple(y_true.shape), tuple(y_pred.shape)
    if prediction and prediction[-1] == 1:
        return "binary"
    if len(target) < len(prediction) or (target and target[-1] == 1 and prediction[-1] != 1):
        return "sparse"
    return "categorical"


def serialize(loss: Any) -> Any:
    """The loss as plain data: an object's configuration, a function's name."""
    name = getattr(loss, "__name__", None)
    if name in OBJECTS and OBJECTS[name] is loss:
        return name
    return serialize_keras_object(loss)


def deserialize(config: Any, custom_objects: dict[str, Any] | None = None) -> Any:
    """The loss that `serialize` wrote."""
    if isinstance(config, str) and config in OBJECTS:
        return OBJECTS[config]
    return deserialize_keras_object(config, custom_objects, within="keras.losses")


__all__ = [
    "CHOSEN_BY_SHAPE",
    "CTC",
    "BinaryCrossentropy",
    "BinaryFocalCrossentropy",
    "CategoricalCrossentropy",
    "CategoricalFocalCrossentropy",
    "CategoricalGeneralizedCrossEntropy",
    "CategoricalHinge",
    "Circle",
    "CosineSimilarity",
    "Dice",
    "Hinge",
    "Huber",
    "KLDivergence",
    "LogCosh",
    "Loss",
    "LossFunctionWrapper",
    "MeanAbsoluteError",
    "MeanAbsolutePercentageError",
    "MeanSquaredError",
    "MeanSquaredLogarithmicError",
    "Poisson",
    "SparseCategoricalCrossentropy",
    "SquaredHinge",
    "Tversky",
    "binary_crossentropy",
    "binary_focal_crossentropy",
    "categorical_crossentropy",
    "categorical_focal_crossentropy",
    "categorical_generalized_cross_entropy",
    "categorical_hinge",
    "circle",
    "classification_kind",
    "cosine_similarity",
    "ctc",
    "deserialize",
    "dice",
    "get",
    "get_loss",
    "hinge",
    "huber",
    "kl_divergence",
    "log_cosh",
    "mean_absolute_error",
    "mean_absolute_percentage_error",
    "mean_squared_error",
    "mean_squared_logarithmic_error",
    "poisson",
    "reduce_values",
    "serialize",
    "sparse_categorical_crossentropy",
    "squared_hinge",
    "tversky",
]
