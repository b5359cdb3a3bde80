"""Training in half precision: a loss scale that adapts itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lamina import initializers, ops
from lamina.optimizers.optimizer import Optimizer, only_if
from lamina.serialization import deserialize_keras_object, serialize_keras_object
from lamina.tensor import Variable


class LossScaleOptimizer(Optimizer):
    """Wraps an optimiser: multiplies the loss and divides the gradients by an adaptive scale.

    A step whose gradients are not all finite changes nothing and halves the scale; after
    `dynamic_growth_steps` good steps in a row the scale is doubled.

    source   Micikevicius et al. 2018, section 3.2
    """

    step_counter: Variable
    dynamic_scale: Variable

    def __init__(
        self,
        inner_optimizer: Optimizer,
        initial_scale: float = 2.0**15,
        dynamic_growth_steps: int = 2000,
        name: str | None = None,
    ) -> None:
        super().__init__(0.0, name=name)
        self.inner_optimizer = inner_optimizer
        self.initial_scale = initial_scale
        self.dynamic_growth_steps = dynamic_growth_steps
        inner_optimizer.loss_scale_factor = None

    def build(self, variables: Sequence[Variable]) -> None:
        if self.built:
            return
        self.step_counter = self.add_variable((), "zeros", "int32", "step_counter")
        start = initializers.Constant(self.initial_scale)
        self.dynamic_scale = self.add_variable((), start, "float32", "dynamic_scale")
        self.inner_optimizer.build(variables)
        super().build(variables)

    @property
    def variables(self) -> list[Variable]:
        return [*self._variables, *self.inner_optimizer.variables]

    @property
    def iterations(self) -> Any:
        return self.inner_optimizer.iterations

    @property
    def learning_rate(self) -> Any:
        """That of the inner optimiser."""
        return self.inner_optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, learning_rate: Any) -> None:
        self.inner_optimizer.learning_rate = learning_rate

    def apply(self, grads: Sequence[Any], trainable_variables: Any = None) -> None:
        if trainable_variables is not None and not self.built:
            self.build(list(trainable_variables))
        given = self._trainable_variables if trainable_variables is None else trainable_variables
        variables = self._known_variables(given, len(grads))
        finite: Any = True
        for gradient in grads:
            if gradient is not None:
                finite = ops.logical_and(finite, ops.all(ops.isfinite(gradient)))
        scale = self.dynamic_scale.value
        good = [
            None if gradient is None else ops.where(finite, gradient / scale, 0.0)
            for gradient in grads
        ]
        touched = [*variables, *self.inner_optimizer.variables]
        only_if(finite, touched, lambda: self.inner_optimizer.apply(good, variables))
        grow = ops.equal(self.step_counter, self.dynamic_growth_steps - 1)
        self.dynamic_scale.assign(
            ops.where(finite, ops.where(grow, scale * 2.0, scale), scale * 0.5)
        )
        counted = ops.where(grow, 0, self.step_counter + 1)
        self.step_counter.assign(ops.where(finite, counted, 0))

    def scale_loss(self, loss: Any) -> Any:
        scale = self.dynamic_scale if self.built else self.initial_scale
        return loss * scale

    def finalize_variable_values(self, var_list: Sequence[Variable]) -> None:
        self.inner_optimizer.finalize_variable_values(var_list)

    def get_config(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "inner_optimizer": serialize_keras_object(self.inner_optimizer),
            "initial_scale": self.initial_scale,
            "dynamic_growth_steps": self.dynamic_growth_steps,
        }

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None
    ) -> LossScaleOptimizer:
        config = dict(config)
        inner = deserialize_keras_object(config.pop("inner_optimizer"), custom_objects)
        return cls(inner, **config)
