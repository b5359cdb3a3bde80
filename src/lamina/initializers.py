"""First values of weights.

Random values are a function of the seed alone: Philox-4x64-10 (Salmon et al. 2011) with the seed
as key and its counter at zero gives 64-bit words w; u = (w >> 11) 2^-53 is uniform on [0, 1).
Normal values are Box and Muller's (1958) from pairs of them, truncated ones the normal values
inside two standard deviations, in order. So one seed gives one set of weights on every machine,
executor and number of threads, and for every later version of NumPy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from lamina import config
from lamina.errors import ShapeError, layout
from lamina.naming import by_both_names, resolve
from lamina.random import make_default_seed
from lamina.serialization import deserialize_keras_object, serialize_keras_object
from lamina.tensor import Tensor, convert
from lamina.types import numpy_dtype

Array = NDArray[Any]
Floats = NDArray[np.float64]

# The standard deviation of a standard normal value that is truncated at two deviations.
TRUNCATED_DEVIATION = 0.87962566103423978


class Initializer:
    """Base: `__call__(shape, dtype=None)` gives the first value of a weight.

    lamina's own override `array`, which gives a NumPy array; a subclass of yours may override
    `__call__` instead and use `lamina.ops` and `lamina.random`, as in Keras.

    >>> class Ramp(Initializer):
    ...     def array(self, shape):
    ...         return np.linspace(0.0, 1.0, math.prod(shape)).reshape(shape)
    >>> Ramp()((3,)).numpy().tolist()
    [0.0, 0.5, 1.0]
    """

    def __call__(self, shape: Sequence[int], dtype: str | None = None) -> Any:
        """A tensor of that shape; `dtype` is `config.floatx()` if it is not given."""
        values = self.array(tuple(int(size) for size in shape))
        return convert(np.array(values, numpy_dtype(dtype or config.floatx()), order="C"))

    def array(self, shape: tuple[int, ...]) -> Array:
        """The values in double precision."""
        raise NotImplementedError(f"{type(self).__name__} overrides neither __call__ nor array.")

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Initializer:
        return cls(**config)

    def clone(self) -> Initializer:
        """Another one with the same arguments: without a seed, it draws other values."""
        return type(self).from_config(self.get_config())


# ------------------------------------------------------------------------------- constants


class Constant(Initializer):
    """`value` everywhere; an array is broadcast to the shape of the weight."""

    def __init__(self, value: Any = 0.0) -> None:
        self.value = value

    def array(self, shape: tuple[int, ...]) -> Array:
        return np.broadcast_to(np.asarray(self.value), shape)

    def get_config(self) -> dict[str, Any]:
        return {"value": np.asarray(self.value).tolist()}


class Zeros(Initializer):
    """0 everywhere."""

    def array(self, shape: tuple[int, ...]) -> Array:
        return np.zeros(shape)


class Ones(Initializer):
    """1 everywhere."""

    def array(self, shape: tuple[int, ...]) -> Array:
        return np.ones(shape)


class Identity(Initializer):
    """`gain` on the diagonal of a matrix, 0 elsewhere."""

    def __init__(self, gain: float = 1.0) -> None:
        self.gain = gain

    def array(self, shape: tuple[int, ...]) -> Array:
        if len(shape) != 2:
            raise ShapeError(
                layout(
                    f"Identity: expected a matrix, got {len(shape)} axes.",
                    [("shape", str(shape))],
                )
            )
        return self.gain * np.eye(*shape)

    def get_config(self) -> dict[str, Any]:
        return {"gain": self.gain}


# ---------------------------------------------------------------------------------- random


class RandomInitializer(Initializer):
    """Base of the random ones.

    seed   an integer (every call gives the same values), a `lamina.random.SeedGenerator` (every
           call gives others), or None: then one that follows from
           `lamina.utils.set_random_seed`
    """

    def __init__(self, seed: Any = None) -> None:
        self._given_seed = seed
        if isinstance(seed, dict):
            seed = deserialize_keras_object(seed)
        if seed is None:
            seed = make_default_seed()
        elif isinstance(seed, np.integer):
            seed = int(seed)
        elif not isinstance(seed, int) and not hasattr(seed, "next"):
            raise TypeError(
                f"{type(self).__name__}: seed is an integer or a SeedGenerator, "
                f"got {type(seed).__name__}."
            )
        self.seed = seed

    def uniform_values(self, count: int) -> Floats:
        """`count` values in [0, 1)."""
        values: Floats = self._stream()(count)
        return values

    def normal_values(self, count: int, *, truncated: bool = False) -> Floats:
        """`count` standard normal values; truncated ones lie in (-2, 2)."""
        draw = self._stream()
        found: list[Floats] = []
        missing = count
        while missing > 0:
            # About 4.6 % are rejected, so that one round more is rare.
            wanted = missing + (missing // 10 + 8 if truncated else 0)
            values = _box_muller(draw(2 * ((wanted + 1) // 2)))[:wanted]
            if truncated:
                values = values[np.abs(values) < 2.0][:missing]
            found.append(values)
            missing -= len(values)
        return np.concatenate(found) if found else np.empty(0)

    def _stream(self) -> Any:
        key = self.seed if isinstance(self.seed, int) else _key_of(self.seed.next())
        generator = np.random.Philox(key=key % 2**64)

        def draw(count: int) -> Floats:
            words = np.asarray(generator.random_raw(count), np.uint64)
            return np.asarray((words >> np.uint64(11)) * 2.0**-53, np.float64)

        return draw

    def get_config(self) -> dict[str, Any]:
        seed = self._given_seed
        return {"seed": seed if isinstance(seed, dict) else serialize_keras_object(seed)}


def _key_of(state: Any) -> int:
    words = np.asarray(state.numpy() if isinstance(state, Tensor) else state).ravel()
    return sum(int(word) << (32 * place) for place, word in enumerate(words[:2]))


def _box_muller(uniform: Floats) -> Floats:
    """Two normal values for each two uniform ones."""
    radius = np.sqrt(-2.0 * np.log1p(-uniform[0::2]))
    angle = 2.0 * np.pi * uniform[1::2]
    values: Floats = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).ravel()
    return values


class RandomNormal(RandomInitializer):
    """Normal values of the given mean and standard deviation."""

    def __init__(self, mean: float = 0.0, stddev: float = 0.05, seed: Any = None) -> None:
        self.mean = mean
        self.stddev = stddev
        super().__init__(seed=seed)

    def array(self, shape: tuple[int, ...]) -> Array:
        return self.mean + self.stddev * self.normal_values(math.prod(shape)).reshape(shape)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "mean": self.mean, "stddev": self.stddev}


class TruncatedNormal(RandomNormal):
    """Normal values, those beyond two standard deviations drawn again.

    `stddev` is that of the values before the truncation.
    """

    def array(self, shape: tuple[int, ...]) -> Array:
        values = self.normal_values(math.prod(shape), truncated=True)
        return self.mean + self.stddev * values.reshape(shape)


class RandomUniform(RandomInitializer):
    """Values spread evenly over [minval, maxval)."""

    def __init__(self, minval: float = -0.05, maxval: float = 0.05, seed: Any = None) -> None:
        self.minval = minval
        self.maxval = maxval
        super().__init__(seed=seed)

    def array(self, shape: tuple[int, ...]) -> Array:
        unit = self.uniform_values(math.prod(shape)).reshape(shape)
        return self.minval + (self.maxval - self.minval) * unit

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "minval": self.minval, "maxval": self.maxval}


class VarianceScaling(RandomInitializer):
    """Values whose variance is `scale / n`, n from the shape of the weight.

    mode           "fan_in" (inputs of a unit), "fan_out" (outputs), "fan_avg" (their mean)
    distribution   "truncated_normal" ("normal" means the same), "untruncated_normal", "uniform"
    input_axes, output_axes
                   the axes whose product is fan in and fan out, where the usual rule (the last
                   two axes, times the sizes of a convolution's window) does not fit
    """

    MODES: ClassVar[tuple[str, ...]] = ("fan_in", "fan_out", "fan_avg")
    DISTRIBUTIONS: ClassVar[tuple[str, ...]] = ("uniform", "truncated_normal", "untruncated_normal")

    def __init__(
        self,
        scale: float = 1.0,
        mode: str = "fan_in",
        distribution: str = "truncated_normal",
        seed: Any = None,
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
    ) -> None:
        distribution = distribution.lower()
        distribution = "truncated_normal" if distribution == "normal" else distribution
        if scale <= 0.0:
            raise ValueError(f"VarianceScaling: scale is a positive number, got {scale}.")
        if mode not in self.MODES:
            raise ValueError(f"VarianceScaling: mode is one of {self.MODES}, got {mode!r}.")
        if distribution not in self.DISTRIBUTIONS:
            raise ValueError(
                f"VarianceScaling: distribution is one of {self.DISTRIBUTIONS}, "
                f"got {distribution!r}."
            )
        self.scale = scale
        self.mode = mode
        self.distribution = distribution
        self.input_axes = input_axes
        self.output_axes = output_axes
        super().__init__(seed=seed)

    def array(self, shape: tuple[int, ...]) -> Array:
        fan_in, fan_out = compute_fans(shape, self.input_axes, self.output_axes)
        fans = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2.0}
        variance = self.scale / max(1.0, fans[self.mode])
        count = math.prod(shape)
        if self.distribution == "uniform":
            limit = math.sqrt(3.0 * variance)
            values = limit * (2.0 * self.uniform_values(count) - 1.0)
        elif self.distribution == "truncated_normal":
            deviation = math.sqrt(variance) / TRUNCATED_DEVIATION
            values = deviation * self.normal_values(count, truncated=True)
        else:
            values = math.sqrt(variance) * self.normal_values(count)
        return values.reshape(shape)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "scale": self.scale,
            "mode": self.mode,
            "distribution": self.distribution,
            "input_axes": self.input_axes,
            "output_axes": self.output_axes,
        }


def compute_fans(
    shape: Sequence[int],
    input_axes: Sequence[int] | None = None,
    output_axes: Sequence[int] | None = None,
) -> tuple[int, int]:
    """(inputs, outputs) of one unit of a weight of this shape.

    >>> compute_fans((3, 3, 16, 32)), compute_fans((784, 10)), compute_fans((7,))
    ((144, 288), (784, 10), (7, 7))
    """
    if input_axes is not None and output_axes is not None:
        fan_in, fan_out = (
            math.prod(shape[axis] for axis in axes) for axes in (input_axes, output_axes)
        )
        return fan_in, fan_out
    if len(shape) < 2:
        size = math.prod(shape)
        return size, size
    window = math.prod(shape[:-2])
    return shape[-2] * window, shape[-1] * window


class _Scaled(VarianceScaling):
    """A `VarianceScaling` of fixed scale, mode and distribution."""

    RULE: ClassVar[tuple[float, str, str]]

    def __init__(
        self,
        seed: Any = None,
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
    ) -> None:
        scale, mode, distribution = self.RULE
        super().__init__(scale, mode, distribution, seed, input_axes, output_axes)

    def get_config(self) -> dict[str, Any]:
        known = super().get_config()
        return {name: known[name] for name in ("seed", "input_axes", "output_axes")}


class GlorotUniform(_Scaled):
    """Uniform, variance 2 / (fan in + fan out) (Glorot & Bengio 2010)."""

    RULE = (1.0, "fan_avg", "uniform")


class GlorotNormal(_Scaled):
    """Truncated normal, variance 2 / (fan in + fan out) (Glorot & Bengio 2010)."""

    RULE = (1.0, "fan_avg", "truncated_normal")


class LecunNormal(_Scaled):
    """Truncated normal, variance 1 / fan in (LeCun et al. 1998)."""

    RULE = (1.0, "fan_in", "truncated_normal")


class LecunUniform(_Scaled):
    """Uniform, variance 1 / fan in (LeCun et al. 1998)."""

    RULE = (1.0, "fan_in", "uniform")


class HeNormal(_Scaled):
    """Truncated normal, variance 2 / fan in (He et al. 2015)."""

    RULE = (2.0, "fan_in", "truncated_normal")


class HeUniform(_Scaled):
    """Uniform, variance 2 / fan in (He et al. 2015)."""

    RULE = (2.0, "fan_in", "uniform")


class Orthogonal(RandomInitializer):
    """A matrix with orthonormal rows or columns, times `gain` (Saxe et al. 2014).

    A weight of more axes is that matrix with all but the last axis as its rows. The matrix is Q
    of a normal matrix's QR decomposition, its signs fixed by the diagonal of R, so that it is
    spread evenly over all of them (Mezzadri 2007).
    """

    def __init__(self, gain: float = 1.0, seed: Any = None) -> None:
        self.gain = gain
        super().__init__(seed=seed)

    def array(self, shape: tuple[int, ...]) -> Array:
        if len(shape) < 2:
            raise ShapeError(
                layout(
                    f"Orthogonal: expected two axes or more, got {len(shape)}.",
                    [("shape", str(shape))],
                )
            )
        rows, columns = math.prod(shape[:-1]), shape[-1]
        tall = (max(rows, columns), min(rows, columns))
        q, r = np.linalg.qr(self.normal_values(rows * columns).reshape(tall))
        q = q * np.sign(np.diagonal(r))
        return np.asarray(self.gain * (q.T if rows < columns else q).reshape(shape))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "gain": self.gain}


# ----------------------------------------------------------------------------------- names

constant = Constant
zeros = Zeros
ones = Ones
identity = IdentityInitializer = Identity
random_normal = RandomNormal
truncated_normal = TruncatedNormal
random_uniform = RandomUniform
variance_scaling = VarianceScaling
glorot_uniform = GlorotUniform
glorot_normal = GlorotNormal
lecun_normal = LecunNormal
lecun_uniform = LecunUniform
he_normal = HeNormal
he_uniform = HeUniform
orthogonal = OrthogonalInitializer = Orthogonal

OBJECTS: dict[str, Any] = {
    **by_both_names(
        *(Initializer, Constant, Zeros, Ones, Identity, RandomNormal, TruncatedNormal),
        *(RandomUniform, VarianceScaling, GlorotUniform, GlorotNormal, LecunNormal),
        *(LecunUniform, HeNormal, HeUniform, Orthogonal),
    ),
    "IdentityInitializer": Identity,
    "OrthogonalInitializer": Orthogonal,
    "normal": RandomNormal,
    "uniform": RandomUniform,
    "one": Ones,
    "zero": Zeros,
}


def get(identifier: Any) -> Any:
    """An initializer from a string, a configuration, a class, a callable, or an array.

    >>> get("he_normal").scale
    2.0
    """
    if isinstance(identifier, (np.ndarray, np.generic, Tensor)):
        return _given(identifier)
    return resolve(identifier, OBJECTS, "initializer", "keras.initializers")


def _given(values: Any) -> Any:
    """An initializer that gives this array, and refuses any other shape."""

    def initializer(shape: Sequence[int], dtype: str | None = None) -> Any:
        if tuple(shape) != tuple(values.shape):
            raise ShapeError(
                layout(
                    "initializer: the array that was given has another shape than the weight.",
                    [("array", str(tuple(values.shape))), ("weight", str(tuple(shape)))],
                )
            )
        return convert(values, dtype)

    return initializer


def serialize(initializer: Any) -> dict[str, Any]:
    """The initializer as plain data."""
    data: dict[str, Any] = serialize_keras_object(initializer)
    return data


def deserialize(config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> Any:
    """The initializer that `serialize` wrote."""
    return deserialize_keras_object(config, custom_objects, within="keras.initializers")
