"""Random tensors from counter-based bits: the same seed gives the same numbers everywhere.

A `SeedGenerator` holds a key in a Variable. Outside a trace every draw uses the key and then
advances it. Inside a trace every draw takes a site number, in the order of the draws, and the
step advances the key once: so a compiled step draws new numbers each time it runs, on every
executor the same, and a dropout mask is computed again in the backward pass instead of stored.
"""

from __future__ import annotations

import math
import random as python_random
from collections.abc import Sequence
from typing import Any

import numpy as np

from lamina import config, ops
from lamina.errors import DtypeError, ShapeError
from lamina.ir import elementary, movement
from lamina.ir import random as bits
from lamina.ir.graph import Node, constant
from lamina.locks import process_lock
from lamina.ops.creation import as_shape
from lamina.ops.sorting import shuffled_positions
from lamina.tensor import Tensor, Variable, as_dtype, cast, convert, operands, values
from lamina.types import FLOATS

# One step of the key: 1 in the first word, 2^16 in the second, which leaves 2^16 sites a step.
_STRIDE = 1 << 16
_MASK = (1 << 64) - 1

_seeds = python_random.Random()
_lock = process_lock()


def set_seed(seed: int) -> None:
    """Begin lamina's own random numbers anew; `lamina.utils.set_random_seed` calls this."""
    _seeds.seed(int(seed))
    with _lock:
        _shared.clear()


def make_default_seed() -> int:
    """A seed for an object that was given none: follows from `set_seed`."""
    with _lock:
        return _seeds.randint(1, 2**31 - 1)


def key_of(seed: int) -> np.ndarray:
    """The key uint32 (2,) that a seed stands for (splitmix64: Steele, Lea & Flood 2014)."""
    state = (int(seed) + 0x9E3779B97F4A7C15) & _MASK
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
    state ^= state >> 31
    return np.array([state >> 32, state & 0xFFFFFFFF], np.uint32)


class SeedGenerator:
    """A source of randomness with a state of its own.

    seed   an integer, or None for one that follows from `lamina.utils.set_random_seed`

    >>> generator = SeedGenerator(1)
    >>> float(uniform((), seed=generator)) != float(uniform((), seed=generator))
    True
    """

    def __init__(self, seed: int | None = None, name: str | None = None) -> None:
        if seed is not None and not isinstance(seed, (int, np.integer)):
            raise ValueError(f"a seed is an integer or None, got {type(seed).__name__}")
        self.name = name or "seed_generator"
        self._initial_seed = None if seed is None else int(seed)
        self.seed = make_default_seed() if seed is None else int(seed)
        self.state = Variable(
            key_of(self.seed), dtype="uint32", trainable=False, name="seed_generator_state"
        )

    def next(self, ordered: bool = True) -> Tensor:
        """The key of the next draw, uint32 (2,)."""
        key, site = self._draw()
        return Tensor(key) if not site else _mixed(key, site)

    def _draw(self) -> tuple[Node, int]:
        key = self.state.node
        trace = values.active_trace.get()
        if trace is None:
            self.state.assign(Tensor(_advanced(key)))
            return key, 0
        first = trace.first_key(self.state)
        site = trace.next_site(self.state)
        if not site:
            self.state.assign(Tensor(_advanced(first)))
        return first, site

    def get_config(self) -> dict[str, Any]:
        return {"seed": self._initial_seed}

    @classmethod
    def from_config(cls, settings: dict[str, Any]) -> SeedGenerator:
        return cls(**settings)


def _advanced(key: Node) -> Node:
    """The key of the next step: (k0 + 1, k1 + 2^16)."""
    place = movement.iota((2,), 0, "uint32")
    step = Tensor(place) * (_STRIDE - 1) + 1
    return elementary.map_("add", key, step.node)


def _mixed(key: Node, site: int) -> Tensor:
    place = Tensor(movement.iota((2,), 0, "uint32"))
    return Tensor(key) ^ (place * site)


_shared: dict[str, SeedGenerator] = {}


def global_generator() -> SeedGenerator:
    """The generator of draws without a seed; `set_seed` begins it anew."""
    with _lock:
        known = _shared.get("generator")
    if known is not None:
        return known
    made = SeedGenerator(name="global_seed_generator")
    with _lock:
        return _shared.setdefault("generator", made)


