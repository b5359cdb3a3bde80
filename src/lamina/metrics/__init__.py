"""Metrics: `Model.compile(metrics=["accuracy"])`, or by hand with `update_state` and `result`."""

from __future__ import annotations

from typing import Any

from lamina import losses
from lamina.losses import (
    binary_crossentropy,
    binary_focal_crossentropy,
    categorical_crossentropy,
    categorical_focal_crossentropy,
    categorical_hinge,
    classification_kind,
    hinge,
    huber,
    kl_divergence,
    log_cosh,
    mean_absolute_error,
    mean_absolute_percentage_error,
    mean_squared_error,
    mean_squared_logarithmic_error,
    poisson,
    sparse_categorical_crossentropy,
    squared_hinge,
)
from lamina.metrics.accuracy import (
    ACCURACIES,
    Accuracy,
    BinaryAccuracy,
    CategoricalAccuracy,
    SparseCategoricalAccuracy,
    SparseTopKCategoricalAccuracy,
    TopKCategoricalAccuracy,
    accuracy,
    binary_accuracy,
    categorical_accuracy,
    sparse_categorical_accuracy,
    sparse_top_k_categorical_accuracy,
    top_k_categorical_accuracy,
)
from lamina.metrics.confusion import (
    CONFUSION,
    FalseNegatives,
    FalsePositives,
    Precision,
    Recall,
    TrueNegatives,
    TruePositives,
)
from lamina.metrics.curves import (
    AUC,
    CURVE_METRICS,
    PrecisionAtRecall,
    RecallAtPrecision,
    SensitivityAtSpecificity,
    SpecificityAtSensitivity,
)
from lamina.metrics.errors import (
    ERRORS,
    BinaryCrossentropy,
    CategoricalCrossentropy,
    CategoricalHinge,
    ConcordanceCorrelation,
    CosineSimilarity,
    Hinge,
    KLDivergence,
    LogCoshError,
    MeanAbsoluteError,
    MeanAbsolutePercentageError,
    MeanSquaredError,
    MeanSquaredLogarithmicError,
    PearsonCorrelation,
    Poisson,
    RootMeanSquaredError,
    SparseCategoricalCrossentropy,
    SquaredHinge,
    concordance_correlation,
    cosine_similarity,
    pearson_correlation,
)
from lamina.metrics.metric import Mean, MeanMetricWrapper, Metric, Sum
from lamina.metrics.scores import (
    SCORES,
    BinaryIoU,
    F1Score,
    FBetaScore,
    IoU,
    MeanIoU,
    OneHotIoU,
    OneHotMeanIoU,
    R2Score,
)
from lamina.naming import by_both_names, resolve, to_snake_case
from lamina.serialization import deserialize_keras_object, serialize_keras_object

CLASSES: tuple[type[Metric], ...] = (
    *(Metric, Mean, Sum, MeanMetricWrapper),
    *(*ACCURACIES, *ERRORS, *CONFUSION, *CURVE_METRICS, *SCORES),
)

# Strings mean classes; where there is no metric class of a name, a loss function may answer.
OBJECTS: dict[str, Any] = {
    **{function.__name__: function for function in losses.FUNCTIONS},
    **by_both_names(*CLASSES),
    "acc": Accuracy,
    "mse": MeanSquaredError,
    "MSE": MeanSquaredError,
    "rmse": RootMeanSquaredError,
    "mae": MeanAbsoluteError,
    "MAE": MeanAbsoluteError,
    "mape": MeanAbsolutePercentageError,
    "MAPE": MeanAbsolutePercentageError,
    "msle": MeanSquaredLogarithmicError,
    "MSLE": MeanSquaredLogarithmicError,
    "bce": BinaryCrossentropy,
    "BCE": BinaryCrossentropy,
    "kld": KLDivergence,
}

# Strings that mean one of several metrics, chosen when the shapes are known.
CHOSEN_BY_SHAPE = ("accuracy", "acc", *losses.CHOSEN_BY_SHAPE)


def get(identifier: Any) -> Any:
    """A metric from a string ("auc"), a configuration, a class, or a callable.

    >>> get("mae").name
    'mean_absolute_error'
    """
    return resolve(identifier, OBJECTS, "metric", "keras.metrics")


