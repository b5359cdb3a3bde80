"""Learning rates that depend on the step.

A schedule maps the number of finished steps, a tensor, to a rate. Inside a compiled step that
number is state, so that no new rate ever compiles anything again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from lamina import config, ops
from lamina.serialization import deserialize_keras_object, serialize_keras_object
from lamina.tensor import convert


class LearningRateSchedule:
    """Base of schedules: `__call__(step)` gives the rate of a step, counted from 0.

    >>> class Half(LearningRateSchedule):
    ...     def __call__(self, step):
    ...         return 0.1 * 0.5 ** ops.cast(step, "float32")
    """

    def __call__(self, step: Any) -> Any:
        """The rate for `step`, an integer tensor."""
        raise NotImplementedError(f"{type(self).__name__} has no __call__(step).")

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        raise NotImplementedError(
            f"{type(self).__name__} has no get_config(), which saving a model needs."
        )

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> LearningRateSchedule:
        return cls(**config)


def _positive(schedule: Any, name: str, value: float) -> None:
    if value <= 0:
        raise ValueError(f"{type(schedule).__name__}: {name} is greater than 0, got {value}.")


def _number(step: Any) -> Any:
    return convert(step, config.floatx())


class ExponentialDecay(LearningRateSchedule):
    """`initial_learning_rate * decay_rate ^ (step / decay_steps)`.

    staircase   take the whole part of the exponent, so that the rate falls in steps
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: float,
        decay_rate: float,
        staircase: bool = False,
        name: str = "ExponentialDecay",
    ) -> None:
        _positive(self, "decay_steps", decay_steps)
        self.initial_learning_rate = initial_learning_rate
        self.decay_steps = decay_steps
        self.decay_rate = decay_rate
        self.staircase = staircase
        self.name = name

    def __call__(self, step: Any) -> Any:
        exponent = _number(step) / self.decay_steps
        if self.staircase:
            exponent = ops.floor(exponent)
        return self.initial_learning_rate * ops.power(self.decay_rate, exponent)

    def get_config(self) -> dict[str, Any]:
        return {
            "initial_learning_rate": self.initial_learning_rate,
            "decay_steps": self.decay_steps,
            "decay_rate": self.decay_rate,
            "staircase": self.staircase,
            "name": self.name,
        }


class InverseTimeDecay(LearningRateSchedule):
    """`initial_learning_rate / (1 + decay_rate * step / decay_steps)`; `staircase` as above."""

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: float,
        decay_rate: float,
        staircase: bool = False,
        name: str = "InverseTimeDecay",
    ) -> None:
        _positive(self, "decay_steps", decay_steps)
        self.initial_learning_rate = initial_learning_rate
        self.decay_steps = decay_steps
        self.decay_rate = decay_rate
        self.staircase = staircase
        self.name = name

    def __call__(self, step: Any) -> Any:
        done = _number(step) / self.decay_steps
        if self.staircase:
            done = ops.floor(done)
        return self.initial_learning_rate / (1.0 + self.decay_rate * done)

    def get_config(self) -> dict[str, Any]:
        return {
            "initial_learning_rate": self.initial_learning_rate,
            "decay_steps": self.decay_steps,
            "decay_rate": self.decay_rate,
            "staircase": self.staircase,
            "name": self.name,
        }


class PiecewiseConstantDecay(LearningRateSchedule):
    """`values[i]` up to and including step `boundaries[i]`, the last value afterwards."""

    def __init__(
        self,
        boundaries: Sequence[float],
        values: Sequence[float],
        name: str = "PiecewiseConstant",
    ) -> None:
        if len(boundaries) != len(values) - 1:
            raise ValueError(
                f"PiecewiseConstantDecay: {len(boundaries)} boundaries need "
                f"{len(boundaries) + 1} values, got {len(values)}."
            )
        self.boundaries = list(boundaries)
        self.values = list(values)
        self.name = name

    def __call__(self, step: Any) -> Any:
        step = convert(step)
        rate = convert(self.values[-1], config.floatx())
        for boundary, value in zip(
            reversed(self.boundaries), reversed(self.values[:-1]), strict=True
        ):
            rate = ops.where(step <= boundary, float(value), rate)
        return rate

    def get_config(self) -> dict[str, Any]:
        return {"boundaries": self.boundaries, "values": self.values, "name": self.name}


