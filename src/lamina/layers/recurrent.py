"""Recurrent layers: a cell run over the steps of a sequence."""

from __future__ import annotations

from typing import Any

import numpy as np

from lamina import ops, tree
from lamina.errors import ShapeError, layout
from lamina.layers.cells import (
    GRUCell,
    LSTMCell,
    SimpleRNNCell,
    StackedRNNCells,
    call_cell,
    check_cell,
    initial_state_of,
    output_size_of,
)
from lamina.layers.layer import Layer
from lamina.serialization import deserialize_keras_object, serialize_keras_object
from lamina.tensor import Tensor, Variable, convert, outside_trace
from lamina.types import Batch


class KeptStates:
    """Holds the states of a stateful layer apart from its weights, which go into files."""

    def __init__(self) -> None:
        self.variables: list[Variable] = []


class RNN(Layer):
    """Runs a cell over the steps of sequences (batch, steps, ...).

    cell               a cell, or a list of cells that are stacked
    return_sequences   give the outputs of all steps (batch, steps, size), not only of the last
    return_state       give (output, *states) with the states after the last step
    go_backwards       begin with the last step; outputs come in the order of their computation
    stateful           begin each batch with the states that the one before has left, row by row;
                       needs a fixed batch size
    unroll             write the steps out instead of making a loop
    zero_output_for_mask
                       steps that a mask leaves out give zeros; otherwise the output before them

    A mask (batch, steps) leaves out steps: the states stay as they are.

    >>> layer = RNN(LSTMCell(4), return_sequences=True)
    >>> layer(np.ones((2, 5, 3), "float32")).shape
    (2, 5, 4)
    """

    supports_masking = True

    def __init__(
        self,
        cell: Any,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        zero_output_for_mask: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if isinstance(cell, (list, tuple)):
            cell = StackedRNNCells(cell)
        check_cell(cell)
        self.cell = cell
        self.return_sequences = return_sequences
        self.return_state = return_state
        self.go_backwards = go_backwards
        self.stateful = stateful
        self.unroll = unroll
        self.zero_output_for_mask = zero_output_for_mask
        size = cell.state_size
        self.state_size = list(size) if isinstance(size, (list, tuple)) else [size]
        self._kept = KeptStates()

    def build(self, sequences_shape: Any = None, initial_state_shape: Any = None) -> None:
        if isinstance(self.cell, Layer) and not self.cell.built:
            self.cell.build((sequences_shape[0], *sequences_shape[2:]))
            self.cell.built = True
        rows = sequences_shape[0]
        if self.stateful and isinstance(rows, (int, np.integer)):
            self._make_states(int(rows))

    def _make_states(self, rows: int) -> None:
        """The variables in which a stateful layer keeps its states between batches."""
        if not self._kept.variables:
            self._kept.variables = [
                Variable(x.numpy(), trainable=False, dtype=self.variable_dtype, name="rnn_state")
                for x in tree.flatten(self.get_initial_state(rows))
            ]

    @property
    def states(self) -> list[Variable] | None:
        """The states that a stateful layer keeps, once it knows its batch size."""
        return self._kept.variables or None

    def get_initial_state(self, batch_size: Any) -> list[Any]:
        """The states with which a batch of this size begins."""
        dtype = getattr(self.cell, "compute_dtype", self.compute_dtype)
        states = initial_state_of(self.cell, batch_size, dtype)
        return list(states) if isinstance(states, (list, tuple)) else [states]

    def reset_state(self) -> None:
        """Let a stateful layer begin at zero again."""
        for state in self.states or ():
            state.assign(np.zeros(state.shape, state.numpy().dtype))

    def reset_states(self) -> None:
        """`reset_state`, under its old name."""
        self.reset_state()

    # ------------------------------------------------------------------------------ call

    def call(
        self,
        sequences: Any,
        initial_state: Any = None,
        mask: Any = None,
        training: bool = False,
    ) -> Any:
        states = self._first_states(sequences, initial_state)
        mask = tree.flatten(mask)[0] if tree.is_nested(mask) else mask
        if training and hasattr(self.cell, "make_masks"):
            first = states if isinstance(self.cell, StackedRNNCells) else states[0]
            self.cell.make_masks(sequences[:, 0], first)
        try:
            output, outputs, states = self._run(sequences, states, mask, training)
        finally:
            if hasattr(self.cell, "forget_masks"):
                self.cell.forget_masks()
        if self.stateful and self._kept.variables:
            for held, state in zip(self._kept.variables, tree.flatten(states), strict=True):
                held.assign(state)
        result = outputs if self.return_sequences else output
        result = ops.cast(result, self.compute_dtype)
        return (result, *states) if self.return_state else result

    def _first_states(self, sequences: Any, given: Any) -> list[Any]:
        if given is None and self.stateful:
            given = self._kept_states(sequences)
        if given is None:
            given = self.get_initial_state(sequences.shape[0])
        elif not isinstance(given, (list, tuple)):
            given = [given]
        dtype = getattr(self.cell, "compute_dtype", self.compute_dtype)
        return list(tree.map_structure(lambda x: convert(x, dtype), list(given)))

    def _kept_states(self, sequences: Any) -> Any:
        """The states of the batch before, in the structure that the cell wants."""
        rows = sequences.shape[0]
        if not self._kept.variables:
            if isinstance(rows, Batch):
                raise ShapeError(
                    layout(
                        f"{self.name}: stateful=True needs a fixed batch size.",
                        [("inputs", str(convert(sequences).node.type))],
                        hint="give the batch size: Input(batch_shape=(rows, steps, features))",
                    )
                )
            with outside_trace():
                self._make_states(rows)
        states = self._kept.variables
        held = states[0].shape[0]
        if rows != held and not isinstance(rows, Batch):
            raise ShapeError(
                layout(
                    f"{self.name}: a stateful layer keeps its batch size.",
                    [
                        ("states", f"{held} rows"),
                        ("inputs", str(convert(sequences).node.type)),
                    ],
                    hint="build another layer for batches of another size",
                )
            )
        return tree.pack(self.get_initial_state(held), [state.value for state in states])

    def _step(self, x: Any, states: Any, training: bool) -> tuple[Any, list[Any]]:
        single = not isinstance(self.cell.state_size, (list, tuple))
        output, new = call_cell(self.cell, x, list(states), training)
        if single and not isinstance(new, (list, tuple)):
            new = [new]
        return output, list(new)

    def _run(
        self, sequences: Any, states: list[Any], mask: Any, training: bool
    ) -> tuple[Any, Any, list[Any]]:
        """(last output, all outputs or None, last states)."""
        steps = sequences.shape[1]
        if not isinstance(steps, int):
            raise ShapeError(f"{self.name}: the number of steps cannot be the batch axis.")
        if steps == 0:
            raise ShapeError(
                layout(
                    f"{self.name}: a sequence needs one step or more.",
                    [("inputs", str(convert(sequences).node.type))],
                )
            )
        by_step = (1, 0, *range(2, len(sequences.shape)))
        x = ops.transpose(sequences, by_step)
        kept = None if mask is None else ops.transpose(ops.cast(mask, "bool"), (1, 0))
        # Where the first state is the output, the last one need not be carried apart.
        plain = getattr(self.cell, "output_is_first_state", False) and not (
            kept is not None and self.zero_output_for_mask
        )
        before = None if plain else self._no_output(sequences)

        def step(carry: Any, now: Any) -> tuple[Any, Any]:
            held, last = carry
            x_t, kept_t = now if kept is not None else (now, None)
            output, new = self._step(x_t, held, training)
            if kept_t is not None:
                old_output = held[0] if plain else last
                if self.zero_output_for_mask:
                    old_output = ops.zeros_like(output)
                output = _choose(kept_t, output, old_output)
                new = tree.map_structure(lambda a, b: _choose(kept_t, a, b), new, list(held))
            carried = () if plain else output
            return (new, carried), output if self.return_sequences else None

        carry: Any = (states, () if plain else before)
        xs = x if kept is None else (x, kept)
        if self.unroll:
            carry, outputs = self._unrolled(step, carry, xs, steps)
        else:
            carry, outputs = ops.scan(step, carry, xs, reverse=self.go_backwards)
            if self.go_backwards and outputs is not None:
                outputs = ops.flip(outputs, 0)
        states, last = carry
        if outputs is not None:
            outputs = ops.transpose(outputs, (1, 0, *range(2, len(outputs.shape))))
        return states[0] if plain else last, outputs, list(states)

    def _unrolled(self, step: Any, carry: Any, xs: Any, steps: int) -> tuple[Any, Any]:
        order = reversed(range(steps)) if self.go_backwards else range(steps)
        outputs = []
        for place in order:
            now = tree.map_structure(lambda x, at=place: x[at], xs)
            carry, output = step(carry, now)
            outputs.append(output)
        return carry, ops.stack(outputs, 0) if self.return_sequences else None

    def _no_output(self, sequences: Any) -> Tensor:
        dtype = getattr(self.cell, "compute_dtype", self.compute_dtype)
        zeros: Tensor = ops.zeros((sequences.shape[0], output_size_of(self.cell)), dtype=dtype)
        return zeros

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        mask = tree.flatten(previous_mask)[0] if tree.is_nested(previous_mask) else previous_mask
        kept = mask if self.return_sequences else None
        return [kept, *(None for _ in self.state_size)] if self.return_state else kept

    # ---------------------------------------------------------------------------- config

    def options(self) -> dict[str, Any]:
        """The arguments that say how the cell is run."""
        names = ("return_sequences", "return_state", "go_backwards", "stateful", "unroll")
        known = {name: getattr(self, name) for name in names}
        return {**known, "zero_output_for_mask": self.zero_output_for_mask}

    def get_config(self) -> dict[str, Any]:
        cell = serialize_keras_object(self.cell)
        return {**super().get_config(), **self.options(), "cell": cell}

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None
    ) -> Any:
        if "cell" not in config:
            return cls(**config)
        config = dict(config)
        cell = deserialize_keras_object(config.pop("cell"), custom_objects)
        return cls(cell, **config)


