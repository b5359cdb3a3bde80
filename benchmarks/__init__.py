"""lamina beside its peers: see `python -m benchmarks --help`."""

import sys
from pathlib import Path

# The clone's lamina is measured, installed or not.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