def draw_key(seed: Any) -> tuple[Node, int]:
    """(key, site) of one draw from a generator, an integer (always the same draw) or None."""
    if seed is None:
        seed = global_generator()
    if isinstance(seed, SeedGenerator):
        return seed._draw()
    if isinstance(seed, (Tensor, Variable)):
        return cast(seed, "uint32").node, 0
    if isinstance(seed, (int, np.integer)):
        return values.leaf(key_of(int(seed)), "seed"), 0
    raise ValueError(f"a seed is an integer, a SeedGenerator or None, got {type(seed).__name__}")


def _float_dtype(dtype: Any) -> str:
    name = as_dtype(dtype)
    if name not in FLOATS:
        raise DtypeError(f"random numbers of this kind are floats, not {name}")
    return name


def uniform(
    shape: Any, minval: Any = 0.0, maxval: Any = 1.0, dtype: Any = None, seed: Any = None
) -> Tensor:
    """Evenly distributed in [minval, maxval)."""
    name = _float_dtype(dtype)
    key, site = draw_key(seed)
    drawn = Tensor(bits.uniform(key, as_shape(shape), site, name))
    if _is_number(minval, 0) and _is_number(maxval, 1):
        return drawn
    low = cast(minval, name)
    return drawn * (cast(maxval, name) - low) + low


def _is_number(value: Any, number: float) -> bool:
    return isinstance(value, (int, float)) and value == number


def _open_uniform(shape: Any, seed: Any, dtype: str) -> Tensor:
    """Evenly distributed in (-1, 1), symmetric, without either end: odd multiples of 2^-23."""
    key, site = draw_key(seed)
    drawn = Tensor(bits.random_bits(key, as_shape(shape), site))
    wide = "float64" if dtype == "float64" else "float32"
    steps = cast(drawn >> 9, wide)
    return steps * 2.0**-22 + (2.0**-23 - 1.0)


def normal(
    shape: Any, mean: Any = 0.0, stddev: Any = 1.0, dtype: Any = None, seed: Any = None
) -> Tensor:
    """Normally distributed, by the inverse of the distribution function."""
    name = _float_dtype(dtype)
    unit = ops.erfinv(_open_uniform(shape, seed, name)) * math.sqrt(2.0)
    return _shifted(cast(unit, name), mean, stddev)


def _shifted(unit: Tensor, mean: Any, stddev: Any) -> Tensor:
    scaled = unit if _is_number(stddev, 1) else unit * cast(stddev, unit.dtype)
    return scaled if _is_number(mean, 0) else scaled + cast(mean, unit.dtype)


def truncated_normal(
    shape: Any, mean: Any = 0.0, stddev: Any = 1.0, dtype: Any = None, seed: Any = None
) -> Tensor:
    """Normally distributed, but within two standard deviations of the mean."""
    name = _float_dtype(dtype)
    reach = math.erf(math.sqrt(2.0))
    unit = ops.erfinv(_open_uniform(shape, seed, name) * reach) * math.sqrt(2.0)
    return _shifted(cast(ops.clip(unit, -2.0, 2.0), name), mean, stddev)


def randint(shape: Any, minval: Any, maxval: Any, dtype: Any = "int32", seed: Any = None) -> Tensor:
    """Integers, evenly distributed in [minval, maxval)."""
    name = as_dtype(dtype)
    if name in FLOATS:
        raise DtypeError(f"randint draws integers, not {name}")
    key, site = draw_key(seed)
    drawn = Tensor(bits.random_bits(key, as_shape(shape), site))
    low, high = (Tensor(node) for node in operands(minval, maxval))
    width = cast(high - low, "uint32")
    return cast(drawn % width, name) + cast(low, name)


def bernoulli(shape: Any, probability: float, seed: Any = None) -> Tensor:
    """True with this probability: the mask of dropout."""
    key, site = draw_key(seed)
    drawn = Tensor(bits.random_bits(key, as_shape(shape), site))
    limit = min(int(probability * 2.0**32), 2**32 - 1)
    return drawn < Tensor(constant(limit, "uint32"))


def dropout(inputs: Any, rate: float, noise_shape: Any = None, seed: Any = None) -> Tensor:
    """inputs with a share `rate` of elements set to 0 and the others scaled by 1 / (1 - rate).

    noise_shape   the shape of the mask, which broadcasts (None in it: the size of the inputs)
    """
    tensor = convert(inputs)
    if not 0 <= rate <= 1:
        raise ValueError(f"the rate of dropout lies in [0, 1], got {rate}")
    if rate == 0:
        return tensor
    if rate == 1:
        return tensor * 0
    shape = (
        tensor.shape
        if noise_shape is None
        else tuple(
            here if wanted is None else wanted
            for wanted, here in zip(noise_shape, tensor.shape, strict=True)
        )
    )
    kept = bernoulli(shape, 1.0 - rate, seed)
    return ops.where(kept, tensor * (1.0 / (1.0 - rate)), 0.0)


