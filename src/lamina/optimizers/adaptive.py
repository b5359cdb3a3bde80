"""Rates per entry from the squares of past gradients: RMSprop, Adagrad, Adadelta, Adafactor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

from lamina import initializers, ops
from lamina.optimizers.optimizer import Optimizer, OptimizerOptions
from lamina.tensor import Variable


class RMSprop(Optimizer):
    """Divide the gradient by a running mean of its size (Hinton, lecture 6e, 2012).

    rho        decay rate of that mean
    momentum   of the resulting steps
    epsilon    added to the mean square, under the root
    centered   divide by the running variance instead
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        rho: float = 0.9,
        momentum: float = 0.0,
        epsilon: float = 1e-7,
        centered: bool = False,
        **options: Unpack[OptimizerOptions],
    ) -> None:
        super().__init__(learning_rate, **options)
        self.rho = rho
        self.momentum = momentum
        self.epsilon = epsilon
        self.centered = centered
        self._velocities: list[Variable] = []
        self._momentums: list[Variable] = []
        self._means: list[Variable] = []

    def build(self, variables: Sequence[Variable]) -> None:
        if self.built:
            return
        super().build(variables)
        self._velocities = self.add_optimizer_variables(variables, "velocity")
        if self.momentum > 0:
            self._momentums = self.add_optimizer_variables(variables, "momentum")
        if self.centered:
            self._means = self.add_optimizer_variables(variables, "average_gradient")

    def update_step(self, gradient: Any, variable: Variable, learning_rate: Any) -> None:
        gradient = ops.cast(gradient, variable.dtype)
        index = self._get_variable_index(variable)
        velocity = self._velocities[index]
        velocity.assign(velocity * self.rho + ops.square(gradient) * (1.0 - self.rho))
        spread = velocity + self.epsilon
        if self.centered:
            mean = self._means[index]
            mean.assign(mean * self.rho + gradient * (1.0 - self.rho))
            spread = velocity - ops.square(mean) + self.epsilon
        step = ops.cast(learning_rate, variable.dtype) * gradient / ops.sqrt(spread)
        if self.momentum > 0:
            momentum = self._momentums[index]
            momentum.assign(momentum * self.momentum + step)
            variable.assign_sub(momentum)
        else:
            variable.assign_sub(step)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "rho": self.rho,
            "momentum": self.momentum,
            "epsilon": self.epsilon,
            "centered": self.centered,
        }


class Adagrad(Optimizer):
    """Divide by the root of the sum of all squared gradients (Duchi et al. 2011)."""

    def __init__(
        self,
        learning_rate: Any = 0.001,
        initial_accumulator_value: float = 0.1,
        epsilon: float = 1e-7,
        **options: Unpack[OptimizerOptions],
    ) -> None:
        super().__init__(learning_rate, **options)
        self.initial_accumulator_value = initial_accumulator_value
        self.epsilon = epsilon
        self._sums: list[Variable] = []

    def build(self, variables: Sequence[Variable]) -> None:
        if self.built:
            return
        super().build(variables)
        start = initializers.Constant(self.initial_accumulator_value)
        self._sums = self.add_optimizer_variables(variables, "accumulator", start)

    def update_step(self, gradient: Any, variable: Variable, learning_rate: Any) -> None:
        gradient = ops.cast(gradient, variable.dtype)
        held = self._sums[self._get_variable_index(variable)]
        held.assign_add(ops.square(gradient))
        rate = ops.cast(learning_rate, variable.dtype)
        variable.assign_sub(rate * gradient / ops.sqrt(held + self.epsilon))

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "initial_accumulator_value": self.initial_accumulator_value,
            "epsilon": self.epsilon,
        }


