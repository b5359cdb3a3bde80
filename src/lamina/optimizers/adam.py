"""Adam and its relatives: AdamW, Adamax, Nadam, Lamb."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

from lamina import config, ops
from lamina.optimizers.optimizer import CommonOptions, Optimizer, OptimizerOptions
from lamina.tensor import Variable


class _Moments(Optimizer):
    """What the family shares: two slots per weight, and the powers of the decay rates."""

    SLOTS = ("momentum", "velocity")

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        **options: Unpack[OptimizerOptions],
    ) -> None:
        super().__init__(learning_rate, **options)
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self._first: list[Variable] = []
        self._second: list[Variable] = []

    def build(self, variables: Sequence[Variable]) -> None:
        if self.built:
            return
        super().build(variables)
        self._first, self._second = self.add_optimizer_variables(variables, self.SLOTS)

    def moments(self, gradient: Any, variable: Variable) -> tuple[Variable, Variable]:
        """The running means of the gradient and of its square, brought up to date."""
        index = self._get_variable_index(variable)
        first, second = self._first[index], self._second[index]
        first.assign_add((gradient - first) * (1.0 - self.beta_1))
        second.assign_add((ops.square(gradient) - second) * (1.0 - self.beta_2))
        return first, second

    def remaining(self, beta: float, dtype: str) -> Any:
        """1 - beta^t, by which a running mean that began at zero is too small after step t."""
        return 1.0 - ops.power(ops.cast(beta, dtype), ops.cast(self.iterations + 1, dtype))

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "beta_1": self.beta_1,
            "beta_2": self.beta_2,
            "epsilon": self.epsilon,
        }


class Adam(_Moments):
    """Adam (Kingma & Ba 2015, with the step size of the end of section 2).

    beta_1, beta_2   decay rates of the running means of the gradient and of its square
    epsilon          added to the root of the second, as "epsilon hat" in the paper
    amsgrad          divide by the largest second moment so far (Reddi et al. 2018)
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
        **options: Unpack[OptimizerOptions],
    ) -> None:
        super().__init__(learning_rate, beta_1, beta_2, epsilon, **options)
        self.amsgrad = amsgrad
        self._largest: list[Variable] = []

    def build(self, variables: Sequence[Variable]) -> None:
        if self.built:
            return
        super().build(variables)
        if self.amsgrad:
            self._largest = self.add_optimizer_variables(variables, "velocity_hat")

    def update_step(self, gradient: Any, variable: Variable, learning_rate: Any) -> None:
        dtype = variable.dtype
        first, second = self.moments(ops.cast(gradient, dtype), variable)
        rate = ops.cast(learning_rate, dtype)
        rate = rate * ops.sqrt(self.remaining(self.beta_2, dtype))
        rate = rate / self.remaining(self.beta_1, dtype)
        if self.amsgrad:
            largest = self._largest[self._get_variable_index(variable)]
            largest.assign(ops.maximum(largest, second))
            second = largest
        variable.assign_sub(first * rate / (ops.sqrt(second) + self.epsilon))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "amsgrad": self.amsgrad}


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019)."""

    def __init__(
        self,
        learning_rate: Any = 0.001,
        weight_decay: float = 0.004,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
        **options: Unpack[CommonOptions],
    ) -> None:
        if weight_decay is None:
            raise ValueError("AdamW: weight_decay is a number; use Adam to go without.")
        super().__init__(
            learning_rate, beta_1, beta_2, epsilon, amsgrad, weight_decay=weight_decay, **options
        )


class Adamax(_Moments):
    """Adam with the largest gradient so far instead of the second moment (ibid., section 7)."""

    SLOTS = ("momentum", "norm")

    def update_step(self, gradient: Any, variable: Variable, learning_rate: Any) -> None:
        dtype = variable.dtype
        gradient = ops.cast(gradient, dtype)
        index = self._get_variable_index(variable)
        first, norm = self._first[index], self._second[index]
        first.assign_add((gradient - first) * (1.0 - self.beta_1))
        norm.assign(ops.maximum(norm * self.beta_2, ops.abs(gradient)))
        rate = ops.cast(learning_rate, dtype) / self.remaining(self.beta_1, dtype)
        variable.assign_sub(rate * first / (norm + self.epsilon))


class Nadam(_Moments):
    """Adam with Nesterov's momentum (Dozat 2016)."""

    DECAY = 0.96
    _product: Variable

    def build(self, variables: Sequence[Variable]) -> None:
        if self.built:
            return
        super().build(variables)
        dtype = variables[0].dtype if variables else config.floatx()
        # The product of all momentum factors so far.
        self._product = self.add_variable((), "ones", dtype, "momentum_product")

    def _factor(self, step: Any, dtype: str) -> Any:
        """The momentum factor of a step, which warms up towards beta_1."""
        decay = ops.power(ops.cast(self.DECAY, dtype), ops.cast(step, dtype))
        return self.beta_1 * (1.0 - 0.5 * decay)

    def update_all(self, gradients: list[Any], variables: list[Variable], rate: Any) -> None:
        factor = self._factor(self.iterations + 1, self._product.dtype)
        self._product.assign(self._product * factor)
        super().update_all(gradients, variables, rate)

    def update_step(self, gradient: Any, variable: Variable, learning_rate: Any) -> None:
        dtype = variable.dtype
        gradient = ops.cast(gradient, dtype)
        first, second = self.moments(gradient, variable)
        now = self._factor(self.iterations + 1, dtype)
        following = self._factor(self.iterations + 2, dtype)
        product = ops.cast(self._product, dtype)
        ahead = first * (following / (1.0 - product * following))
        ahead = ahead + gradient * ((1.0 - now) / (1.0 - product))
        spread = ops.sqrt(second / self.remaining(self.beta_2, dtype)) + self.epsilon
        variable.assign_sub(ahead * ops.cast(learning_rate, dtype) / spread)


class Lamb(_Moments):
    """Adam's direction, scaled per weight by the weight's own norm (You et al. 2020)."""

    def update_step(self, gradient: Any, variable: Variable, learning_rate: Any) -> None:
        dtype = variable.dtype
        first, second = self.moments(ops.cast(gradient, dtype), variable)
        spread = ops.sqrt(second / self.remaining(self.beta_2, dtype)) + self.epsilon
        update = first / self.remaining(self.beta_1, dtype) / spread
        weight_norm = ops.sqrt(ops.sum(ops.square(variable)))
        update_norm = ops.sqrt(ops.sum(ops.square(update)))
        usable = ops.logical_and(weight_norm > 0.0, update_norm > 0.0)
        safe = ops.where(usable, update_norm, 1.0)
        ratio = ops.where(usable, weight_norm / safe, 1.0)
        variable.assign_sub(ratio * ops.cast(learning_rate, dtype) * update)
