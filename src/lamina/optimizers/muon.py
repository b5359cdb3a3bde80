"""Muon: momentum, made orthogonal, for matrices; Adam for the rest."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any, Unpack

from lamina import ops
from lamina.optimizers.optimizer import CommonOptions, Optimizer
from lamina.tensor import Variable


class Muon(Optimizer):
    """Steps along the nearest orthogonal matrix of the momentum (Jordan et al. 2024).

    Weights that are no matrices, embeddings (with `exclude_embeddings`) and weights whose path
    matches a pattern of `exclude_layers` are trained by Adam, with its own weight decay.

    adam_lr_ratio            factor of the rate for those
    muon_a, muon_b, muon_c   coefficients of the Newton-Schulz iteration, `ns_steps` of it
    rms_rate                 scale steps to this size times the root of the larger side; or None
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        adam_beta_1: float = 0.9,
        adam_beta_2: float = 0.999,
        adam_weight_decay: float | None = 0.004,
        epsilon: float = 1e-7,
        weight_decay: float | None = 0.004,
        exclude_layers: Sequence[str] | None = None,
        exclude_embeddings: bool = True,
        muon_a: float = 3.4445,
        muon_b: float = -4.775,
        muon_c: float = 2.0315,
        adam_lr_ratio: float = 1.0,
        momentum: float = 0.95,
        ns_steps: int = 5,
        nesterov: bool = True,
        rms_rate: float | None = 0.2,
        **options: Unpack[CommonOptions],
    ) -> None:
        super().__init__(learning_rate, weight_decay=weight_decay, **options)
        self.adam_beta_1 = adam_beta_1
        self.adam_beta_2 = adam_beta_2
        self.adam_weight_decay = adam_weight_decay
        self.epsilon = epsilon
        self.exclude_layers = list(exclude_layers or ())
        self.exclude_embeddings = exclude_embeddings
        self.muon_a = muon_a
        self.muon_b = muon_b
        self.muon_c = muon_c
        self.adam_lr_ratio = adam_lr_ratio
        self.momentum = momentum
        self.ns_steps = ns_steps
        self.nesterov = nesterov
        self.rms_rate = rms_rate
        self._momentums: list[Variable] = []
        self._velocities: list[Variable | None] = []

    def by_adam(self, variable: Variable) -> bool:
        """Whether this weight is trained by Adam."""
        if len(variable.shape) != 2:
            return True
        if self.exclude_embeddings and "embedding" in variable.path.lower():
            return True
        return any(re.search(pattern, variable.path) for pattern in self.exclude_layers)

    def build(self, variables: Sequence[Variable]) -> None:
        if self.built:
            return
        super().build(variables)
        for variable in variables:
            self._momentums.append(self.add_variable_from_reference(variable, "momentum"))
            slot = self.by_adam(variable)
            self._velocities.append(
                self.add_variable_from_reference(variable, "velocity") if slot else None
            )

    def decay_of(self, variable: Variable) -> float | None:
        if not self.decays(variable):
            return None
        return self.adam_weight_decay if self.by_adam(variable) else self.weight_decay

    def update_step(self, gradient: Any, variable: Variable, learning_rate: Any) -> None:
        gradient = ops.cast(gradient, variable.dtype)
        rate = ops.cast(learning_rate, variable.dtype)
        index = self._get_variable_index(variable)
        momentum, velocity = self._momentums[index], self._velocities[index]
        if velocity is not None:
            self._adam(gradient, variable, rate * self.adam_lr_ratio, momentum, velocity)
            return
        momentum.assign(momentum * self.momentum + gradient)
        ahead = gradient + self.momentum * momentum if self.nesterov else momentum.value
        step = rate * self.orthogonal(ahead)
        if self.rms_rate is not None:
            step = step * (math.sqrt(max(variable.shape)) * self.rms_rate)
        variable.assign_sub(step)

    def _adam(
        self, gradient: Any, variable: Variable, rate: Any, first: Variable, second: Variable
    ) -> None:
        step = ops.cast(self.iterations + 1, variable.dtype)
        rate = rate * ops.sqrt(1.0 - ops.power(self.adam_beta_2, step))
        rate = rate / (1.0 - ops.power(self.adam_beta_1, step))
        first.assign_add((gradient - first) * (1.0 - self.adam_beta_1))
        second.assign_add((ops.square(gradient) - second) * (1.0 - self.adam_beta_2))
        variable.assign_sub(first * rate / (ops.sqrt(second) + self.epsilon))

    def orthogonal(self, x: Any) -> Any:
        """The matrix with the same singular vectors and singular values near one."""
        tall = x.shape[0] > x.shape[1]
        x = ops.transpose(x) if tall else x
        x = x / (ops.sqrt(ops.sum(ops.square(x))) + 1e-7)
        for _ in range(self.ns_steps):
            product = ops.matmul(x, ops.transpose(x))
            polynomial = self.muon_b * product + self.muon_c * ops.matmul(product, product)
            x = self.muon_a * x + ops.matmul(polynomial, x)
        return ops.transpose(x) if tall else x

    def get_config(self) -> dict[str, Any]:
        names = (
            *("adam_beta_1", "adam_beta_2", "adam_weight_decay", "epsilon", "exclude_layers"),
            *("exclude_embeddings", "muon_a", "muon_b", "muon_c", "adam_lr_ratio", "momentum"),
            *("ns_steps", "nesterov", "rms_rate"),
        )
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}
