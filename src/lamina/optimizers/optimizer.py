"""The base of optimisers: state, clipping, weight decay, averages, accumulated gradients."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypedDict, Unpack

import numpy as np

from lamina import config, initializers, ops
from lamina.errors import ShapeError, layout
from lamina.ir.graph import scope
from lamina.naming import to_snake_case, unique_name
from lamina.optimizers.schedules import LearningRateSchedule
from lamina.serialization import deserialize_keras_object, serialize_keras_object
from lamina.tensor import Variable


class CommonOptions(TypedDict, total=False):
    """What every optimiser takes besides its own arguments.

    clipnorm           largest norm of a single gradient; longer ones are scaled down
    clipvalue          largest absolute value of an entry of a gradient
    global_clipnorm    largest norm of all gradients together
    use_ema            keep moving averages of the weights: average = `ema_momentum` * average +
                       (1 - `ema_momentum`) * weight
    ema_overwrite_frequency
                       copy the averages into the weights every so many steps; None: only at the
                       end of `fit`
    loss_scale_factor  by which the loss is multiplied and the gradients are divided
    gradient_accumulation_steps
                       change the weights only at every so many steps, with the mean gradient
    """

    clipnorm: float | None
    clipvalue: float | None
    global_clipnorm: float | None
    use_ema: bool
    ema_momentum: float
    ema_overwrite_frequency: int | None
    loss_scale_factor: float | None
    gradient_accumulation_steps: int | None
    name: str | None


class OptimizerOptions(CommonOptions, total=False):
    """The same, with `weight_decay`, which some optimisers take as an argument of their own.

    weight_decay   share of each weight, times the learning rate, that is taken off at a step
    """

    weight_decay: float | None


DEFAULTS: dict[str, Any] = {
    "weight_decay": None,
    "clipnorm": None,
    "global_clipnorm": None,
    "clipvalue": None,
    "use_ema": False,
    "ema_momentum": 0.99,
    "ema_overwrite_frequency": None,
    "loss_scale_factor": None,
    "gradient_accumulation_steps": None,
}


class Optimizer:
    """Base of optimisers. A subclass makes its slots in `build` and overrides `update_step`.

    learning_rate   a number, a `LearningRateSchedule`, or a function without arguments
    options         see `OptimizerOptions`

    The number of steps, the learning rate and all slots are variables: changing them never
    compiles a model anew.

    >>> class SignDescent(Optimizer):
    ...     def update_step(self, gradient, variable, learning_rate):
    ...         variable.assign(variable - learning_rate * ops.sign(gradient))
    """

    _variables: list[Variable]

    def __init__(self, learning_rate: Any = 0.01, **options: Unpack[OptimizerOptions]) -> None:
        given: dict[str, Any] = dict(options)
        name = given.pop("name", None)
        unknown = sorted(set(given) - set(DEFAULTS))
        if unknown:
            raise TypeError(f"{type(self).__name__} takes no argument {', '.join(unknown)}.")
        self.name: str = name or unique_name(to_snake_case(type(self).__name__))
        settings = {**DEFAULTS, **given}
        self.weight_decay: float | None = settings["weight_decay"]
        self.clipnorm: float | None = settings["clipnorm"]
        self.global_clipnorm: float | None = settings["global_clipnorm"]
        self.clipvalue: float | None = settings["clipvalue"]
        self.use_ema: bool = settings["use_ema"]
        self.ema_momentum: float = settings["ema_momentum"]
        self.ema_overwrite_frequency: int | None = settings["ema_overwrite_frequency"]
        self.loss_scale_factor: float | None = settings["loss_scale_factor"]
        self.gradient_accumulation_steps: int | None = settings["gradient_accumulation_steps"]
        self._check_settings()
        self.built = False
        self._variables = []
        self._trainable_variables: list[Variable] = []
        self._index: dict[Variable, int] = {}
        self._averages: list[Variable] = []
        self._accumulated: list[Variable] = []
        self._not_decayed: set[Variable] = set()
        self._not_decayed_names: list[str] = []
        with scope(self.name):
            self._iterations = Variable(0, dtype="int32", trainable=False, name="iteration")
        self._learning_rate: Any = None
        self._set_learning_rate(learning_rate)

    def _check_settings(self) -> None:
        name = type(self).__name__
        steps = self.gradient_accumulation_steps
        if steps and (not isinstance(steps, int) or steps < 2):
            raise ValueError(
                f"{name}: gradient_accumulation_steps is an integer of 2 or more, got {steps}."
            )
        if self.use_ema and not 0 <= self.ema_momentum <= 1:
            raise ValueError(f"{name}: ema_momentum is in [0, 1], got {self.ema_momentum}.")
        often = self.ema_overwrite_frequency
        if self.use_ema and often and (not isinstance(often, int) or often < 1):
            raise ValueError(
                f"{name}: ema_overwrite_frequency is an integer of 1 or more or None, got {often}."
            )
        clips = ("clipnorm", "clipvalue", "global_clipnorm")
        given = [clip for clip in clips if getattr(self, clip) is not None]
        if len(given) > 1:
            raise ValueError(f"{name}: only one way of clipping can be set, got {given}.")

    def __setattr__(self, name: str, value: Any) -> None:
        # Any variable that a subclass keeps as an attribute is part of the state, as in Keras.
        if isinstance(value, Variable) and not any(value is known for known in self._variables):
            self._variables.append(value)
        super().__setattr__(name, value)

    # ------------------------------------------------------------------------------ state

    @property
    def variables(self) -> list[Variable]:
        """All state: the step count, the learning rate (if it is a number), then the slots."""
        return list(self._variables)

    @property
    def iterations(self) -> Any:
        """The number of finished updates."""
        if self.gradient_accumulation_steps:
            return ops.floor_divide(self._iterations, self.gradient_accumulation_steps)
        return self._iterations

    @property
    def learning_rate(self) -> Any:
        """The variable that holds the rate, or what the schedule gives for the next step."""
        if isinstance(self._learning_rate, LearningRateSchedule):
            return self._learning_rate(self._iterations)
        if isinstance(self._learning_rate, Variable):
            return self._learning_rate
        return self._learning_rate()

    @learning_rate.setter
    def learning_rate(self, learning_rate: Any) -> None:
        self._set_learning_rate(learning_rate)

    def _set_learning_rate(self, rate: Any) -> None:
        current = self._learning_rate
        if isinstance(rate, LearningRateSchedule) or (
            callable(rate) and not isinstance(rate, Variable)
        ):
            self._variables = [known for known in self._variables if known is not current]
            self._learning_rate = rate
        elif isinstance(current, Variable):
            current.assign(rate)
        elif isinstance(current, LearningRateSchedule):
            raise TypeError(
                layout(
                    f"{self.name}: the learning rate follows {type(current).__name__}, so it "
                    "cannot be set to a number.",
                    hint="give the optimizer a number as learning_rate if callbacks are to set it",
                )
            )
        elif isinstance(rate, (int, float, np.number)) and not isinstance(rate, bool):
            with scope(self.name):
                self._learning_rate = Variable(
                    float(rate), dtype=config.floatx(), trainable=False, name="learning_rate"
                )
        else:
            raise TypeError(
                f"{type(self).__name__}: learning_rate is a number, a LearningRateSchedule or a "
                f"function, got {type(rate).__name__}."
            )

    def build(self, variables: Sequence[Variable]) -> None:
        """Make the state for these weights; an optimiser serves one set of weights."""
        variables = list(variables)
        if self.use_ema:
            self._averages = self.add_optimizer_variables(variables, "average")
        for index, variable in enumerate(variables):
            self._index[variable] = index
            if self.gradient_accumulation_steps:
                self._accumulated.append(
                    self.add_variable_from_reference(variable, "gradient_accumulator")
                )
        self._trainable_variables = variables
        self.built = True

    def add_variable(
        self,
        shape: Sequence[int],
        initializer: Any = "zeros",
        dtype: Any = None,
        name: str | None = None,
    ) -> Variable:
        """A new piece of state of any shape."""
        with scope(self.name):
            variable = Variable(
                initializers.get(initializer),
                shape=tuple(shape),
                dtype=dtype,
                trainable=False,
                name=name,
            )
        self._variables.append(variable)
        return variable

    def add_variable_from_reference(
        self, reference_variable: Variable, name: str | None = None, initializer: Any = "zeros"
    ) -> Variable:
        """A new piece of state shaped like a weight."""
        full = f"{reference_variable.path.replace('/', '_')}_{name or 'var'}"
        return self.add_variable(
            reference_variable.shape, initializer, reference_variable.dtype, full
        )

    def add_optimizer_variables(
        self, trainable_variables: Sequence[Variable], name: Any, initializer: Any = "zeros"
    ) -> Any:
        """A slot per weight: a list of variables, or one such list for each of several names."""
        names = [name] if isinstance(name, str) else list(name)
        given = (
            initializer if isinstance(initializer, (list, tuple)) else [initializer] * len(names)
        )
        if len(given) != len(names):
            raise ValueError(
                f"{self.name}: {len(names)} names of slots, but {len(given)} initializers."
            )
        slots: list[list[Variable]] = [[] for _ in names]
        for variable in trainable_variables:
            for place, (slot, start) in enumerate(zip(names, given, strict=True)):
                slots[place].append(self.add_variable_from_reference(variable, slot, start))
        return slots[0] if isinstance(name, str) else tuple(slots)

    def _get_variable_index(self, variable: Variable) -> int:
        return self._index[variable]

    # ---------------------------------------------------------------------------- updates

    def assign(self, variable: Variable, value: Any) -> None:
        """Set a variable to a value."""
        variable.assign(value)

    def assign_add(self, variable: Variable, value: Any) -> None:
        """Add a value to a variable."""
        variable.assign_add(value)

    def assign_sub(self, variable: Variable, value: Any) -> None:
        """Take a value off a variable."""
        variable.assign_sub(value)

    def update_step(self, gradient: Any, variable: Variable, learning_rate: Any) -> None:
        """Change one weight and its slots; overridden by every optimiser."""
        raise NotImplementedError(f"{type(self).__name__} has no update_step.")

    def update_all(self, gradients: list[Any], variables: list[Variable], rate: Any) -> None:
        """Change all weights; overridden where something is shared between them."""
        for gradient, variable in zip(gradients, variables, strict=True):
            self.update_step(gradient, variable, rate)

    def apply_gradients(self, grads_and_vars: Any) -> Any:
        """`apply` on pairs (gradient, weight)."""
        gradients, variables = zip(*grads_and_vars, strict=True)
        self.apply(gradients, variables)
        return self._iterations

    def apply(self, grads: Sequence[Any], trainable_variables: Any = None) -> None:
        """One step: change the weights by their gradients.

        grads                 one gradient per weight; None for a weight that the loss does not
                              depend on, which stays as it is
        trainable_variables   the weights; those of `build` if they are not given
        raises                ValueError for weights that the optimiser was not built for
        """
        gradients = list(grads)
        if not gradients:
            return
        if trainable_variables is not None and not self.built:
            self.build(list(trainable_variables))
            self.built = True
        variables = self._known_variables(trainable_variables, len(gradients))
        gradients, variables = self._present(gradients, variables)
        if self.loss_scale_factor is not None:
            gradients = [gradient / self.loss_scale_factor for gradient in gradients]
        if self.gradient_accumulation_steps:
            self._accumulate(gradients, variables, self.gradient_accumulation_steps)
        else:
            self._update(gradients, variables)
        if self.use_ema:
            self._update_averages()
        for variable in variables:
            if variable.constraint is not None:
                variable.assign(variable.constraint(variable.value))
        self._iterations.assign_add(1)

    def _known_variables(self, given: Any, count: int) -> list[Variable]:
        if given is None:
            if not self.built or count != len(self._trainable_variables):
                raise ValueError(
                    f"{self.name}: got {count} gradients, but was built for "
                    f"{len(self._trainable_variables)} weights."
                )
            return self._trainable_variables
        variables = list(given)
        for variable in variables:
            if variable not in self._index:
                raise ValueError(
                    layout(
                        f"{self.name}: was not built for the weight {variable.path}.",
                        hint="compile the model again after changing which weights are trained; "
                        "an optimizer serves one set of weights",
                    )
                )
        return variables

    def _present(
        self, gradients: list[Any], variables: list[Variable]
    ) -> tuple[list[Any], list[Variable]]:
        pairs = [(g, v) for g, v in zip(gradients, variables, strict=True) if g is not None]
        if not pairs:
            raise ValueError(f"{self.name}: no weight has a gradient.")
        missing = [v.path for g, v in zip(gradients, variables, strict=True) if g is None]
        if missing:
            warnings.warn(
                f"{self.name}: the loss does not depend on {', '.join(missing)}, so these weights "
                "stay as they are.",
                stacklevel=3,
            )
        return [g for g, _ in pairs], [v for _, v in pairs]

    def _update(self, gradients: list[Any], variables: list[Variable]) -> None:
        gradients = self._clipped(gradients)
        self._decay(variables)
        self.update_all(gradients, variables, self.learning_rate)

    def _accumulate(self, gradients: list[Any], variables: list[Variable], steps: int) -> None:
        """Add up gradients; at every `steps`-th call update with their mean and begin anew."""
        now = ops.equal((self._iterations + 1) % steps, 0)
        sums = [self._accumulated[self._index[variable]] for variable in variables]
        totals = [total + gradient for total, gradient in zip(sums, gradients, strict=True)]
        touched = [*variables, *(known for known in self._variables if known not in sums)]
        only_if(now, touched, lambda: self._update([t / float(steps) for t in totals], variables))
        for held, total in zip(sums, totals, strict=True):
            held.assign(ops.where(now, ops.zeros_like(total), total))

    def _clipped(self, gradients: list[Any]) -> list[Any]:
        if self.clipnorm:
            limit = self.clipnorm
            return [
                gradient * (limit / ops.maximum(ops.sqrt(_square_sum(gradient)), limit))
                for gradient in gradients
            ]
        if self.global_clipnorm:
            square: Any = 0.0
            for gradient in gradients:
                square = square + ops.cast(_square_sum(gradient), config.floatx())
            norm = ops.sqrt(square)
            factor = self.global_clipnorm * ops.minimum(1.0 / norm, 1.0 / self.global_clipnorm)
            # An infinite norm must show in the weights, not vanish in a factor of zero.
            factor = factor + (norm - norm)
            return [gradient * ops.cast(factor, gradient.dtype) for gradient in gradients]
        if self.clipvalue:
            return [ops.clip(gradient, -self.clipvalue, self.clipvalue) for gradient in gradients]
        return gradients

    def exclude_from_weight_decay(
        self,
        var_list: Sequence[Variable] | None = None,
        var_names: Sequence[str] | None = None,
    ) -> None:
        """Leave weights out of the weight decay, by themselves or by patterns of their names."""
        self._not_decayed = set(var_list or ())
        self._not_decayed_names = list(var_names or ())

    def decays(self, variable: Variable) -> bool:
        """Whether weight decay is applied to this weight."""
        by_name = any(re.search(pattern, variable.name) for pattern in self._not_decayed_names)
        return variable not in self._not_decayed and not by_name

    def decay_of(self, variable: Variable) -> float | None:
        """The weight decay of one weight."""
        return self.weight_decay if self.decays(variable) else None

    def _decay(self, variables: list[Variable]) -> None:
        for variable in variables:
            share = self.decay_of(variable)
            if share is not None:
                rate = ops.cast(self.learning_rate, variable.dtype)
                variable.assign(variable - variable * share * rate)

    # --------------------------------------------------------------------------- averages

    def _update_averages(self) -> None:
        for variable, average in zip(self._trainable_variables, self._averages, strict=True):
            # The first step takes the weight as it is.
            later = ops.cast(ops.not_equal(self.iterations, 0), variable.dtype)
            momentum = later * self.ema_momentum
            average.assign(momentum * average + (1.0 - momentum) * variable)
        if self.ema_overwrite_frequency:
            now = ops.equal((self.iterations + 1) % self.ema_overwrite_frequency, 0)
            for variable, average in zip(self._trainable_variables, self._averages, strict=True):
                variable.assign(ops.where(now, average, variable))

    def finalize_variable_values(self, var_list: Sequence[Variable]) -> None:
        """Copy the moving averages into the weights, as `fit` does at its end."""
        if not self.use_ema:
            return
        for variable in var_list:
            variable.assign(self._averages[self._index[variable]])

    def scale_loss(self, loss: Any) -> Any:
        """The loss, multiplied by `loss_scale_factor` if there is one."""
        return loss if self.loss_scale_factor is None else loss * self.loss_scale_factor

    # ------------------------------------------------------------------------------ files

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Set all state, in the order of `variables`."""
        for variable, weight in zip(self.variables, weights, strict=True):
            variable.assign(weight)

    def save_own_variables(self, store: Any) -> None:
        """Write all state into a mapping under "0", "1", ..."""
        for place, variable in enumerate(self.variables):
            store[str(place)] = variable.numpy()

    def load_own_variables(self, store: Any) -> None:
        """Read what `save_own_variables` wrote.

        raises   ShapeError if the number of values differs
        """
        if len(store.keys()) != len(self.variables):
            raise ShapeError(
                f"{self.name}: the file holds {len(store.keys())} values of an optimizer, "
                f"expected {len(self.variables)}."
            )
        for place, variable in enumerate(self.variables):
            variable.assign(np.asarray(store[str(place)]).astype(variable.numpy().dtype))

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        rate = self._learning_rate
        if isinstance(rate, Variable):
            rate = float(rate.numpy())
        else:
            rate = serialize_keras_object(rate)
        settings = {name: getattr(self, name) for name in DEFAULTS}
        return {"name": self.name, "learning_rate": rate, **settings}

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None
    ) -> Optimizer:
        config = dict(config)
        if isinstance(config.get("learning_rate"), dict):
            config["learning_rate"] = deserialize_keras_object(
                config["learning_rate"], custom_objects
            )
        return cls(**config)


def only_if(flag: Any, variables: Sequence[Variable], function: Callable[[], Any]) -> None:
    """Run `function`, but let the variables keep their values where the truth value is false."""
    before = [variable.value for variable in variables]
    function()
    for variable, old in zip(variables, before, strict=True):
        new = variable.value
        if new.node is not old.node:
            variable.assign(ops.where(flag, new, old))


def _square_sum(gradient: Any) -> Any:
    return ops.sum(ops.square(gradient))
