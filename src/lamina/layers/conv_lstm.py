"""LSTM layers whose products are convolutions, for sequences of images (Shi et al. 2015)."""

from __future__ import annotations

from typing import Any, ClassVar

from lamina import config, ops
from lamina.errors import ShapeError, layout
from lamina.layers.cells import LSTMCell
from lamina.layers.recurrent import CellLayer
from lamina.layers.rules import add_ruled
from lamina.layers.spec import InputSpec
from lamina.ops.conv import padding_of, per_axis


class ConvLSTMCell(LSTMCell):
    """An LSTM cell on images: W x and U h are convolutions, the second always of "same" size.

    In training one dropout mask serves all four gates.
    """

    def __init__(
        self,
        rank: int,
        filters: int,
        kernel_size: Any,
        strides: Any = 1,
        padding: str = "valid",
        data_format: str | None = None,
        dilation_rate: Any = 1,
        **arguments: Any,
    ) -> None:
        super().__init__(filters, **arguments)
        self.rank = rank
        self.filters = filters
        self.kernel_size = per_axis(kernel_size, rank, f"{self.name}: kernel_size")
        self.strides = per_axis(strides, rank, f"{self.name}: strides")
        self.dilation_rate = per_axis(dilation_rate, rank, f"{self.name}: dilation_rate")
        self.padding = padding.lower()
        self.data_format = data_format or config.image_data_format()
        if max(self.strides) > 1 and max(self.dilation_rate) > 1:
            raise ValueError(f"{self.name}: strides or dilation_rate may be above 1, not both.")
        self._state_shape: tuple[int, ...] = ()

    def build(self, input_shape: Any = None) -> None:
        first = self.data_format == "channels_first"
        channels = input_shape[1 if first else -1]
        image = input_shape[2:] if first else input_shape[1:-1]
        if channels is None or None in image:
            raise ShapeError(
                layout(
                    f"{self.name}: sizes of images and channels must be known.",
                    [("inputs", str(tuple(input_shape)))],
                )
            )
        gates = 4 * self.filters
        self.kernel = add_ruled(self, "kernel", (*self.kernel_size, channels, gates))
        self.recurrent_kernel = add_ruled(
            self, "recurrent", (*self.kernel_size, self.filters, gates), "recurrent_kernel"
        )
        if self.use_bias:
            self.bias = self.add_bias()
        pads = padding_of(self.padding, image, self.kernel_size, self.strides, self.dilation_rate)
        sizes = tuple(
            (n + low + high - (k - 1) * spread - 1) // stride + 1
            for n, k, stride, spread, (low, high) in zip(
                image, self.kernel_size, self.strides, self.dilation_rate, pads, strict=True
            )
        )
        self._state_shape = (self.filters, *sizes) if first else (*sizes, self.filters)

    def call(self, inputs: Any, states: Any, training: bool = False) -> Any:
        h, c = states
        inputs, h = self.dropped(inputs, h, training)
        form = self.data_format
        z = ops.conv(inputs, self.kernel, self.strides, self.padding, form, self.dilation_rate)
        if self.bias is not None:
            ones = (1,) * self.rank
            shape = (-1, *ones) if form == "channels_first" else (*ones, -1)
            z = z + ops.reshape(self.bias, shape)
        z = z + ops.conv(h, self.recurrent_kernel, 1, "same", form)
        gate = self.recurrent_activation
        i, f, g, o = ops.split(z, 4, axis=1 if form == "channels_first" else -1)
        c = gate(f) * c + gate(i) * self.activation(g)
        h = gate(o) * self.activation(c)
        return h, [h, c]

    def get_initial_state(self, batch_size: Any = None) -> list[Any]:
        shape = (batch_size, *self._state_shape)
        return [ops.zeros(shape, dtype=self.compute_dtype) for _ in range(2)]

    def get_config(self) -> dict[str, Any]:
        known = super().get_config()
        del known["units"]
        names = ("filters", "kernel_size", "strides", "padding", "data_format", "dilation_rate")
        return {**{name: getattr(self, name) for name in names}, **known}


class ConvLSTM(CellLayer):
    """A `ConvLSTMCell` over the steps of sequences of images (batch, steps, image..., channels)."""

    RANK: ClassVar[int]
    CELL = ConvLSTMCell

    def __init__(
        self,
        filters: int,
        kernel_size: Any,
        strides: Any = 1,
        padding: str = "valid",
        data_format: str | None = None,
        dilation_rate: Any = 1,
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
        **kwargs: Any,
    ) -> None:
        arguments = {
            "rank": self.RANK,
            "filters": filters,
            "kernel_size": kernel_size,
            "strides": strides,
            "padding": padding,
            "data_format": data_format,
            "dilation_rate": dilation_rate,
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
        )
        self.input_spec = InputSpec(ndim=self.RANK + 3)


class ConvLSTM1D(ConvLSTM):
    """Convolutional LSTM over (batch, steps, cells, channels)."""

    RANK = 1


class ConvLSTM2D(ConvLSTM):
    """Convolutional LSTM over (batch, steps, height, width, channels)."""

    RANK = 2


class ConvLSTM3D(ConvLSTM):
    """Convolutional LSTM over (batch, steps, a, b, c, channels)."""

    RANK = 3
