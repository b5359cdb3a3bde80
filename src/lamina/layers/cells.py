"""What recurrent layers do at one step: SimpleRNNCell, LSTMCell, GRUCell, and stacks of cells.

A cell maps (inputs of this step, states) to (output, new states). It has `state_size`, a number or
a list of numbers; `output_size` if that is not the first of these; and `get_initial_state`, if its
states do not begin at zero.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from lamina import activations, initializers, ops, random, tree
from lamina.layers.layer import Layer
from lamina.layers.rules import add_ruled, rules_config, set_rules
from lamina.serialization import deserialize_keras_object, serialize_keras_object
from lamina.tensor import Variable


def zero_states(state_size: Any, batch_size: Any, dtype: str) -> Any:
    """Zeros for a state size, which may be a number or a nest of numbers."""
    if isinstance(state_size, (list, tuple)):
        return [zero_states(size, batch_size, dtype) for size in state_size]
    return ops.zeros((batch_size, state_size), dtype=dtype)


class BaseCell(Layer):
    """What the three cells share: weights, biases, activations, dropout.

    One dropout mask for the inputs and one for the state serve all steps of a sequence (Gal &
    Ghahramani 2016); the layer that runs the cell makes them before the first step.
    """

    GATES = 1
    # Whether the first state is the output: then a layer need not keep the last output apart.
    output_is_first_state = True
    kernel: Variable
    recurrent_kernel: Variable
    bias: Variable | None
    # Set from the arguments, by name.
    bias_initializer: Any
    bias_regularizer: Any
    bias_constraint: Any

    def __init__(
        self,
        units: int,
        activation: Any,
        use_bias: bool,
        kernel_initializer: Any,
        recurrent_initializer: Any,
        bias_initializer: Any,
        kernel_regularizer: Any,
        recurrent_regularizer: Any,
        bias_regularizer: Any,
        kernel_constraint: Any,
        recurrent_constraint: Any,
        bias_constraint: Any,
        dropout: float,
        recurrent_dropout: float,
        seed: Any,
        **kwargs: Any,
    ) -> None:
        kwargs.pop("implementation", None)
        super().__init__(**kwargs)
        if not isinstance(units, int) or units < 1:
            raise ValueError(f"{self.name}: units is a positive integer, got {units!r}.")
        self.units = units
        self.activation = activations.get(activation)
        self.use_bias = use_bias
        set_rules(self, "kernel", kernel_initializer, kernel_regularizer, kernel_constraint)
        set_rules(
            self, "recurrent", recurrent_initializer, recurrent_regularizer, recurrent_constraint
        )
        set_rules(self, "bias", bias_initializer, bias_regularizer, bias_constraint)
        for what, share in (("dropout", dropout), ("recurrent_dropout", recurrent_dropout)):
            if not 0.0 <= share <= 1.0:
                raise ValueError(f"{self.name}: {what} is in [0, 1], got {share}.")
        self.dropout = dropout
        self.recurrent_dropout = recurrent_dropout
        self.seed = seed
        if dropout or recurrent_dropout:
            self.seed_generator = random.SeedGenerator(seed)
        self.state_size: Any = units
        self.output_size = units
        self.bias = None
        self._masks: tuple[Any, Any] | None = None

    def build(self, input_shape: Any = None) -> None:
        self.kernel = add_ruled(self, "kernel", (input_shape[-1], self.units * self.GATES))
        self.recurrent_kernel = add_ruled(
            self, "recurrent", (self.units, self.units * self.GATES), "recurrent_kernel"
        )
        if self.use_bias:
            self.bias = self.add_bias()

    def add_bias(self) -> Variable:
        """The bias; overridden where it is not one vector."""
        return add_ruled(self, "bias", (self.units * self.GATES,))

    def make_masks(self, inputs: Any, state: Any) -> None:
        """Draw the dropout masks of a sequence, for inputs and state of these shapes."""
        drawn = [
            random.dropout(ops.ones_like(x), share, seed=self.seed_generator) if share else None
            for x, share in ((inputs, self.dropout), (state, self.recurrent_dropout))
        ]
        self._masks = (drawn[0], drawn[1])

    def forget_masks(self) -> None:
        """Let the next sequence draw its own masks."""
        self._masks = None

    def dropped(self, inputs: Any, state: Any, training: bool) -> tuple[Any, Any]:
        """Inputs and state with their masks applied, in training."""
        if not training or not (self.dropout or self.recurrent_dropout):
            return inputs, state
        single = self._masks is None
        if single:
            self.make_masks(inputs, state)
        masks = self._masks or (None, None)
        if single:
            self.forget_masks()
        for_inputs, for_state = masks
        return (
            inputs if for_inputs is None else inputs * for_inputs,
            state if for_state is None else state * for_state,
        )

    def get_initial_state(self, batch_size: Any = None) -> list[Any]:
        """Zeros, one tensor (batch, size) for each state."""
        sizes = self.state_size if isinstance(self.state_size, list) else [self.state_size]
        return [ops.zeros((batch_size, size), dtype=self.compute_dtype) for size in sizes]

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "units": self.units,
            "activation": activations.serialize(self.activation),
            "use_bias": self.use_bias,
            **rules_config(self, "kernel", "recurrent", "bias"),
            "dropout": self.dropout,
            "recurrent_dropout": self.recurrent_dropout,
            "seed": self.seed,
        }


class SimpleRNNCell(BaseCell):
    """h' = activation(x W + h U + b)."""

    def __init__(
        self,
        units: int,
        activation: Any = "tanh",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        recurrent_regularizer: Any = None,
        bias_regularizer: Any = None,
        kernel_constraint: Any = None,
        recurrent_constraint: Any = None,
        bias_constraint: Any = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        seed: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            units,
            activation,
            use_bias,
            kernel_initializer,
            recurrent_initializer,
            bias_initializer,
            kernel_regularizer,
            recurrent_regularizer,
            bias_regularizer,
            kernel_constraint,
            recurrent_constraint,
            bias_constraint,
            dropout,
            recurrent_dropout,
            seed,
            **kwargs,
        )

    def call(self, inputs: Any, states: Any, training: bool = False) -> Any:
        nested = isinstance(states, (list, tuple))
        inputs, h = self.dropped(inputs, states[0] if nested else states, training)
        z = ops.matmul(inputs, self.kernel)
        if self.bias is not None:
            z = z + self.bias
        output = self.activation(z + ops.matmul(h, self.recurrent_kernel))
        return output, [output] if nested else output


