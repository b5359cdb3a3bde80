"""Lion, which follows the sign of a momentum, and Ftrl, which keeps weights at zero."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

from lamina import initializers, ops
from lamina.optimizers.optimizer import Optimizer, OptimizerOptions
from lamina.tensor import Variable


class Lion(Optimizer):
    """Steps of one size in the direction of the sign of a mixed momentum (Chen et al. 2023)."""

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.99,
        **options: Unpack[OptimizerOptions],
    ) -> None:
        super().__init__(learning_rate, **options)
        if not 0 < beta_1 <= 1:
            raise ValueError(f"Lion: beta_1 is in (0, 1], got {beta_1}.")
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self._momentums: list[Variable] = []

    def build(self, variables: Sequence[Variable]) -> None:
        if self.built:
            return
        super().build(variables)
        self._momentums = self.add_optimizer_variables(variables, "momentum")

    def update_step(self, gradient: Any, variable: Variable, learning_rate: Any) -> None:
        gradient = ops.cast(gradient, variable.dtype)
        momentum = self._momentums[self._get_variable_index(variable)]
        direction = ops.sign(momentum * self.beta_1 + gradient * (1.0 - self.beta_1))
        variable.assign_sub(ops.cast(learning_rate, variable.dtype) * direction)
        momentum.assign(momentum * self.beta_2 + gradient * (1.0 - self.beta_2))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "beta_1": self.beta_1, "beta_2": self.beta_2}


class Ftrl(Optimizer):
    """Follow the regularised leader (McMahan et al. 2013): sparse linear models.

    learning_rate_power    at most 0: how the rate falls with the sum of squared gradients
    initial_accumulator_value
                           first value of that sum
    l1_regularization_strength, l2_regularization_strength
                           penalties on the weights
    l2_shrinkage_regularization_strength
                           a penalty on the size of the weights that is not part of the leader
    beta                   of the paper
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        learning_rate_power: float = -0.5,
        initial_accumulator_value: float = 0.1,
        l1_regularization_strength: float = 0.0,
        l2_regularization_strength: float = 0.0,
        l2_shrinkage_regularization_strength: float = 0.0,
        beta: float = 0.0,
        **options: Unpack[OptimizerOptions],
    ) -> None:
        super().__init__(learning_rate, **options)
        if learning_rate_power > 0.0:
            raise ValueError(f"Ftrl: learning_rate_power is at most 0, got {learning_rate_power}.")
        for name, value in (
            ("initial_accumulator_value", initial_accumulator_value),
            ("l1_regularization_strength", l1_regularization_strength),
            ("l2_regularization_strength", l2_regularization_strength),
            ("l2_shrinkage_regularization_strength", l2_shrinkage_regularization_strength),
        ):
            if value < 0.0:
                raise ValueError(f"Ftrl: {name} is at least 0, got {value}.")
        self.learning_rate_power = learning_rate_power
        self.initial_accumulator_value = initial_accumulator_value
        self.l1_regularization_strength = l1_regularization_strength
        self.l2_regularization_strength = l2_regularization_strength
        self.l2_shrinkage_regularization_strength = l2_shrinkage_regularization_strength
        self.beta = beta
        self._sums: list[Variable] = []
        self._linears: list[Variable] = []

    def build(self, variables: Sequence[Variable]) -> None:
        if self.built:
            return
        super().build(variables)
        start = initializers.Constant(self.initial_accumulator_value)
        self._sums, self._linears = self.add_optimizer_variables(
            variables, ["accumulator", "linear"], [start, "zeros"]
        )

    def update_step(self, gradient: Any, variable: Variable, learning_rate: Any) -> None:
        gradient = ops.cast(gradient, variable.dtype)
        index = self._get_variable_index(variable)
        held, linear = self._sums[index], self._linears[index]
        rate = ops.cast(learning_rate, variable.dtype)
        power = -self.learning_rate_power
        l1 = self.l1_regularization_strength
        l2 = self.l2_regularization_strength + self.beta / (2.0 * rate)
        shrunk = gradient + 2.0 * self.l2_shrinkage_regularization_strength * variable
        total = held + ops.square(gradient)
        grown = (ops.power(total, power) - ops.power(held, power)) / rate
        linear.assign_add(shrunk - grown * variable)
        quadratic = ops.power(total, power) / rate + 2.0 * l2
        variable.assign((ops.clip(linear, -l1, l1) - linear) / quadratic)
        held.assign(total)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "learning_rate_power": self.learning_rate_power,
            "initial_accumulator_value": self.initial_accumulator_value,
            "l1_regularization_strength": self.l1_regularization_strength,
            "l2_regularization_strength": self.l2_regularization_strength,
            "l2_shrinkage_regularization_strength": self.l2_shrinkage_regularization_strength,
            "beta": self.beta,
        }
