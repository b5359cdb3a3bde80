"""Convolutions over one, two or three axes: plain, transposed, depthwise and separable."""

from __future__ import annotations

from typing import Any, ClassVar

from lamina import activations, config, ops
from lamina.errors import ShapeError, layout
from lamina.layers.layer import Layer
from lamina.layers.rules import add_ruled, rules_config, set_rules
from lamina.layers.spec import InputSpec
from lamina.ops.conv import per_axis
from lamina.tensor import Variable

FORMATS = ("channels_last", "channels_first")


class BaseConvolution(Layer):
    """What all convolutions share: sizes, padding, data format, bias and activation."""

    RANK: ClassVar[int]
    PADDINGS: ClassVar[tuple[str, ...]] = ("valid", "same")
    bias: Variable | None

    def __init__(
        self,
        kernel_size: Any,
        strides: Any,
        padding: str,
        data_format: str | None,
        dilation_rate: Any,
        activation: Any,
        use_bias: bool,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.kernel_size = per_axis(kernel_size, self.RANK, f"{self.name}: kernel_size")
        self.strides = per_axis(strides, self.RANK, f"{self.name}: strides")
        self.dilation_rate = per_axis(dilation_rate, self.RANK, f"{self.name}: dilation_rate")
        self.padding = padding.lower()
        self.data_format = data_format or config.image_data_format()
        for what, given, known in (
            ("padding", self.padding, self.PADDINGS),
            ("data_format", self.data_format, FORMATS),
        ):
            if given not in known:
                raise ValueError(
                    f"{self.name}: {what} is one of {', '.join(known)}, got {given!r}."
                )
        self.activation = activations.get(activation)
        self.use_bias = use_bias
        self.bias = None
        self.input_spec = InputSpec(min_ndim=self.RANK + 2, max_ndim=self.RANK + 2)

    @property
    def channel_axis(self) -> int:
        """Where the channels stand."""
        return 1 if self.data_format == "channels_first" else -1

    def check_count(self, what: str, value: Any) -> None:
        """Raise unless a number of filters or groups is a positive integer."""
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{self.name}: {what} is a positive integer, got {value!r}.")

    def channels_of(self, input_shape: Any) -> int:
        """The number of channels, which must be known when the weights are made."""
        channels = input_shape[self.channel_axis]
        if channels is None:
            raise ShapeError(
                layout(
                    f"{self.name}: the number of channels must be known.",
                    [("inputs", str(tuple(input_shape)))],
                )
            )
        self.input_spec = InputSpec(
            ndim=self.RANK + 2, axes={self.channel_axis % (self.RANK + 2): channels}
        )
        return int(channels)

    def finish(self, outputs: Any) -> Any:
        """Add the bias, apply the activation."""
        if self.bias is not None:
            bias: Any = self.bias.value
            if self.data_format == "channels_first":
                bias = ops.reshape(bias, (-1, *(1 for _ in range(self.RANK))))
            outputs = outputs + bias
        return self.activation(outputs)

    def base_config(self, *first: str) -> dict[str, Any]:
        """The arguments that all convolutions have, `first` being those of this one."""
        names = (*first, "kernel_size", "strides", "padding", "data_format", "dilation_rate")
        return {
            **super().get_config(),
            **{name: getattr(self, name) for name in names},
            "activation": activations.serialize(self.activation),
            "use_bias": self.use_bias,
        }


class Convolution(BaseConvolution):
    """Convolution with a kernel (window..., channels / groups, filters)."""

    kernel: Variable

    def __init__(
        self,
        filters: int,
        kernel_size: Any,
        strides: Any = 1,
        padding: str = "valid",
        data_format: str | None = None,
        dilation_rate: Any = 1,
        groups: int = 1,
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            kernel_size,
            strides,
            padding,
            data_format,
            dilation_rate,
            activation,
            use_bias,
            activity_regularizer=activity_regularizer,
            **kwargs,
        )
        self.check_count("filters", filters)
        self.check_count("groups", groups)
        if filters % groups:
            raise ValueError(
                f"{self.name}: filters ({filters}) must be a multiple of groups ({groups})."
            )
        self.filters = filters
        self.groups = groups
        set_rules(self, "kernel", kernel_initializer, kernel_regularizer, kernel_constraint)
        set_rules(self, "bias", bias_initializer, bias_regularizer, bias_constraint)

    def build(self, input_shape: Any = None) -> None:
        channels = self.channels_of(input_shape)
        if channels % self.groups:
            raise ShapeError(
                layout(
                    f"{self.name}: {channels} channels cannot form {self.groups} groups.",
                    [("inputs", str(tuple(input_shape)))],
                )
            )
        shape = (*self.kernel_size, channels // self.groups, self.filters)
        self.kernel = add_ruled(self, "kernel", shape)
        if self.use_bias:
            self.bias = add_ruled(self, "bias", (self.filters,))

    def call(self, inputs: Any) -> Any:
        outputs = ops.conv(
            inputs, self.kernel, self.strides, self.padding, self.data_format, self.dilation_rate
        )
        return self.finish(outputs)

    def get_config(self) -> dict[str, Any]:
        known = {**self.base_config("filters"), "groups": self.groups}
        return {**known, **rules_config(self, "kernel", "bias")}


class Conv1D(Convolution):
    """Convolution over sequences (batch, steps, channels): (batch, new steps, filters).

    filters         number of output channels
    kernel_size     length of the window
    strides         step of the window
    padding         "valid" (none), "same" (as many steps as before, divided by the stride),
                    "causal" (zeros before the first step only)
    data_format     "channels_last" or "channels_first"
    dilation_rate   distance of the window's cells
    groups          groups of channels that are convolved apart

    >>> import numpy as np
    >>> Conv1D(4, 3, padding="causal")(np.ones((2, 5, 1), "float32")).shape
    (2, 5, 4)
    """

    RANK = 1
    PADDINGS = ("valid", "same", "causal")


class Conv2D(Convolution):
    """Convolution over images (batch, height, width, channels); arguments as for `Conv1D`.

    >>> import numpy as np
    >>> Conv2D(8, 3, strides=2, padding="same")(np.ones((2, 9, 9, 3), "float32")).shape
    (2, 5, 5, 8)
    """

    RANK = 2


class Conv3D(Convolution):
    """Convolution over volumes (batch, a, b, c, channels); arguments as for `Conv1D`."""

    RANK = 3


class TransposedConvolution(BaseConvolution):
    """The transpose of a convolution, with a kernel (window..., filters, channels)."""

    kernel: Variable

    def __init__(
        self,
        filters: int,
        kernel_size: Any,
        strides: Any = 1,
        padding: str = "valid",
        output_padding: Any = None,
        data_format: str | None = None,
        dilation_rate: Any = 1,
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            kernel_size,
            strides,
            padding,
            data_format,
            dilation_rate,
            activation,
            use_bias,
            activity_regularizer=activity_regularizer,
            **kwargs,
        )
        self.check_count("filters", filters)
        self.filters = filters
        given = isinstance(output_padding, int)
        self.output_padding = (output_padding,) * self.RANK if given else output_padding
        if self.output_padding is not None and any(
            extra >= stride for extra, stride in zip(self.output_padding, self.strides, strict=True)
        ):
            raise ValueError(
                f"{self.name}: output_padding {self.output_padding} must be less than strides "
                f"{self.strides}."
            )
        set_rules(self, "kernel", kernel_initializer, kernel_regularizer, kernel_constraint)
        set_rules(self, "bias", bias_initializer, bias_regularizer, bias_constraint)

    def build(self, input_shape: Any = None) -> None:
        channels = self.channels_of(input_shape)
        self.kernel = add_ruled(self, "kernel", (*self.kernel_size, self.filters, channels))
        if self.use_bias:
            self.bias = add_ruled(self, "bias", (self.filters,))

    def call(self, inputs: Any) -> Any:
        outputs = ops.conv_transpose(
            inputs,
            self.kernel,
            self.strides,
            self.padding,
            self.output_padding,
            self.data_format,
            self.dilation_rate,
        )
        return self.finish(outputs)

    def get_config(self) -> dict[str, Any]:
        known = {**self.base_config("filters"), "output_padding": self.output_padding}
        return {**known, **rules_config(self, "kernel", "bias")}


class Conv1DTranspose(TransposedConvolution):
    """Transposed convolution over sequences: `strides` times as many steps come out.

    output_padding   steps that are added at the end; None chooses so that "same" gives exactly
                     `strides` times the steps; the other arguments as for `Conv1D`
    """

    RANK = 1


class Conv2DTranspose(TransposedConvolution):
    """Transposed convolution over images; arguments as for `Conv1DTranspose`.

    >>> import numpy as np
    >>> Conv2DTranspose(3, 3, strides=2, padding="same")(np.ones((2, 4, 4, 8), "float32")).shape
    (2, 8, 8, 3)
    """

    RANK = 2


class Conv3DTranspose(TransposedConvolution):
    """Transposed convolution over volumes; arguments as for `Conv1DTranspose`."""

    RANK = 3


class DepthwiseConvolution(BaseConvolution):
    """Each channel convolved by itself, with a kernel (window..., channels, depth_multiplier)."""

    kernel: Variable

    def __init__(
        self,
        kernel_size: Any,
        strides: Any = 1,
        padding: str = "valid",
        depth_multiplier: int = 1,
        data_format: str | None = None,
        dilation_rate: Any = 1,
        activation: Any = None,
        use_bias: bool = True,
        depthwise_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        depthwise_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        depthwise_constraint: Any = None,
        bias_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            kernel_size,
            strides,
            padding,
            data_format,
            dilation_rate,
            activation,
            use_bias,
            activity_regularizer=activity_regularizer,
            **kwargs,
        )
        self.check_count("depth_multiplier", depth_multiplier)
        self.depth_multiplier = depth_multiplier
        set_rules(
            self, "depthwise", depthwise_initializer, depthwise_regularizer, depthwise_constraint
        )
        set_rules(self, "bias", bias_initializer, bias_regularizer, bias_constraint)

    def build(self, input_shape: Any = None) -> None:
        channels = self.channels_of(input_shape)
        shape = (*self.kernel_size, channels, self.depth_multiplier)
        self.kernel = add_ruled(self, "depthwise", shape, "kernel")
        if self.use_bias:
            self.bias = add_ruled(self, "bias", (channels * self.depth_multiplier,))

    def call(self, inputs: Any) -> Any:
        outputs = ops.depthwise_conv(
            inputs, self.kernel, self.strides, self.padding, self.data_format, self.dilation_rate
        )
        return self.finish(outputs)

    def get_config(self) -> dict[str, Any]:
        return {**self.base_config("depth_multiplier"), **rules_config(self, "depthwise", "bias")}


class DepthwiseConv1D(DepthwiseConvolution):
    """Depthwise convolution over sequences: `depth_multiplier` filters for each channel."""

    RANK = 1
    PADDINGS = ("valid", "same", "causal")


class DepthwiseConv2D(DepthwiseConvolution):
    """Depthwise convolution over images: `depth_multiplier` filters for each channel."""

    RANK = 2


class SeparableConvolution(BaseConvolution):
    """A depthwise convolution, then one of window size 1 that mixes the channels."""

    depthwise_kernel: Variable
    pointwise_kernel: Variable

    def __init__(
        self,
        filters: int,
        kernel_size: Any,
        strides: Any = 1,
        padding: str = "valid",
        data_format: str | None = None,
        dilation_rate: Any = 1,
        depth_multiplier: int = 1,
        activation: Any = None,
        use_bias: bool = True,
        depthwise_initializer: Any = "glorot_uniform",
        pointwise_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        depthwise_regularizer: Any = None,
        pointwise_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        depthwise_constraint: Any = None,
        pointwise_constraint: Any = None,
        bias_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            kernel_size,
            strides,
            padding,
            data_format,
            dilation_rate,
            activation,
            use_bias,
            activity_regularizer=activity_regularizer,
            **kwargs,
        )
        self.check_count("filters", filters)
        self.check_count("depth_multiplier", depth_multiplier)
        self.filters = filters
        self.depth_multiplier = depth_multiplier
        set_rules(
            self, "depthwise", depthwise_initializer, depthwise_regularizer, depthwise_constraint
        )
        set_rules(
            self, "pointwise", pointwise_initializer, pointwise_regularizer, pointwise_constraint
        )
        set_rules(self, "bias", bias_initializer, bias_regularizer, bias_constraint)

    def build(self, input_shape: Any = None) -> None:
        channels = self.channels_of(input_shape)
        middle = channels * self.depth_multiplier
        shape = (*self.kernel_size, channels, self.depth_multiplier)
        self.depthwise_kernel = add_ruled(self, "depthwise", shape, "depthwise_kernel")
        ones = (1,) * self.RANK
        self.pointwise_kernel = add_ruled(
            self, "pointwise", (*ones, middle, self.filters), "pointwise_kernel"
        )
        if self.use_bias:
            self.bias = add_ruled(self, "bias", (self.filters,))

    def call(self, inputs: Any) -> Any:
        outputs = ops.separable_conv(
            inputs,
            self.depthwise_kernel,
            self.pointwise_kernel,
            self.strides,
            self.padding,
            self.data_format,
            self.dilation_rate,
        )
        return self.finish(outputs)

    def get_config(self) -> dict[str, Any]:
        known = self.base_config("depth_multiplier", "filters")
        return {**known, **rules_config(self, "depthwise", "pointwise", "bias")}


class SeparableConv1D(SeparableConvolution):
    """Separable convolution over sequences; `depth_multiplier` filters a channel between."""

    RANK = 1
    PADDINGS = ("valid", "same", "causal")


class SeparableConv2D(SeparableConvolution):
    """Separable convolution over images (Chollet 2017); arguments as for `SeparableConv1D`."""

    RANK = 2


Convolution1D = Conv1D
Convolution2D = Conv2D
Convolution3D = Conv3D
Convolution1DTranspose = Conv1DTranspose
Convolution2DTranspose = Conv2DTranspose
Convolution3DTranspose = Conv3DTranspose
DepthwiseConvolution1D = DepthwiseConv1D
DepthwiseConvolution2D = DepthwiseConv2D
SeparableConvolution1D = SeparableConv1D
SeparableConvolution2D = SeparableConv2D