class Adadelta(Optimizer):
    """Steps in the weights' own units (Zeiler 2012)."""

    def __init__(
        self,
        learning_rate: Any = 0.001,
        rho: float = 0.95,
        epsilon: float = 1e-7,
        **options: Unpack[OptimizerOptions],
    ) -> None:
        super().__init__(learning_rate, **options)
        self.rho = rho
        self.epsilon = epsilon
        self._gradients: list[Variable] = []
        self._steps: list[Variable] = []

    def build(self, variables: Sequence[Variable]) -> None:
        if self.built:
            return
        super().build(variables)
        self._gradients, self._steps = self.add_optimizer_variables(
            variables, ["accumulated_grad", "accumulated_delta_var"]
        )

    def update_step(self, gradient: Any, variable: Variable, learning_rate: Any) -> None:
        gradient = ops.cast(gradient, variable.dtype)
        index = self._get_variable_index(variable)
        squares, steps = self._gradients[index], self._steps[index]
        squares.assign(squares * self.rho + ops.square(gradient) * (1.0 - self.rho))
        ratio = ops.sqrt(steps + self.epsilon) / ops.sqrt(squares + self.epsilon)
        step = -ratio * gradient
        steps.assign(steps * self.rho + ops.square(step) * (1.0 - self.rho))
        variable.assign_add(ops.cast(learning_rate, variable.dtype) * step)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rho": self.rho, "epsilon": self.epsilon}


class Adafactor(Optimizer):
    """Second moments of matrices as a product of rows and columns (Shazeer & Stern 2018).

    beta_2_decay     power of the step that gives the decay rate
    epsilon_1        added to squared gradients
    epsilon_2        smallest size of a weight that scales its step
    clip_threshold   largest root mean square of a step
    relative_step    let the rate fall with the root of the step
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_2_decay: float = -0.8,
        epsilon_1: float = 1e-30,
        epsilon_2: float = 1e-3,
        clip_threshold: float = 1.0,
        relative_step: bool = True,
        **options: Unpack[OptimizerOptions],
    ) -> None:
        super().__init__(learning_rate, **options)
        self.beta_2_decay = beta_2_decay
        self.epsilon_1 = epsilon_1
        self.epsilon_2 = epsilon_2
        self.clip_threshold = clip_threshold
        self.relative_step = relative_step
        self._rows: list[Variable] = []
        self._columns: list[Variable] = []
        self._squares: list[Variable] = []

    def build(self, variables: Sequence[Variable]) -> None:
        if self.built:
            return
        super().build(variables)
        for variable in variables:
            shape = variable.shape
            matrix = len(shape) >= 2
            rows, columns = (shape[:-1], (*shape[:-2], shape[-1])) if matrix else ((), ())
            self._rows.append(self.add_variable(rows, "zeros", variable.dtype, variable.name))
            self._columns.append(self.add_variable(columns, "zeros", variable.dtype, variable.name))
            self._squares.append(self.add_variable_from_reference(variable, "velocity"))

    def update_step(self, gradient: Any, variable: Variable, learning_rate: Any) -> None:
        dtype = variable.dtype
        gradient = ops.cast(gradient, dtype)
        index = self._get_variable_index(variable)
        step = ops.cast(self.iterations + 1, dtype)
        rate = ops.cast(learning_rate, dtype)
        if isinstance(self._learning_rate, Variable) and self.relative_step:
            rate = ops.minimum(rate, ops.rsqrt(step))
        size = ops.maximum(_root_mean_square(variable), self.epsilon_2)
        rate = size * ops.minimum(rate, ops.rsqrt(step))
        kept = 1.0 - ops.power(step, self.beta_2_decay)
        square = ops.square(gradient) + self.epsilon_1
        squares = self._squares[index]
        if len(variable.shape) >= 2:
            rows, columns = self._rows[index], self._columns[index]
            rows.assign(kept * rows + (1.0 - kept) * ops.mean(square, axis=-1))
            columns.assign(kept * columns + (1.0 - kept) * ops.mean(square, axis=-2))
            share = rows / ops.mean(rows, axis=-1, keepdims=True)
            squares.assign(ops.expand_dims(share, -1) * ops.expand_dims(columns, -2))
        else:
            squares.assign(kept * squares + (1.0 - kept) * square)
        update = gradient / ops.sqrt(squares)
        excess = ops.maximum(_root_mean_square(update) / self.clip_threshold, 1.0)
        variable.assign_sub(rate * update / excess)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "beta_2_decay": self.beta_2_decay,
            "epsilon_1": self.epsilon_1,
            "epsilon_2": self.epsilon_2,
            "clip_threshold": self.clip_threshold,
            "relative_step": self.relative_step,
        }


def _root_mean_square(x: Any) -> Any:
    return ops.sqrt(ops.mean(ops.square(x)))
