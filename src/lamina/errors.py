"""The exceptions lamina raises, and how their messages are laid out.

Every message says which layer or argument is meant, what was expected, what was given, and what
to do about it; none ever prints the contents of an array.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class LaminaError(Exception):
    """Base of every exception that lamina itself raises."""


class ShapeError(LaminaError, ValueError):
    """A shape does not fit: expected and given shapes are in the message."""


class DtypeError(LaminaError, TypeError):
    """A data type is unknown, or cannot be used here."""


class BatchError(ShapeError):
    """A value would hold the run-time batch on two axes, or as a number; the caller specialises."""


class TraceError(LaminaError, TypeError):
    """Code inside a trace asked for a value that is known only when the compiled step runs."""


class IndexRangeError(LaminaError, IndexError):
    """An index (a token, a label) lies outside its table: input, row and value are named."""


class FileFormatError(LaminaError, ValueError):
    """A model or weights file is damaged, truncated, or not what it claims to be."""


class MissingExtraError(LaminaError, ImportError):
    """An optional package is missing; the message names the extra that installs it."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package {package!r}, which is not installed.\n"
            f"  hint     pip install 'lamina[{extra}]'"
        )


def layout(
    summary: str,
    details: Sequence[tuple[str, str]] = (),
    *,
    hint: str = "",
) -> str:
    """One summary line, then indented ``name  value`` lines, then the hint.

    >>> print(layout("dense: expected 3 features.", [("inputs", "float32 (2, 4)")], hint="x"))
    dense: expected 3 features.
      inputs   float32 (2, 4)
      hint     x
    """
    rows = [*details, ("hint", hint)] if hint else list(details)
    return "\n".join([summary, *(f"  {name:<8} {value}" for name, value in rows)])


def near_matches(word: str, known: Iterable[str]) -> str:
    """`" Did you mean 'a' or 'b'?"` for the known words most like `word`, or an empty string.

    >>> near_matches("acuracy", ["accuracy", "loss"])
    " Did you mean 'accuracy'?"
    """
    close = difflib.get_close_matches(word, list(known), n=3)
    return f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
