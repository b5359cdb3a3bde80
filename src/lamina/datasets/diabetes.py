"""442 patients, ten measurements each, and the disease's progress (Efron et al. 2004)."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

from lamina.errors import MissingExtraError

Pair: TypeAlias = tuple[np.ndarray, np.ndarray]

TEST = 89


def load_data(seed: int = 113) -> tuple[Pair, Pair]:
    """Return measurements and progress after a year; needs no network.

    seed     of the permutation before the split
    returns  (x_train, y_train), (x_test, y_test); float32 (353, 10) and (89, 10), each column
             with mean 0 over all patients; y float32 (353,) and (89,), from 25 to 346
    raises   MissingExtraError without scikit-learn
    """
    try:
        from sklearn.datasets import load_diabetes
    except ImportError:
        raise MissingExtraError("scikit-learn", "data", "datasets.diabetes") from None
    bunch = load_diabetes()
    order = np.random.default_rng(seed).permutation(len(bunch.target))
    x, y = bunch.data[order].astype(np.float32), bunch.target[order].astype(np.float32)
    return (x[:-TEST], y[:-TEST]), (x[-TEST:], y[-TEST:])
