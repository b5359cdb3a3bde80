"""Four channels of an electroencephalogram, 800 samples each, which matplotlib carries."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lamina.errors import MissingExtraError

SAMPLES, CHANNELS = 800, 4


def load_data() -> np.ndarray:
    """Return the recording; needs no network.

    returns  float64 (800, 4): time, then channel, in the recording's own unit
    raises   MissingExtraError without matplotlib
    """
    try:
        import matplotlib as mpl
    except ImportError:
        raise MissingExtraError("matplotlib", "plots", "datasets.eeg") from None
    file = Path(mpl.get_data_path()) / "sample_data" / "eeg.dat"
    return np.fromfile(file, dtype=np.float64).reshape(SAMPLES, CHANNELS)
