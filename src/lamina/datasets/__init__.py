"""Real data sets, ready to train on.

`digits`, `diabetes`, `eeg` and `manual` come with packages that are installed (scikit-learn,
matplotlib, Python itself) and need no network; `mnist` is looked for on this computer and else
downloaded. Each has `load_data()`, as in Keras.
"""

from lamina.datasets import diabetes, digits, eeg, manual, mnist

__all__ = ["diabetes", "digits", "eeg", "manual", "mnist"]
