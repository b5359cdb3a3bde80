"""Words and numbers as positions in a vocabulary; texts as sequences of such positions.

Strings are no tensors: these layers run on the host, before a model, on arrays or lists of
strings. `IntegerLookup` also runs inside a model.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from lamina import ops
from lamina.errors import layout, near_matches
from lamina.layers.features import encoded
from lamina.layers.layer import Layer
from lamina.serialization import deserialize_keras_object, serialize_keras_object
from lamina.tensor import Tensor, convert

MODES = ("int", "one_hot", "multi_hot", "count", "tf_idf")
STANDARDS = ("lower_and_strip_punctuation", "lower", "strip_punctuation", None)
UNKNOWN = "[UNK]"
SPLITS = ("whitespace", "character", None)
_PUNCTUATION = re.compile(r"""[!"#$%&()*+,\-./:;<=>?@\[\\\]^_`{|}~']""")


class IndexLookup(Layer):
    """Base: tokens to positions, or back with `invert`.

    Position 0 is the mask token (if there is one, and only in mode "int"), then come
    `num_oov_indices` positions for tokens that are not known, then the vocabulary.

    max_tokens        largest size of the vocabulary, special tokens included
    vocabulary        a list, or found by `adapt(data)`: the most frequent tokens first
    output_mode       "int", "one_hot", "multi_hot", "count", or "tf_idf" (counts times
                      log(1 + documents / (1 + documents with the token)))
    pad_to_max_tokens make vectors of `max_tokens` entries, whatever the vocabulary
    """

    def __init__(
        self,
        max_tokens: int | None,
        num_oov_indices: int,
        mask_token: Any,
        oov_token: Any,
        vocabulary: Any,
        idf_weights: Any,
        invert: bool,
        output_mode: str,
        pad_to_max_tokens: bool,
        **kwargs: Any,
    ) -> None:
        if kwargs.pop("sparse", False):
            raise ValueError(f"{type(self).__name__}: sparse tensors are not supported.")
        kwargs.pop("vocabulary_dtype", None)
        super().__init__(**kwargs)
        if output_mode not in MODES:
            raise ValueError(
                f"{self.name}: output_mode is one of {', '.join(MODES)}, got {output_mode!r}."
                f"{near_matches(str(output_mode), MODES)}"
            )
        if invert and output_mode != "int":
            raise ValueError(f"{self.name}: invert=True goes with output_mode 'int' only.")
        if num_oov_indices < 0 or (num_oov_indices > 1 and invert):
            raise ValueError(
                f"{self.name}: num_oov_indices is 0 or more, and 1 at most with invert=True, "
                f"got {num_oov_indices}."
            )
        self.max_tokens = max_tokens
        self.num_oov_indices = num_oov_indices
        self.mask_token = mask_token
        self.oov_token = oov_token
        self.invert = invert
        self.output_mode = output_mode
        self.pad_to_max_tokens = pad_to_max_tokens
        self.tokens: list[Any] | None = None
        self.idf_weights: list[float] | None = None
        self._positions: dict[Any, int] = {}
        if vocabulary is not None:
            self.set_vocabulary(vocabulary, idf_weights)

    # ------------------------------------------------------------------------ vocabulary

    @property
    def special_tokens(self) -> list[Any]:
        """The tokens that stand before the vocabulary."""
        masked = self.mask_token is not None and self.output_mode == "int"
        return [self.mask_token] * masked + [self.oov_token] * self.num_oov_indices

    def plain(self, token: Any) -> Any:
        """A token in the form in which the vocabulary holds it."""
        return token.decode() if isinstance(token, bytes) else str(token)

    def set_vocabulary(self, vocabulary: Any, idf_weights: Any = None) -> None:
        """Take a vocabulary, with or without the special tokens in front.

        vocabulary   a list of tokens, or the path of a text file with one token a line
        """
        if isinstance(vocabulary, str):
            with open(vocabulary, encoding="utf-8") as lines:  # noqa: PTH123
                vocabulary = [line.rstrip("\n") for line in lines]
        tokens = [self.plain(token) for token in vocabulary]
        special = self.special_tokens
        if special and tokens[: len(special)] == special:
            tokens = tokens[len(special) :]
        twice = [token for token, count in Counter(tokens).items() if count > 1]
        if twice:
            raise ValueError(
                layout(
                    f"{self.name}: the vocabulary holds {len(twice)} tokens more than once.",
                    [("first", repr(twice[0]))],
                )
            )
        limit = None if self.max_tokens is None else self.max_tokens - len(special)
        if limit is not None and len(tokens) > limit:
            raise ValueError(
                f"{self.name}: {len(tokens) + len(special)} tokens, but max_tokens is "
                f"{self.max_tokens}."
            )
        if self.output_mode == "tf_idf" and idf_weights is None:
            raise ValueError(f"{self.name}: output_mode 'tf_idf' needs idf_weights.")
        self.tokens = tokens
        self.idf_weights = None if idf_weights is None else [float(w) for w in idf_weights]
        self._positions = {token: place for place, token in enumerate(tokens, len(special))}

    def get_vocabulary(self, include_special_tokens: bool = True) -> list[Any]:
        """The tokens by position."""
        tokens = self.tokens or []
        return [*self.special_tokens, *tokens] if include_special_tokens else list(tokens)

    def vocabulary_size(self) -> int:
        """The number of positions."""
        return len(self.special_tokens) + len(self.tokens or [])

    def adapt(self, data: Any, batch_size: int | None = None, steps: int | None = None) -> None:
        """Find the vocabulary: the most frequent tokens, of equal ones the last in order first."""
        del batch_size
        counts: Counter[Any] = Counter()
        documents: Counter[Any] = Counter()
        rows = 0
        for place, batch in enumerate(_batches(data)):
            if steps is not None and place >= steps:
                break
            for row in self.rows_of(batch):
                counts.update(row)
                documents.update(set(row))
                rows += 1
        for special in (self.mask_token, self.oov_token):
            counts.pop(special, None)
        found = sorted(counts, key=lambda token: (counts[token], token), reverse=True)
        if self.max_tokens is not None:
            found = found[: self.max_tokens - len(self.special_tokens)]
        weights = [float(np.log(1.0 + rows / (1.0 + documents[token]))) for token in found]
        self.set_vocabulary(found, weights if self.output_mode == "tf_idf" else None)

    def rows_of(self, batch: Any) -> Iterable[list[Any]]:
        """The tokens of each row of a batch."""
        array = np.asarray(batch)
        flat = array.reshape(len(array), -1) if array.ndim else array.reshape(1, 1)
        return ([self.plain(token) for token in row] for row in flat)

    # ------------------------------------------------------------------------------ call

    def call(self, inputs: Any) -> Any:
        if self.tokens is None:
            raise ValueError(f"{self.name}: there is no vocabulary yet; call adapt(data) first.")
        if self.invert:
            names = np.asarray(self.get_vocabulary(), dtype=object)
            numbers = np.asarray(inputs)
            known = (numbers >= 0) & (numbers < len(names))
            return np.where(known, names[np.where(known, numbers, 0)], self.oov_token)
        return self.encode(self.numbers(inputs))

    def numbers(self, inputs: Any) -> Any:
        """The position of each token, int64; those to be left out are -1."""
        array = np.asarray(inputs)
        found = [self._number(self.plain(token)) for token in array.ravel()]
        return convert(np.asarray(found, np.int64).reshape(array.shape))

    def _number(self, token: Any) -> int:
        if token in self._positions:
            return self._positions[token]
        if self.mask_token is not None and token == self.mask_token:
            return 0 if self.output_mode == "int" else -1
        if not self.num_oov_indices:
            raise ValueError(
                layout(
                    f"{self.name}: a token is not in the vocabulary.",
                    [("token", repr(token))],
                    hint="with num_oov_indices=1 unknown tokens get a position of their own",
                )
            )
        first = len(self.special_tokens) - self.num_oov_indices
        # A sum that is the same in every run, unlike Python's own hash of strings.
        return first + sum(str(token).encode()) % self.num_oov_indices

    def encode(self, numbers: Any) -> Any:
        """Positions in the form that `output_mode` asks for."""
        if self.output_mode == "int":
            return numbers
        depth = self.vocabulary_size()
        if self.pad_to_max_tokens and self.max_tokens is not None:
            depth = self.max_tokens
        mode = "count" if self.output_mode == "tf_idf" else self.output_mode
        vectors = encoded(numbers, mode, depth, self.compute_dtype)
        if self.output_mode != "tf_idf":
            return vectors
        weights = self.idf_weights or []
        unknown = float(np.mean(weights)) if weights else 1.0
        whole = [unknown] * len(self.special_tokens) + weights
        whole += [0.0] * (depth - len(whole))
        return vectors * convert(np.asarray(whole), self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        names = (
            *("max_tokens", "num_oov_indices", "mask_token", "oov_token", "invert"),
            *("output_mode", "pad_to_max_tokens", "idf_weights"),
        )
        known = {name: getattr(self, name) for name in names}
        return {**super().get_config(), **known, "vocabulary": self.tokens}


def _batches(data: Any) -> Iterable[Any]:
    """The batches of a data set: one array or list of strings, or what an iterable gives."""
    whole = isinstance(data, (np.ndarray, Tensor, str))
    if whole or (isinstance(data, (list, tuple)) and not isinstance(data[0], np.ndarray)):
        return [data]
    return (batch[0] if isinstance(batch, tuple) else batch for batch in data)


class StringLookup(IndexLookup):
    """Strings as positions in a vocabulary; arguments as for `IndexLookup`.

    >>> layer = StringLookup(vocabulary=["a", "b"])
    >>> layer(np.array(["b", "z", "a"])).numpy().tolist()
    [2, 0, 1]
    """

    def __init__(
        self,
        max_tokens: int | None = None,
        num_oov_indices: int = 1,
        mask_token: str | None = None,
        oov_token: str = UNKNOWN,
        vocabulary: Any = None,
        idf_weights: Any = None,
        invert: bool = False,
        output_mode: str = "int",
        pad_to_max_tokens: bool = False,
        **kwargs: Any,
    ) -> None:
        kwargs.pop("encoding", None)
        super().__init__(
            max_tokens,
            num_oov_indices,
            mask_token,
            oov_token,
            vocabulary,
            idf_weights,
            invert,
            output_mode,
            pad_to_max_tokens,
            **kwargs,
        )


class IntegerLookup(IndexLookup):
    """Integers as positions in a vocabulary; arguments as for `IndexLookup`.

    >>> IntegerLookup(vocabulary=[10, 20])(np.array([20, 7, 10])).numpy().tolist()
    [2, 0, 1]
    """

    def __init__(
        self,
        max_tokens: int | None = None,
        num_oov_indices: int = 1,
        mask_token: int | None = None,
        oov_token: int = -1,
        vocabulary: Any = None,
        idf_weights: Any = None,
        invert: bool = False,
        output_mode: str = "int",
        pad_to_max_tokens: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            max_tokens,
            num_oov_indices,
            mask_token,
            oov_token,
            vocabulary,
            idf_weights,
            invert,
            output_mode,
            pad_to_max_tokens,
            **kwargs,
        )

    def plain(self, token: Any) -> Any:
        return int(token)

    def numbers(self, inputs: Any) -> Any:
        if self.num_oov_indices > 1:
            return super().numbers(inputs)
        x = ops.cast(inputs, "int64")
        special = len(self.special_tokens)
        tokens = np.asarray(self.tokens, np.int64)
        order = np.argsort(tokens)
        place = ops.searchsorted(tokens[order], x)
        place = ops.minimum(place, max(len(tokens) - 1, 0))
        known = ops.equal(ops.take(convert(tokens[order]), place), x)
        unknown = special - 1 if self.num_oov_indices else -1
        found = ops.where(known, ops.take(convert(order + special), place), unknown)
        if self.mask_token is not None:
            masked = 0 if self.output_mode == "int" else -1
            found = ops.where(ops.equal(x, self.mask_token), masked, found)
        return found


class TextVectorization(StringLookup):
    """Texts as sequences of word numbers, or as one vector each.

    standardize              "lower_and_strip_punctuation", "lower", "strip_punctuation", None, or
                             a function of a string
    split                    "whitespace", "character", None, or a function of a string
    ngrams                   n: all runs of 1 to n words, joined by blanks; or the wanted lengths
    output_sequence_length   cut and fill every text to this many words; 0 fills
    The other arguments are those of `IndexLookup`.

    >>> layer = TextVectorization(vocabulary=["good", "bad"])
    >>> layer(["Good, good day!", "bad"]).numpy().tolist()
    [[2, 2, 1], [3, 0, 0]]
    """

    def __init__(
        self,
        max_tokens: int | None = None,
        standardize: Any = "lower_and_strip_punctuation",
        split: Any = "whitespace",
        ngrams: int | Sequence[int] | None = None,
        output_mode: str = "int",
        output_sequence_length: int | None = None,
        pad_to_max_tokens: bool = False,
        vocabulary: Any = None,
        idf_weights: Any = None,
        **kwargs: Any,
    ) -> None:
        kwargs.pop("ragged", None)
        for what, given, allowed in (
            ("standardize", standardize, STANDARDS),
            ("split", split, SPLITS),
        ):
            if given not in allowed and not callable(given):
                raise ValueError(
                    f"TextVectorization: {what} is one of {allowed} or a function, got {given!r}."
                )
        self.standardize = standardize
        self.split = split
        self.ngrams = ngrams
        self.output_sequence_length = output_sequence_length
        super().__init__(
            max_tokens,
            1,
            "",
            UNKNOWN,
            vocabulary,
            idf_weights,
            False,
            output_mode,
            pad_to_max_tokens,
            **kwargs,
        )

    def words(self, text: str) -> list[str]:
        """The tokens of one text."""
        if callable(self.standardize):
            text = self.standardize(text)
        elif self.standardize is not None:
            text = text.lower() if "lower" in self.standardize else text
            text = _PUNCTUATION.sub("", text) if "strip" in self.standardize else text
        if callable(self.split):
            parts = list(self.split(text))
        elif self.split == "whitespace":
            parts = text.split()
        else:
            parts = list(text) if self.split == "character" else [text]
        if self.ngrams is None:
            return parts
        lengths = range(1, self.ngrams + 1) if isinstance(self.ngrams, int) else self.ngrams
        return [
            " ".join(parts[start : start + length])
            for length in lengths
            for start in range(len(parts) - length + 1)
        ]

    def rows_of(self, batch: Any) -> Iterable[list[Any]]:
        return (self.words(str(self.plain(text))) for text in np.asarray(batch).ravel())

    def call(self, inputs: Any) -> Any:
        if self.tokens is None:
            raise ValueError(f"{self.name}: there is no vocabulary yet; call adapt(data) first.")
        single = isinstance(inputs, (str, bytes)) or not np.ndim(inputs)
        rows = [[self._number(word) for word in row] for row in self.rows_of(inputs)]
        length = self.output_sequence_length if self.output_mode == "int" else None
        if length is None:
            length = max(map(len, rows), default=0)
        filled = np.full((len(rows), length), 0 if self.output_mode == "int" else -1, np.int64)
        for place, row in enumerate(rows):
            filled[place, : len(row)] = row[:length]
        result = self.encode(convert(filled))
        return result[0] if single else result

    def get_config(self) -> dict[str, Any]:
        known = super().get_config()
        for name in ("num_oov_indices", "mask_token", "oov_token", "invert"):
            del known[name]
        given: dict[str, Any] = {"standardize": self.standardize, "split": self.split}
        named = {k: serialize_keras_object(v) if callable(v) else v for k, v in given.items()}
        names = ("ngrams", "output_sequence_length")
        return {**known, **named, **{name: getattr(self, name) for name in names}}

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None
    ) -> Any:
        config = dict(config)
        for name in ("standardize", "split"):
            if isinstance(config.get(name), dict):
                config[name] = deserialize_keras_object(config[name], custom_objects)
        return cls(**config)
