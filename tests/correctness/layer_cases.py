"""The layers that are compared with formulas, with twins and with real Keras."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lamina import layers, ops
from lamina.tensor import convert, recording
from lamina.trace import gradient_nodes


@dataclass
class Case:
    """A layer by name, its arguments, the shapes of its inputs, and how it is called."""

    name: str
    arguments: tuple[Any, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    shapes: tuple[tuple[int, ...], ...] = ((2, 5, 3),)
    call: dict[str, Any] = field(default_factory=dict)
    as_list: bool = False
    whole_numbers: int = 0
    inner: tuple[str, tuple[Any, ...], dict[str, Any]] | None = None

    def __str__(self) -> str:
        parts = [self.name, *map(str, self.arguments)]
        parts += [f"{key}={value}" for key, value in {**self.options, **self.call}.items()]
        return "-".join(parts).replace(" ", "")

    def make(self, module: Any, **extra: Any) -> Any:
        """The layer, from lamina.layers or keras.layers."""
        arguments = self.arguments
        if self.inner is not None:
            name, given, options = self.inner
            arguments = (getattr(module, name)(*given, **options, **extra), *arguments)
        return getattr(module, self.name)(*arguments, **self.options, **extra)

    def inputs(self, dtype: str = "float32") -> list[np.ndarray]:
        rng = np.random.default_rng(11)
        if self.whole_numbers:
            return [rng.integers(0, self.whole_numbers, s).astype("int32") for s in self.shapes]
        return [rng.normal(size=shape).astype(dtype) for shape in self.shapes]

    def arguments_of(self, inputs: Any) -> tuple[Any, ...]:
        return (list(inputs),) if self.as_list else tuple(inputs)


IMAGE = ((2, 7, 6, 4),)
VOLUME = ((2, 4, 5, 4, 2),)
SEQUENCE = ((2, 6, 3),)
RUN = {"return_sequences": True, "return_state": True}

CASES = [
    Case("Conv1D", (4, 3), {"padding": "causal", "dilation_rate": 2}, SEQUENCE),
    Case("Conv1D", (4, 2), {"padding": "same", "strides": 2, "activation": "relu"}, SEQUENCE),
    Case("Conv2D", (5, 3), {}, IMAGE),
    Case("Conv2D", (5, (3, 2)), {"padding": "same", "strides": 2, "use_bias": False}, IMAGE),
    Case("Conv2D", (6, 3), {"groups": 2, "padding": "same"}, IMAGE),
    Case("Conv2D", (3, 2), {"dilation_rate": 2, "activation": "tanh"}, IMAGE),
    Case("Conv3D", (3, 2), {"padding": "same"}, VOLUME),
    Case("Conv1DTranspose", (3, 3), {"strides": 2, "padding": "same"}, SEQUENCE),
    Case("Conv2DTranspose", (3, 3), {"strides": 2, "padding": "same"}, IMAGE),
    Case("Conv2DTranspose", (3, 3), {"strides": 2, "padding": "valid"}, IMAGE),
    Case("Conv2DTranspose", (3, 2), {"strides": 3, "padding": "valid"}, IMAGE),
    Case("Conv2DTranspose", (3, 3), {"strides": 2, "padding": "same", "output_padding": 1}, IMAGE),
    Case("Conv2DTranspose", (3, 3), {"strides": 2, "padding": "valid", "output_padding": 0}, IMAGE),
    Case("Conv2DTranspose", (3, 3), {"dilation_rate": 2, "padding": "same"}, IMAGE),
    Case("DepthwiseConv1D", (3,), {"depth_multiplier": 2, "padding": "same"}, SEQUENCE),
    Case("DepthwiseConv2D", (3,), {"depth_multiplier": 2}, IMAGE),
    Case("SeparableConv1D", (4, 3), {"padding": "same"}, SEQUENCE),
    Case("SeparableConv2D", (4, 3), {"depth_multiplier": 2, "strides": 2}, IMAGE),
    Case("MaxPooling1D", (2,), {}, SEQUENCE),
    Case("MaxPooling2D", (2,), {"padding": "same"}, IMAGE),
    Case("MaxPooling2D", (3,), {"strides": 2}, IMAGE),
    Case("MaxPooling3D", (2,), {}, VOLUME),
    Case("AveragePooling1D", (3,), {"strides": 1, "padding": "same"}, SEQUENCE),
    Case("AveragePooling2D", (2,), {"padding": "same"}, IMAGE),
    Case("AveragePooling3D", (2,), {}, VOLUME),
    Case("GlobalMaxPooling1D", (), {}, SEQUENCE),
    Case("GlobalMaxPooling2D", (), {"keepdims": True}, IMAGE),
    Case("GlobalAveragePooling1D", (), {}, SEQUENCE),
    Case("GlobalAveragePooling2D", (), {}, IMAGE),
    Case("GlobalAveragePooling3D", (), {}, VOLUME),
    Case("AdaptiveAveragePooling2D", (3,), {}, IMAGE),
    Case("AdaptiveMaxPooling1D", (2,), {}, SEQUENCE),
    Case("BatchNormalization", (), {}, IMAGE),
    Case("BatchNormalization", (), {}, IMAGE, {"training": True}),
    Case("BatchNormalization", (), {"axis": 1, "scale": False}, IMAGE, {"training": True}),
    Case("LayerNormalization", (), {}, SEQUENCE),
    Case("LayerNormalization", (), {"axis": [1, 2], "center": False}, SEQUENCE),
    Case("GroupNormalization", (2,), {}, IMAGE),
    Case("GroupNormalization", (-1,), {"scale": False}, IMAGE),
    Case("RMSNormalization", (), {}, SEQUENCE),
    Case("UnitNormalization", (), {}, SEQUENCE),
    Case("Embedding", (9, 4), {}, ((2, 5),), whole_numbers=9),
    Case("SimpleRNN", (4,), {}, SEQUENCE),
    Case("SimpleRNN", (4,), {**RUN, "go_backwards": True}, SEQUENCE),
    Case("LSTM", (4,), {}, SEQUENCE),
    Case("LSTM", (4,), {**RUN}, SEQUENCE),
    Case("LSTM", (4,), {"return_sequences": True, "go_backwards": True}, SEQUENCE),
    Case("LSTM", (4,), {"use_bias": False, "recurrent_activation": "hard_sigmoid"}, SEQUENCE),
    Case("GRU", (4,), {}, SEQUENCE),
    Case("GRU", (4,), {**RUN, "go_backwards": True}, SEQUENCE),
    Case("GRU", (4,), {"reset_after": False, "activation": "relu"}, SEQUENCE),
    Case("Bidirectional", (), {}, SEQUENCE, inner=("LSTM", (4,), {"return_sequences": True})),
    Case("Bidirectional", (), {"merge_mode": "sum"}, SEQUENCE, inner=("GRU", (4,), {})),
    Case("Bidirectional", (), {"merge_mode": None}, SEQUENCE, inner=("LSTM", (3,), RUN)),
    Case("ConvLSTM1D", (2, 3), {"padding": "same"}, ((2, 3, 5, 2),)),
    Case("ConvLSTM2D", (2, 2), {"strides": 2, **RUN}, ((2, 3, 5, 4, 2),)),
    Case("SpectralNormalization", (), {}, ((3, 4),), inner=("Dense", (5,), {})),
    Case(
        "SpectralNormalization",
        (),
        {"power_iterations": 2},
        ((2, 5, 4, 3),),
        {"training": True},
        inner=("Conv2D", (4, 2), {}),
    ),
    Case("TimeDistributed", (), {}, SEQUENCE, inner=("Dense", (4,), {"activation": "tanh"})),
    Case("TimeDistributed", (), {}, ((2, 3, 5, 4, 2),), inner=("Conv2D", (3, 2), {})),
    Case("EinsumDense", ("abc,cd->abd", (None, 4)), {"bias_axes": "d"}, SEQUENCE),
    Case("EinsumDense", ("...x,xy->...y", 4), {}, SEQUENCE),
    Case("EinsumDense", ("abc,cde->abde", (None, 2, 4)), {"bias_axes": "de"}, SEQUENCE),
    Case("MultiHeadAttention", (2, 3), {}, ((2, 5, 4), (2, 6, 3))),
    Case(
        "MultiHeadAttention",
        (2, 3),
        {"value_dim": 4, "output_shape": 5},
        ((2, 5, 4), (2, 5, 4)),
        # Without the scores, Keras 3.15 fails for values of another size than the keys.
        {"return_attention_scores": True},
    ),
    Case("MultiHeadAttention", (2, 3), {}, ((2, 5, 4), (2, 5, 4)), {"use_causal_mask": True}),
    Case(
        "MultiHeadAttention",
        (2, 3),
        {"use_bias": False, "sliding_window": 2},
        ((2, 5, 4), (2, 5, 4), (2, 5, 4)),
        {"return_attention_scores": True},
    ),
    Case("MultiHeadAttention", (2, 3), {"use_gate": True}, ((2, 5, 4), (2, 5, 4))),
    Case("MultiHeadAttention", (2, 3), {}, ((2, 3, 2, 4), (2, 4, 3, 4))),
    Case("MultiHeadAttention", (2, 3), {"attention_axes": (2,)}, ((2, 3, 2, 4), (2, 3, 5, 4))),
    Case("GroupQueryAttention", (3, 4, 2), {}, ((2, 5, 4), (2, 6, 4))),
    Case("Attention", (), {"use_scale": True}, ((2, 5, 4), (2, 6, 4)), as_list=True),
    Case(
        "Attention",
        (),
        {"score_mode": "concat"},
        ((2, 5, 4), (2, 5, 4), (2, 5, 4)),
        {"use_causal_mask": True, "return_attention_scores": True},
        as_list=True,
    ),
    Case("AdditiveAttention", (), {}, ((2, 5, 4), (2, 6, 4)), as_list=True),
]


def random_weights(layer: Any) -> list[np.ndarray]:
    """Asymmetric weights: nothing is hidden by zeros and ones."""
    rng = np.random.default_rng(7)
    values = []
    for weight in layer.weights:
        value = rng.normal(size=tuple(weight.shape)) * 0.5
        if "variance" in weight.path:
            value = np.abs(value) + 0.5
        values.append(value.astype(str(weight.dtype)))
    return values


def flat(outputs: Any) -> list[Any]:
    return list(outputs) if isinstance(outputs, (list, tuple)) else [outputs]


def directions(outputs: list[Any]) -> list[np.ndarray]:
    """One fixed random array per output, with which a scalar is made of all outputs."""
    rng = np.random.default_rng(13)
    return [rng.normal(size=tuple(output.shape)) for output in outputs]


def built(case: Case, **extra: Any) -> Any:
    layer = case.make(layers, **extra)
    inputs = case.inputs(extra.get("dtype", "float32"))
    layer(*case.arguments_of(inputs), **case.call)
    layer.set_weights(random_weights(layer))
    return layer


def gradients_of(case: Case, layer: Any, inputs: list[np.ndarray]) -> tuple[list[Any], Any, Any]:
    """(outputs, gradients by the inputs, gradients by the trainable weights)."""
    with recording():
        tensors = [convert(x) for x in inputs]
        outputs = flat(layer(*case.arguments_of(tensors), **case.call))
        loss = sum(
            ops.sum(output * convert(d.astype(output.dtype)))
            for output, d in zip(outputs, directions(outputs), strict=True)
        )
        floats = [] if case.whole_numbers else tensors
        found = gradient_nodes(loss, [*floats, *layer.trainable_weights])
        values = [gradient.numpy() for gradient in found]
    return [output.numpy() for output in outputs], values[: len(floats)], values[len(floats) :]