class PolynomialDecay(LearningRateSchedule):
    """From the initial to the end rate as `(1 - step / decay_steps) ^ power`.

    cycle   begin anew, each time over a longer stretch, instead of staying at the end rate
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: float,
        end_learning_rate: float = 0.0001,
        power: float = 1.0,
        cycle: bool = False,
        name: str = "PolynomialDecay",
    ) -> None:
        _positive(self, "decay_steps", decay_steps)
        self.initial_learning_rate = initial_learning_rate
        self.decay_steps = decay_steps
        self.end_learning_rate = end_learning_rate
        self.power = power
        self.cycle = cycle
        self.name = name

    def __call__(self, step: Any) -> Any:
        step = _number(step)
        stretch: Any = float(self.decay_steps)
        if self.cycle:
            stretch = stretch * ops.maximum(ops.ceil(step / stretch), 1.0)
        else:
            step = ops.minimum(step, stretch)
        span = self.initial_learning_rate - self.end_learning_rate
        return span * ops.power(1.0 - step / stretch, float(self.power)) + self.end_learning_rate

    def get_config(self) -> dict[str, Any]:
        return {
            "initial_learning_rate": self.initial_learning_rate,
            "decay_steps": self.decay_steps,
            "end_learning_rate": self.end_learning_rate,
            "power": self.power,
            "cycle": self.cycle,
            "name": self.name,
        }


class CosineDecay(LearningRateSchedule):
    """Half a cosine from the initial rate down to `alpha` times it (Loshchilov & Hutter 2017).

    warmup_target, warmup_steps   first a straight line from the initial rate to `warmup_target`,
                                  from which the cosine then falls
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: float,
        alpha: float = 0.0,
        name: str = "CosineDecay",
        warmup_target: float | None = None,
        warmup_steps: float = 0,
    ) -> None:
        _positive(self, "decay_steps", decay_steps)
        self.initial_learning_rate = initial_learning_rate
        self.decay_steps = decay_steps
        self.alpha = alpha
        self.name = name
        self.warmup_target = warmup_target
        self.warmup_steps = warmup_steps

    def __call__(self, step: Any) -> Any:
        step = _number(step)
        if self.warmup_target is None:
            return self._fall(step, self.initial_learning_rate)
        fall = self._fall(ops.maximum(step - self.warmup_steps, 0.0), self.warmup_target)
        if not self.warmup_steps:
            return fall
        rise = (self.warmup_target - self.initial_learning_rate) * (step / self.warmup_steps)
        return ops.where(step < self.warmup_steps, rise + self.initial_learning_rate, fall)

    def _fall(self, step: Any, highest: float) -> Any:
        done = ops.minimum(step, float(self.decay_steps)) / self.decay_steps
        wave = 0.5 * (1.0 + ops.cos(math.pi * done))
        return highest * ((1.0 - self.alpha) * wave + self.alpha)

    def get_config(self) -> dict[str, Any]:
        return {
            "initial_learning_rate": self.initial_learning_rate,
            "decay_steps": self.decay_steps,
            "alpha": self.alpha,
            "name": self.name,
            "warmup_target": self.warmup_target,
            "warmup_steps": self.warmup_steps,
        }


class CosineDecayRestarts(LearningRateSchedule):
    """Cosine decay that begins anew (Loshchilov & Hutter 2017).

    first_decay_steps   length of the first period
    t_mul, m_mul        factors of length and height from one period to the next
    alpha               lowest rate as a share of the initial one
    """

    def __init__(
        self,
        initial_learning_rate: float,
        first_decay_steps: float,
        t_mul: float = 2.0,
        m_mul: float = 1.0,
        alpha: float = 0.0,
        name: str = "SGDRDecay",
    ) -> None:
        _positive(self, "first_decay_steps", first_decay_steps)
        self.initial_learning_rate = initial_learning_rate
        self.first_decay_steps = first_decay_steps
        self.t_mul = t_mul
        self.m_mul = m_mul
        self.alpha = alpha
        self.name = name

    def __call__(self, step: Any) -> Any:
        done = _number(step) / self.first_decay_steps
        if self.t_mul == 1.0:
            restarts = ops.floor(done)
            done = done - restarts
        else:
            # The periods are a geometric series with the factor t_mul.
            t_mul = float(self.t_mul)
            restarts = ops.floor(ops.log(1.0 - done * (1.0 - t_mul)) / math.log(t_mul))
            length = ops.power(t_mul, restarts)
            done = (done - (1.0 - length) / (1.0 - t_mul)) / length
        height = ops.power(float(self.m_mul), restarts)
        wave = 0.5 * height * (1.0 + ops.cos(math.pi * done))
        return self.initial_learning_rate * ((1.0 - self.alpha) * wave + self.alpha)

    def get_config(self) -> dict[str, Any]:
        return {
            "initial_learning_rate": self.initial_learning_rate,
            "first_decay_steps": self.first_decay_steps,
            "t_mul": self.t_mul,
            "m_mul": self.m_mul,
            "alpha": self.alpha,
            "name": self.name,
        }


def serialize(learning_rate_schedule: LearningRateSchedule) -> dict[str, Any]:
    """The schedule as plain data."""
    data: dict[str, Any] = serialize_keras_object(learning_rate_schedule)
    return data


def deserialize(config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> Any:
    """The schedule that `serialize` wrote."""
    return deserialize_keras_object(config, custom_objects, within="keras.optimizers.schedules")