def _choose(kept: Any, new: Any, old: Any) -> Any:
    """Row by row the new value, or the old one where the mask leaves the step out."""
    flag = ops.reshape(kept, (*kept.shape, *(1 for _ in range(len(new.shape) - 1))))
    return ops.where(flag, new, old)


class CellLayer(RNN):
    """A layer made of one kind of cell, whose arguments it takes itself."""

    CELL: type[Any]

    def __init__(self, arguments: dict[str, Any], kwargs: dict[str, Any], **options: bool) -> None:
        activity = kwargs.pop("activity_regularizer", None)
        kwargs.pop("implementation", None)
        kwargs.pop("time_major", None)
        zero = kwargs.pop("zero_output_for_mask", False)
        policy = {key: kwargs[key] for key in ("dtype", "trainable") if key in kwargs}
        cell = self.CELL(**arguments, **policy)
        super().__init__(
            cell,
            zero_output_for_mask=zero,
            activity_regularizer=activity,
            **options,
            **kwargs,
        )

    @property
    def units(self) -> int:
        """The size of the output."""
        return int(self.cell.units)

    @property
    def dropout(self) -> float:
        """The share of the inputs that training drops."""
        return float(self.cell.dropout)

    @property
    def recurrent_dropout(self) -> float:
        """The share of the state that training drops."""
        return float(self.cell.recurrent_dropout)

    def get_config(self) -> dict[str, Any]:
        outer = Layer.get_config(self)
        inner = self.cell.get_config()
        for name in ("name", "trainable", "dtype"):
            inner.pop(name, None)
        return {**outer, **self.options(), **inner}