class LSTMCell(BaseCell):
    """Hochreiter & Schmidhuber's (1997) memory cell with forget gate (Gers et al. 2000).

    (i, f, g, o) = x W + h U + b; c' = s(f) c + s(i) activation(g); h' = s(o) activation(c'), where
    s is `recurrent_activation`. The states are h and c.

    unit_forget_bias   begin with 1 in the bias of the forget gate
    """

    GATES = 4

    def __init__(
        self,
        units: int,
        activation: Any = "tanh",
        recurrent_activation: Any = "sigmoid",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        unit_forget_bias: bool = True,
        kernel_regularizer: Any = None,
        recurrent_regularizer: Any = None,
        bias_regularizer: Any = None,
        kernel_constraint: Any = None,
        recurrent_constraint: Any = None,
        bias_constraint: Any = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        seed: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            units,
            activation,
            use_bias,
            kernel_initializer,
            recurrent_initializer,
            bias_initializer,
            kernel_regularizer,
            recurrent_regularizer,
            bias_regularizer,
            kernel_constraint,
            recurrent_constraint,
            bias_constraint,
            dropout,
            recurrent_dropout,
            seed,
            **kwargs,
        )
        self.recurrent_activation = activations.get(recurrent_activation)
        self.unit_forget_bias = unit_forget_bias
        self.state_size = [units, units]

    def add_bias(self) -> Variable:
        if not self.unit_forget_bias:
            return super().add_bias()
        units, given = self.units, self.bias_initializer

        def start(shape: Sequence[int], dtype: str | None = None) -> Any:
            ones = initializers.Ones()((units,), dtype=dtype)
            ends = (given((units,), dtype=dtype), given((2 * units,), dtype=dtype))
            return ops.concatenate([ends[0], ones, ends[1]])

        return self.add_weight(
            shape=(4 * units,),
            initializer=start,
            regularizer=self.bias_regularizer,
            constraint=self.bias_constraint,
            name="bias",
        )

    def call(self, inputs: Any, states: Any, training: bool = False) -> Any:
        h, c = states
        inputs, h = self.dropped(inputs, h, training)
        z = ops.matmul(inputs, self.kernel)
        if self.bias is not None:
            z = z + self.bias
        z = z + ops.matmul(h, self.recurrent_kernel)
        n, gate = self.units, self.recurrent_activation
        i, f, g, o = (z[:, k * n : (k + 1) * n] for k in range(4))
        c = gate(f) * c + gate(i) * self.activation(g)
        h = gate(o) * self.activation(c)
        return h, [h, c]

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "recurrent_activation": activations.serialize(self.recurrent_activation),
            "unit_forget_bias": self.unit_forget_bias,
        }


