"""Ten chapters of the Python manual: of which chapter is a passage? A text classification.

Every Python carries the text (`pydoc_data.topics`, what `help("...")` prints), so this is real
prose that needs no network.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TypeAlias

import numpy as np

Pair: TypeAlias = tuple[np.ndarray, np.ndarray]

CHAPTERS = (
    "specialnames",
    "compound",
    "types",
    "formatstrings",
    "string-methods",
    "typesseq",
    "debugger",
    "assignment",
    "execmodel",
    "import",
)
TEST_SHARE = 5
UNKNOWN = 1


def load_data(
    length: int = 40, stride: int = 8, num_words: int | None = 10000
) -> tuple[Pair, Pair]:
    """Return passages as word numbers, and the number of the chapter that each is from.

    length     words in a passage
    stride     words from the start of one passage to the start of the next
    num_words  rarer words become 1, "unknown"; 0 is kept free for padding
    returns    (x_train, y_train), (x_test, y_test); x int32 (N, length) in [0, num_words),
               y uint8 (N,) in [0, 10). The test passages are the last fifth of every chapter, so
               that no training passage overlaps one
    """
    from pydoc_data.topics import topics

    chapters = [re.findall(r"[a-z_]+|[^\sa-z_]", topics[name].lower()) for name in CHAPTERS]
    cuts = [len(words) - len(words) // TEST_SHARE for words in chapters]
    counts = Counter(
        word for words, cut in zip(chapters, cuts, strict=True) for word in words[:cut]
    )
    # Ties are broken by the alphabet, so that numbers do not depend on the order of reading.
    ranked = sorted(counts, key=lambda word: (-counts[word], word))
    if num_words is not None:
        ranked = ranked[: num_words - 2]
    number = {word: rank for rank, word in enumerate(ranked, start=UNKNOWN + 1)}
    parts: tuple[list[list[int]], list[list[int]]] = ([], [])
    labels: tuple[list[int], list[int]] = ([], [])
    for label, (words, cut) in enumerate(zip(chapters, cuts, strict=True)):
        numbers = [number.get(word, UNKNOWN) for word in words]
        for side, text in enumerate((numbers[:cut], numbers[cut:])):
            passages = [
                text[start : start + length] for start in range(0, len(text) - length + 1, stride)
            ]
            parts[side].extend(passages)
            labels[side].extend([label] * len(passages))
    train, test = (
        (np.array(x, np.int32).reshape(-1, length), np.array(y, np.uint8))
        for x, y in zip(parts, labels, strict=True)
    )
    return train, test