class SimpleRNN(CellLayer):
    """h' = activation(x W + h U + b) over the steps of a sequence; see `RNN`, `SimpleRNNCell`."""

    CELL = SimpleRNNCell

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
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        recurrent_constraint: Any = None,
        bias_constraint: Any = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        seed: Any = None,
        **kwargs: Any,
    ) -> None:
        arguments = {
            "units": units,
            "activation": activation,
            "use_bias": use_bias,
            "kernel_initializer": kernel_initializer,
            "recurrent_initializer": recurrent_initializer,
            "bias_initializer": bias_initializer,
            "kernel_regularizer": kernel_regularizer,
            "recurrent_regularizer": recurrent_regularizer,
            "bias_regularizer": bias_regularizer,
            "kernel_constraint": kernel_constraint,
            "recurrent_constraint": recurrent_constraint,
            "bias_constraint": bias_constraint,
            "dropout": dropout,
            "recurrent_dropout": recurrent_dropout,
            "seed": seed,
        }
        super().__init__(
            arguments,
            {**kwargs, "activity_regularizer": activity_regularizer},
            return_sequences=return_sequences,
            return_state=return_state,
            go_backwards=go_backwards,
            stateful=stateful,
            unroll=unroll,
        )


class LSTM(CellLayer):
    """Long short-term memory over the steps of a sequence; see `RNN` and `LSTMCell`.

    >>> LSTM(4, return_state=True)(np.ones((2, 5, 3), "float32"))[1].shape
    (2, 4)
    """

    CELL = LSTMCell

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
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        recurrent_constraint: Any = None,
        bias_constraint: Any = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        seed: Any = None,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        use_cudnn: Any = "auto",
        **kwargs: Any,
    ) -> None:
        del use_cudnn
        arguments = {
            "units": units,
            "activation": activation,
            "recurrent_activation": recurrent_activation,
            "use_bias": use_bias,
            "kernel_initializer": kernel_initializer,
            "recurrent_initializer": recurrent_initializer,
            "bias_initializer": bias_initializer,
            "unit_forget_bias": unit_forget_bias,
            "kernel_regularizer": kernel_regularizer,
            "recurrent_regularizer": recurrent_regularizer,
            "bias_regularizer": bias_regularizer,
            "kernel_constraint": kernel_constraint,
            "recurrent_constraint": recurrent_constraint,
            "bias_constraint": bias_constraint,
            "dropout": dropout,
            "recurrent_dropout": recurrent_dropout,
            "seed": seed,
        }
        super().__init__(
            arguments,
            {**kwargs, "activity_regularizer": activity_regularizer},
            return_sequences=return_sequences,
            return_state=return_state,
            go_backwards=go_backwards,
            stateful=stateful,
            unroll=unroll,
        )