class GRUCell(BaseCell):
    """Cho et al.'s (2014) gated unit: h' = z h + (1 - z) g.

    reset_after   the reset gate multiplies U h (Keras's default) instead of h before U
    """

    GATES = 3

    def __init__(
        self,
        units: int,
        activation: Any = "tanh",
        recurrent_activation: Any = "sigmoid",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        recurrent_regularizer: Any = None,
        bias_regularizer: Any = None,
        kernel_constraint: Any = None,
        recurrent_constraint: Any = None,
        bias_constraint: Any = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        reset_after: bool = True,
        seed: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            units,
            activation,
            use_bias,
            kernel_initializer,
            recurrent_initializer,
            bias_initializer,
            kernel_regularizer,
            recurrent_regularizer,
            bias_regularizer,
            kernel_constraint,
            recurrent_constraint,
            bias_constraint,
            dropout,
            recurrent_dropout,
            seed,
            **kwargs,
        )
        self.recurrent_activation = activations.get(recurrent_activation)
        self.reset_after = reset_after

    def add_bias(self) -> Variable:
        size = 3 * self.units
        return add_ruled(self, "bias", (2, size) if self.reset_after else (size,))

    def call(self, inputs: Any, states: Any, training: bool = False) -> Any:
        nested = isinstance(states, (list, tuple))
        inputs, h = self.dropped(inputs, states[0] if nested else states, training)
        n = self.units
        x = ops.matmul(inputs, self.kernel)
        if self.bias is not None:
            x = x + (self.bias[0] if self.reset_after else self.bias)
        if self.reset_after:
            inner = ops.matmul(h, self.recurrent_kernel)
            if self.bias is not None:
                inner = inner + self.bias[1]
        else:
            inner = ops.matmul(h, self.recurrent_kernel[:, : 2 * n])
        z = self.recurrent_activation(x[:, :n] + inner[:, :n])
        r = self.recurrent_activation(x[:, n : 2 * n] + inner[:, n : 2 * n])
        if self.reset_after:
            candidate = r * inner[:, 2 * n :]
        else:
            candidate = ops.matmul(r * h, self.recurrent_kernel[:, 2 * n :])
        g = self.activation(x[:, 2 * n :] + candidate)
        h = z * h + (1.0 - z) * g
        return h, [h] if nested else h

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "recurrent_activation": activations.serialize(self.recurrent_activation),
            "reset_after": self.reset_after,
        }


class StackedRNNCells(Layer):
    """Cells one behind the other as one cell: the output of each is the input of the next."""

    def __init__(self, cells: Sequence[Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for cell in cells:
            check_cell(cell)
        self.cells = list(cells)

    @property
    def state_size(self) -> list[Any]:
        """The state sizes of all cells."""
        return [cell.state_size for cell in self.cells]

    @property
    def output_size(self) -> int:
        """The output size of the last cell."""
        return output_size_of(self.cells[-1])

    def get_initial_state(self, batch_size: Any = None) -> list[Any]:
        """The initial states of all cells."""
        return [initial_state_of(cell, batch_size, self.compute_dtype) for cell in self.cells]

    def build(self, input_shape: Any = None) -> None:
        for cell in self.cells:
            if isinstance(cell, Layer) and not cell.built:
                cell.build(input_shape)
                cell.built = True
            input_shape = (input_shape[0], output_size_of(cell))

    def call(self, inputs: Any, states: Any, training: bool = False, **kwargs: Any) -> Any:
        outputs, new_states = inputs, []
        for cell, state in zip(self.cells, states, strict=True):
            outputs, new = call_cell(cell, outputs, state, training)
            new_states.append(new)
        return outputs, new_states

    def make_masks(self, inputs: Any, state: Any) -> None:
        """Draw the dropout masks of all cells."""
        for cell, held in zip(self.cells, state, strict=True):
            if isinstance(cell, BaseCell):
                cell.make_masks(inputs, held[0] if isinstance(held, (list, tuple)) else held)
            inputs = ops.zeros((inputs.shape[0], output_size_of(cell)), dtype=inputs.dtype)

    def forget_masks(self) -> None:
        """Let the next sequence draw its own masks."""
        for cell in self.cells:
            if isinstance(cell, BaseCell):
                cell.forget_masks()

    def get_config(self) -> dict[str, Any]:
        cells = [serialize_keras_object(cell) for cell in self.cells]
        return {**super().get_config(), "cells": cells}

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None
    ) -> StackedRNNCells:
        config = dict(config)
        cells = [deserialize_keras_object(cell, custom_objects) for cell in config.pop("cells")]
        return cls(cells, **config)


def check_cell(cell: Any) -> None:
    """Raise TypeError unless this can be a cell."""
    for what in ("call", "state_size"):
        if what not in dir(cell):
            raise TypeError(
                f"a cell has a method call(inputs, states) and an attribute state_size; "
                f"{type(cell).__name__} has no {what}."
            )


def output_size_of(cell: Any) -> int:
    """The length of a cell's output: its `output_size`, or the first of its state sizes."""
    given = getattr(cell, "output_size", None)
    return int(tree.flatten(cell.state_size)[0] if given is None else given)


def initial_state_of(cell: Any, batch_size: Any, dtype: str) -> Any:
    """The states with which a cell begins."""
    own = getattr(cell, "get_initial_state", None)
    if own is not None:
        return own(batch_size=batch_size)
    return zero_states(cell.state_size, batch_size, dtype)


def takes(function: Any, argument: str) -> bool:
    """Whether a function has an argument of this name, or takes any."""
    parameters = inspect.signature(function).parameters
    any_name = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    return argument in parameters or any_name


def call_cell(cell: Any, inputs: Any, states: Any, training: bool) -> tuple[Any, Any]:
    """One step of a cell, which may or may not know about training."""
    function = cell if callable(cell) else cell.call
    options = {"training": training} if takes(cell.call, "training") else {}
    outputs, new_states = function(inputs, states, **options)
    return outputs, new_states
