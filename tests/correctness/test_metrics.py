"""Metrics against NumPy, and against real Keras over several weighted batches."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from lamina import losses, metrics, ops
from lamina.tensor import convert
from lamina.trace import executor_for, trace
from lamina.types import Batch, Type

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation"),
    pytest.mark.filterwarnings("ignore:Explicitly requested dtype"),  # Keras's own, on JAX
]

RNG = np.random.default_rng(21)
BATCHES, ROWS, CLASSES = 3, 8, 5


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def batches(kind):
    """(y_true, y_pred) for each batch."""
    found = []
    for _ in range(BATCHES):
        scores = RNG.normal(size=(ROWS, CLASSES)).astype("float32")
        labels = RNG.integers(0, CLASSES, ROWS)
        shares = softmax(scores)
        found.append(
            {
                "real": (
                    RNG.normal(size=(ROWS, 3)).astype("float32"),
                    RNG.normal(size=(ROWS, 3)).astype("float32"),
                ),
                "positive": (
                    RNG.uniform(0.1, 2, (ROWS, 3)).astype("float32"),
                    RNG.uniform(0.1, 2, (ROWS, 3)).astype("float32"),
                ),
                "sparse": (labels, shares),
                "column": (labels[:, None], shares),
                "one_hot": (np.eye(CLASSES, dtype="float32")[labels], shares),
                "binary": (
                    RNG.integers(0, 2, (ROWS, 1)).astype("float32"),
                    RNG.uniform(0, 1, (ROWS, 1)).astype("float32"),
                ),
                "vector": (
                    RNG.integers(0, 2, ROWS).astype("float32"),
                    RNG.uniform(0, 1, (ROWS, 1)).astype("float32"),
                ),
                "labels": (
                    RNG.integers(0, 2, (ROWS, 3)).astype("float32"),
                    RNG.uniform(0, 1, (ROWS, 3)).astype("float32"),
                ),
                "equal": (
                    RNG.integers(0, 2, (ROWS, 3)).astype("float32"),
                    RNG.integers(0, 2, (ROWS, 3)).astype("float32"),
                ),
                "edges": (
                    RNG.integers(0, 2, (ROWS, 1)).astype("float32"),
                    RNG.choice([0.0, 0.25, 0.5, 1.0], (ROWS, 1)).astype("float32"),
                ),
                "maps": (RNG.integers(0, 3, (ROWS, 4)), RNG.integers(0, 3, (ROWS, 4))),
                "scored": (np.eye(CLASSES, dtype="float32")[labels], scores),
            }[kind]
        )
    return found


CASES = [
    ("MeanSquaredError", {}, "real"),
    ("RootMeanSquaredError", {}, "real"),
    ("MeanAbsoluteError", {}, "real"),
    ("MeanAbsolutePercentageError", {}, "real"),
    ("MeanSquaredLogarithmicError", {}, "positive"),
    ("LogCoshError", {}, "real"),
    ("CosineSimilarity", {}, "real"),
    ("PearsonCorrelation", {}, "real"),
    ("ConcordanceCorrelation", {}, "real"),
    ("Poisson", {}, "positive"),
    ("KLDivergence", {}, "one_hot"),
    ("Hinge", {}, "labels"),
    ("SquaredHinge", {}, "labels"),
    ("CategoricalHinge", {}, "one_hot"),
    ("Accuracy", {}, "equal"),
    ("BinaryAccuracy", {}, "binary"),
    ("BinaryAccuracy", {"threshold": 0.3}, "vector"),
    ("CategoricalAccuracy", {}, "one_hot"),
    ("SparseCategoricalAccuracy", {}, "sparse"),
    ("SparseCategoricalAccuracy", {}, "column"),
    ("TopKCategoricalAccuracy", {"k": 2}, "one_hot"),
    ("SparseTopKCategoricalAccuracy", {"k": 3}, "sparse"),
    ("BinaryCrossentropy", {}, "binary"),
    ("CategoricalCrossentropy", {"label_smoothing": 0.1}, "one_hot"),
    ("SparseCategoricalCrossentropy", {}, "sparse"),
    ("TruePositives", {}, "binary"),
    ("TrueNegatives", {"thresholds": [0.2, 0.9]}, "binary"),
    ("FalsePositives", {}, "vector"),
    ("FalseNegatives", {"thresholds": 0.4}, "labels"),
    ("Precision", {}, "binary"),
    ("Precision", {"top_k": 2}, "one_hot"),
    ("Precision", {"class_id": 1, "thresholds": 0.2}, "one_hot"),
    ("Precision", {"thresholds": [0.0, 0.5, 1.0]}, "edges"),
    ("Recall", {}, "vector"),
    ("Recall", {"thresholds": [0.1, 0.2, 0.7]}, "labels"),
    ("AUC", {}, "binary"),
    ("AUC", {"curve": "PR"}, "vector"),
    ("AUC", {"curve": "PRGAIN"}, "binary"),
    ("AUC", {"summation_method": "minoring", "num_thresholds": 20}, "binary"),
    ("AUC", {"summation_method": "majoring", "thresholds": [0.1, 0.4, 0.6]}, "binary"),
    ("AUC", {"multi_label": True}, "labels"),
    ("AUC", {"multi_label": True, "num_labels": 3, "label_weights": [1.0, 2.0, 0.5]}, "labels"),
    ("AUC", {"from_logits": True}, "scored"),
    ("AUC", {}, "edges"),
    ("SensitivityAtSpecificity", {"specificity": 0.5}, "binary"),
    ("SpecificityAtSensitivity", {"sensitivity": 0.5}, "binary"),
    ("PrecisionAtRecall", {"recall": 0.6}, "binary"),
    ("RecallAtPrecision", {"precision": 0.5}, "binary"),
    ("F1Score", {}, "one_hot"),
    ("F1Score", {"average": "macro"}, "one_hot"),
    ("FBetaScore", {"average": "weighted", "beta": 2.0, "threshold": 0.3}, "labels"),
    ("FBetaScore", {"average": "micro", "beta": 0.5}, "one_hot"),
    ("R2Score", {}, "real"),
    ("R2Score", {"class_aggregation": "variance_weighted_average"}, "real"),
    ("R2Score", {"num_regressors": 2}, "real"),
    ("IoU", {"num_classes": 3, "target_class_ids": [0, 2]}, "maps"),
    ("MeanIoU", {"num_classes": 3, "ignore_class": 1}, "maps"),
    ("BinaryIoU", {"threshold": 0.4}, "labels"),
    ("OneHotIoU", {"num_classes": CLASSES, "target_class_ids": [1, 2]}, "one_hot"),
    ("OneHotMeanIoU", {"num_classes": CLASSES}, "one_hot"),
]
IDS = [f"{name}-{kind}-{'-'.join(arguments) or 'plain'}" for name, arguments, kind in CASES]
UNWEIGHTED = {"IoU", "MeanIoU", "BinaryIoU", "OneHotIoU", "OneHotMeanIoU"}


@pytest.mark.oracle
@pytest.mark.parametrize(("name", "arguments", "kind"), CASES, ids=IDS)
@pytest.mark.parametrize("weighted", [False, True])
def test_metric_equals_keras(keras, name, arguments, kind, weighted):
    if weighted and name in UNWEIGHTED:
        pytest.skip("whole numbers")
    ours = getattr(metrics, name)(**arguments)
    theirs = getattr(keras.metrics, name)(**arguments)
    for y_true, y_pred in batches(kind):
        weight = RNG.uniform(0.2, 2, ROWS).astype("float32") if weighted else None
        ours.update_state(y_true, y_pred, sample_weight=weight)
        # Keras's own loss function does not repair a vector beside a column here.
        theirs.update_state(y_true, y_pred, sample_weight=weight)
        np.testing.assert_allclose(
            ours.result().numpy(), np.asarray(theirs.result()), rtol=2e-4, atol=1e-5
        )
    assert [v.shape for v in ours.variables] == [tuple(v.shape) for v in theirs.variables]
    assert ours._direction == getattr(theirs, "_direction", ours._direction)


@pytest.mark.oracle
@pytest.mark.parametrize(("name", "arguments", "kind"), CASES, ids=IDS)
def test_config_equals_keras(keras, name, arguments, kind):
    ours = getattr(metrics, name)(**arguments)
    theirs = getattr(keras.metrics, name)(**arguments).get_config()
    mine = ours.get_config()
    for key, value in theirs.items():
        if key in {"label_weights", "thresholds"}:
            np.testing.assert_allclose(np.asarray(mine[key], float), np.asarray(value, float))
        elif key not in {"name", "fn", "dtype"}:
            assert mine[key] == value, key
    assert metrics.deserialize(metrics.serialize(ours)).get_config() == mine


@pytest.mark.parametrize(("name", "arguments", "kind"), CASES, ids=IDS)
def test_a_compiled_update_equals_an_eager_one(name, arguments, kind):
    """The same numbers, from one program for any number of rows, a short batch included."""
    eager, compiled = (getattr(metrics, name)(**arguments) for _ in range(2))
    data = batches(kind)
    data[-1] = tuple(part[:5] for part in data[-1])
    data[0] = tuple(part.astype("int32") if part.dtype == "int64" else part for part in data[0])
    compiled.update_state(*data[0])
    compiled.reset_state()
    types = [Type((Batch(1), *part.shape[1:]), str(part.dtype)) for part in data[0]]
    traced = trace(compiled.update_state, *types)
    run = executor_for(traced.program, ROWS)
    for part in data:
        arrays = [np.ascontiguousarray(x, t.dtype) for x, t in zip(part, types, strict=True)]
        eager.update_state(*arrays)
        run(arrays, traced.states())
    np.testing.assert_allclose(
        compiled.result().numpy(), eager.result().numpy(), rtol=1e-5, atol=1e-6
    )


# -------------------------------------------------------------------------- numbers


def test_auc_equals_the_share_of_ordered_pairs():
    truth = RNG.integers(0, 2, 300)
    scores = np.clip(truth * 0.3 + RNG.uniform(0, 0.7, 300), 0, 1)
    metric = metrics.AUC(num_thresholds=2000)
    metric.update_state(truth, scores.astype("float32"))
    ones, zeros = scores[truth == 1], scores[truth == 0]
    expected = (ones[:, None] > zeros[None]).mean()
    assert float(metric.result()) == pytest.approx(expected, abs=2e-3)


def test_precision_and_recall_by_hand():
    truth = np.array([1, 1, 0, 0, 1], "float32")
    scores = np.array([0.9, 0.4, 0.6, 0.1, 0.7], "float32")
    precision, recall = metrics.Precision(), metrics.Recall()
    precision.update_state(truth, scores)
    recall.update_state(truth, scores)
    assert float(precision.result()) == pytest.approx(2 / 3)
    assert float(recall.result()) == pytest.approx(2 / 3)


def test_weighted_means_over_batches():
    metric = metrics.MeanSquaredError()
    metric.update_state(np.array([1.0, 2.0]), np.zeros((2, 1)), sample_weight=np.array([1.0, 0.0]))
    metric.update_state(np.array([3.0, 4.0]), np.zeros((2, 1)), sample_weight=np.array([0.0, 1.0]))
    assert float(metric.result()) == 8.5
    metric.reset_state()
    assert float(metric.result()) == 0.0


def test_bce_takes_a_vector_beside_a_column():
    truth, scores = np.array([0.0, 1.0]), np.array([[0.2], [0.7]])
    for metric in (metrics.BinaryCrossentropy(), metrics.get_metric("bce", truth, scores)):
        metric.update_state(truth, scores)
        expected = -(np.log(0.8) + np.log(0.7)) / 2
        assert float(metric.result()) == pytest.approx(expected, rel=1e-5)


def test_masked_steps_do_not_count():
    truth = np.array([[1, 0, 1]], "float32")[..., None]
    scores = convert(np.array([[1, 1, 1]], "float32")[..., None])
    scores._keras_mask = convert(np.array([[True, False, True]]))
    metric = metrics.BinaryAccuracy()
    metric.update_state(truth, scores)
    assert float(metric.result()) == 1.0


# ---------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("target", "prediction", "kind"),
    [
        ((4,), (4, 1), metrics.BinaryAccuracy),
        ((4, 1), (4, 1), metrics.BinaryAccuracy),
        ((4,), (4, 3), metrics.SparseCategoricalAccuracy),
        ((4, 1), (4, 3), metrics.SparseCategoricalAccuracy),
        ((4, 3), (4, 3), metrics.CategoricalAccuracy),
    ],
)
@pytest.mark.parametrize("word", ["accuracy", "acc"])
def test_accuracy_is_chosen_by_the_shapes(word, target, prediction, kind):
    metric = metrics.get_metric(word, np.zeros(target), np.zeros(prediction))
    assert type(metric) is kind
    assert metric.name == word


def test_strings_give_the_key_of_the_logs():
    assert metrics.get_metric("mse", None, None).name == "mse"
    assert metrics.get_metric("auc", None, None).name == "auc"
    found = metrics.get_metric(losses.huber, None, None)
    assert isinstance(found, metrics.MeanMetricWrapper)
    assert found.name == "huber"


def test_a_second_metric_without_a_name_is_numbered():
    first, second = metrics.AUC(), metrics.AUC()
    assert first.name != second.name
    assert second.name.startswith("auc_")
    assert metrics.AUC(name="mine").name == "mine"


def test_metrics_of_ones_own_with_metrics_inside():
    class Both(metrics.Metric):
        def __init__(self, name="both"):
            super().__init__(name=name)
            self.parts = [metrics.Mean(), metrics.Sum()]
            self.seen = self.add_weight(name="seen")

        def update_state(self, y_true, y_pred, sample_weight=None):
            for part in self.parts:
                part.update_state(y_pred)
            self.seen.assign_add(1.0)

        def result(self):
            return ops.stack([part.result() for part in self.parts])

    metric = Both()
    metric.update_state(None, np.array([1.0, 3.0]))
    assert metric.result().numpy().tolist() == [2.0, 4.0]
    assert len(metric.variables) == 4
    twin = copy.deepcopy(metric)
    metric.reset_state()
    assert metric.result().numpy().tolist() == [0.0, 0.0]
    assert twin.result().numpy().tolist() == [2.0, 4.0]