def categorical(logits: Any, num_samples: int, dtype: Any = "int32", seed: Any = None) -> Tensor:
    """`num_samples` class numbers for each row of logits (B, C), by the Gumbel trick."""
    scores = (
        cast(logits, config.floatx()) if convert(logits).dtype not in FLOATS else convert(logits)
    )
    if scores.ndim != 2:
        raise ShapeError(f"categorical takes logits (batch, classes), got {scores.node.type}")
    rows, classes = scores.shape
    key, site = draw_key(seed)
    drawn = bits.random_bits(key, (rows, int(num_samples), classes), site)
    share = (cast(Tensor(drawn) >> 9, scores.dtype) + 0.5) * 2.0**-23
    noise = -ops.log(-ops.log(share))
    return cast(ops.argmax(ops.expand_dims(scores, 1) + noise, -1), dtype)


def shuffle(x: Any, axis: int = 0, seed: Any = None) -> Tensor:
    """x with its slices along an axis in random order."""
    tensor = convert(x)
    at = axis % tensor.ndim
    key, site = draw_key(seed)
    drawn = Tensor(bits.random_bits(key, (tensor.shape[at],), site))
    return ops.take(tensor, shuffled_positions(drawn), at)


def gamma(shape: Any, alpha: Any, dtype: Any = None, seed: Any = None) -> Tensor:
    """Gamma-distributed with shape parameter alpha and scale 1.

    By rejection (Marsaglia & Tsang 2000), with 16 candidates for each number, of which at least
    one is accepted but for once in 10^20.
    """
    name = _float_dtype(dtype)
    sizes = as_shape(shape)
    a = cast(alpha, name)
    small = a < 1.0
    raised = ops.where(small, a + 1.0, a)
    d = raised - 1.0 / 3.0
    c = 1.0 / ops.sqrt(9.0 * d)
    generator = seed if isinstance(seed, SeedGenerator) else SeedGenerator(seed)
    result = ops.broadcast_to(d, sizes)
    found = ops.zeros(sizes, "bool")
    for _ in range(_CANDIDATES):
        x = normal(sizes, dtype=name, seed=generator)
        u = uniform(sizes, dtype=name, seed=generator)
        v = (1.0 + c * x) ** 3
        held = ops.where(v > 0, v, 1.0)
        good = ops.logical_and(
            v > 0, ops.log(ops.maximum(u, 1e-30)) < 0.5 * x * x + d - d * held + d * ops.log(held)
        )
        result = ops.where(ops.logical_and(good, ~found), d * held, result)
        found = ops.logical_or(found, good)
    boost = uniform(sizes, dtype=name, seed=generator) ** (1.0 / ops.where(small, a, 1.0))
    return ops.where(small, result * boost, result)


_CANDIDATES = 16


def beta(shape: Any, alpha: Any, beta: Any, dtype: Any = None, seed: Any = None) -> Tensor:
    """Beta-distributed in (0, 1): a ratio of two gamma-distributed numbers."""
    generator = seed if isinstance(seed, SeedGenerator) else SeedGenerator(seed)
    one = gamma(shape, alpha, dtype, generator)
    other = gamma(shape, beta, dtype, generator)
    return one / (one + other)


def binomial(
    shape: Any, counts: Any, probabilities: Any, dtype: Any = None, seed: Any = None
) -> Tensor:
    """How many of `counts` trials succeed, each with its probability; counts are known numbers."""
    name = _float_dtype(dtype)
    sizes = as_shape(shape)
    most = int(np.max(convert(counts).numpy()))
    trials = uniform((*sizes, most), dtype=name, seed=seed)
    limit, chance = (
        ops.expand_dims(ops.broadcast_to(cast(value, name), sizes), -1)
        for value in (counts, probabilities)
    )
    number = ops.arange(most, dtype=name)
    return ops.sum(cast(ops.logical_and(trials < chance, number < limit), name), -1)


def permutation(count: int, seed: Any = None) -> Tensor:
    """0 to count - 1 in random order, int32."""
    return shuffle(ops.arange(count), seed=seed)


__all__: Sequence[str] = [
    "SeedGenerator",
    "bernoulli",
    "beta",
    "binomial",
    "categorical",
    "dropout",
    "gamma",
    "global_generator",
    "make_default_seed",
    "normal",
    "permutation",
    "randint",
    "set_seed",
    "shuffle",
    "truncated_normal",
    "uniform",
]
