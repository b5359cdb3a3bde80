"""`keras.backend`: the few names of it that scripts still use."""

from __future__ import annotations

from lamina.config import (
    epsilon,
    floatx,
    image_data_format,
    set_epsilon,
    set_floatx,
    set_image_data_format,
)

__all__ = [
    "backend",
    "epsilon",
    "floatx",
    "image_data_format",
    "set_epsilon",
    "set_floatx",
    "set_image_data_format",
]


def backend() -> str:
    """The name of what computes.

    >>> backend()
    'lamina'
    """
    return "lamina"
