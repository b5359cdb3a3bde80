"""Stochastic gradient descent, with or without momentum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

from lamina import ops
from lamina.optimizers.optimizer import Optimizer, OptimizerOptions
from lamina.tensor import Variable


class SGD(Optimizer):
    """Gradient descent: w = w - rate * g.

    momentum   v = momentum * v - rate * g and w = w + v
    nesterov   look ahead (Sutskever et al. 2013): w = w + momentum * v - rate * g
    """

    def __init__(
        self,
        learning_rate: Any = 0.01,
        momentum: float = 0.0,
        nesterov: bool = False,
        **options: Unpack[OptimizerOptions],
    ) -> None:
        super().__init__(learning_rate, **options)
        if not 0 <= momentum <= 1:
            raise ValueError(f"SGD: momentum is in [0, 1], got {momentum}.")
        self.momentum = momentum
        self.nesterov = nesterov
        self.momentums: list[Variable] = []

    def build(self, variables: Sequence[Variable]) -> None:
        if self.built:
            return
        super().build(variables)
        if self.momentum:
            self.momentums = self.add_optimizer_variables(variables, "momentum")

    def update_step(self, gradient: Any, variable: Variable, learning_rate: Any) -> None:
        step = ops.cast(gradient, variable.dtype) * ops.cast(learning_rate, variable.dtype)
        if not self.momentum:
            variable.assign_sub(step)
            return
        velocity = self.momentums[self._get_variable_index(variable)]
        velocity.assign(velocity * self.momentum - step)
        variable.assign_add(velocity * self.momentum - step if self.nesterov else velocity)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "momentum": self.momentum, "nesterov": self.nesterov}