def get_metric(identifier: Any, y_true: Any, y_pred: Any) -> Metric | None:
    """What `compile(metrics=[identifier])` means for these targets and predictions.

    "accuracy" and "acc" choose between the binary, the sparse and the categorical form by the
    shapes, as do "crossentropy" and "ce". A string gives the metric its name.

    >>> import numpy as np
    >>> get_metric("acc", np.zeros((4,)), np.zeros((4, 3)))
    <SparseCategoricalAccuracy name=acc>
    """
    if identifier is None:
        return None
    chosen: dict[str, Any] | None = None
    word = identifier.lower() if isinstance(identifier, str) else ""
    if word in CHOSEN_BY_SHAPE[:2]:
        chosen = {
            "binary": BinaryAccuracy,
            "sparse": SparseCategoricalAccuracy,
            "categorical": CategoricalAccuracy,
        }
    elif word in CHOSEN_BY_SHAPE:
        chosen = {
            "binary": BinaryCrossentropy,
            "sparse": SparseCategoricalCrossentropy,
            "categorical": CategoricalCrossentropy,
        }
    if chosen is not None:
        metric = chosen[classification_kind(y_true, y_pred)](name=identifier)
    else:
        metric = get(identifier)
        if not isinstance(metric, Metric):
            metric = MeanMetricWrapper(metric, name=_name_of(metric))
        if isinstance(identifier, str):
            metric.name = identifier
    found: Metric = metric
    return found


def _name_of(function: Any) -> str:
    name = getattr(function, "name", None) or getattr(function, "__name__", None)
    return str(name or to_snake_case(type(function).__name__))


def serialize(metric: Any) -> Any:
    """The metric as plain data."""
    return serialize_keras_object(metric)


def deserialize(config: Any, custom_objects: dict[str, Any] | None = None) -> Any:
    """The metric that `serialize` wrote."""
    return deserialize_keras_object(config, custom_objects, within="keras.metrics")


__all__ = [
    "AUC",
    "CHOSEN_BY_SHAPE",
    "Accuracy",
    "BinaryAccuracy",
    "BinaryCrossentropy",
    "BinaryIoU",
    "CategoricalAccuracy",
    "CategoricalCrossentropy",
    "CategoricalHinge",
    "ConcordanceCorrelation",
    "CosineSimilarity",
    "F1Score",
    "FBetaScore",
    "FalseNegatives",
    "FalsePositives",
    "Hinge",
    "IoU",
    "KLDivergence",
    "LogCoshError",
    "Mean",
    "MeanAbsoluteError",
    "MeanAbsolutePercentageError",
    "MeanIoU",
    "MeanMetricWrapper",
    "MeanSquaredError",
    "MeanSquaredLogarithmicError",
    "Metric",
    "OneHotIoU",
    "OneHotMeanIoU",
    "PearsonCorrelation",
    "Poisson",
    "Precision",
    "PrecisionAtRecall",
    "R2Score",
    "Recall",
    "RecallAtPrecision",
    "RootMeanSquaredError",
    "SensitivityAtSpecificity",
    "SparseCategoricalAccuracy",
    "SparseCategoricalCrossentropy",
    "SparseTopKCategoricalAccuracy",
    "SpecificityAtSensitivity",
    "SquaredHinge",
    "Sum",
    "TopKCategoricalAccuracy",
    "TrueNegatives",
    "TruePositives",
    "accuracy",
    "binary_accuracy",
    "binary_crossentropy",
    "binary_focal_crossentropy",
    "categorical_accuracy",
    "categorical_crossentropy",
    "categorical_focal_crossentropy",
    "categorical_hinge",
    "concordance_correlation",
    "cosine_similarity",
    "deserialize",
    "get",
    "get_metric",
    "hinge",
    "huber",
    "kl_divergence",
    "log_cosh",
    "mean_absolute_error",
    "mean_absolute_percentage_error",
    "mean_squared_error",
    "mean_squared_logarithmic_error",
    "pearson_correlation",
    "poisson",
    "serialize",
    "sparse_categorical_accuracy",
    "sparse_categorical_crossentropy",
    "sparse_top_k_categorical_accuracy",
    "squared_hinge",
    "top_k_categorical_accuracy",
]