class GRU(CellLayer):
    """Gated recurrent unit over the steps of a sequence; see `RNN` and `GRUCell`."""

    CELL = GRUCell

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
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        recurrent_constraint: Any = None,
        bias_constraint: Any = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        seed: Any = None,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        reset_after: bool = True,
        use_cudnn: Any = "auto",
        **kwargs: Any,
    ) -> None:
        del use_cudnn
        arguments = {
            "units": units,
            "activation": activation,
            "recurrent_activation": recurrent_activation,
            "use_bias": use_bias,
            "kernel_initializer": kernel_initializer,
            "recurrent_initializer": recurrent_initializer,
            "bias_initializer": bias_initializer,
            "kernel_regularizer": kernel_regularizer,
            "recurrent_regularizer": recurrent_regularizer,
            "bias_regularizer": bias_regularizer,
            "kernel_constraint": kernel_constraint,
            "recurrent_constraint": recurrent_constraint,
            "bias_constraint": bias_constraint,
            "dropout": dropout,
            "recurrent_dropout": recurrent_dropout,
            "reset_after": reset_after,
            "seed": seed,
        }
        super().__init__(
            arguments,
            {**kwargs, "activity_regularizer": activity_regularizer},
            return_sequences=return_sequences,
            return_state=return_state,
            go_backwards=go_backwards,
            stateful=stateful,
            unroll=unroll,
        )
