"""Activation functions by name, as layers take them: `Dense(10, activation="relu")`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lamina import ops
from lamina.naming import resolve
from lamina.serialization import deserialize_keras_object, serialize_keras_object
from lamina.tensor import convert, is_symbolic


def linear(x: Any) -> Any:
    """`x` itself."""
    return x


def relu(
    x: Any, negative_slope: float = 0.0, max_value: float | None = None, threshold: float = 0.0
) -> Any:
    """max(x, 0), or its general form.

    negative_slope   slope below `threshold`
    max_value        largest result, or None
    threshold        where the kink is: below it the result is `negative_slope * (x - threshold)`
    """
    if threshold == 0.0:
        y = ops.leaky_relu(x, negative_slope) if negative_slope else ops.relu(x)
    else:
        above = ops.greater(x, threshold)
        y = ops.where(above, x, negative_slope * ops.subtract(x, threshold))
    if max_value is None:
        return y
    # With a slope the values below zero stay as they are.
    return ops.minimum(y, max_value) if negative_slope else ops.clip(y, 0.0, max_value)


def leaky_relu(x: Any, negative_slope: float = 0.2) -> Any:
    """X where it is positive, `negative_slope * x` elsewhere (Maas et al. 2013)."""
    return ops.leaky_relu(x, negative_slope)


def relu6(x: Any) -> Any:
    """min(max(x, 0), 6) (Krizhevsky 2010)."""
    return ops.relu6(x)


def softmax(x: Any, axis: int = -1) -> Any:
    """exp(x) / sum(exp(x)) over `axis`.

    The result remembers `x`: a cross-entropy that is given probabilities computes from the logits
    where it can, which is exact for probabilities that round to zero.
    """
    y = ops.softmax(x, axis=axis)
    if axis in (-1, len(y.shape) - 1):
        _remember(y, x)
    return y


def sigmoid(x: Any) -> Any:
    """1 / (1 + exp(-x)); the result remembers `x`, as that of `softmax` does."""
    y = ops.sigmoid(x)
    _remember(y, x)
    return y


def _remember(y: Any, logits: Any) -> None:
    if not is_symbolic(y):
        y._keras_logits = convert(logits, y.dtype)


def elu(x: Any, alpha: float = 1.0) -> Any:
    """X where it is positive, `alpha * (exp(x) - 1)` elsewhere (Clevert et al. 2016)."""
    return ops.elu(x, alpha)


def selu(x: Any) -> Any:
    """The self-normalising exponential linear unit (Klambauer et al. 2017)."""
    return ops.selu(x)


def celu(x: Any, alpha: float = 1.0) -> Any:
    """max(x, 0) + min(0, alpha * (exp(x / alpha) - 1)) (Barron 2017)."""
    return ops.celu(x, alpha)


def gelu(x: Any, approximate: bool = False) -> Any:
    """X times the normal distribution function of x, or its tanh form (Hendrycks & Gimpel 2016)."""
    return ops.gelu(x, approximate)


def silu(x: Any) -> Any:
    """X * sigmoid(x), also called swish (Ramachandran et al. 2017)."""
    return ops.silu(x)


def mish(x: Any) -> Any:
    """X * tanh(softplus(x)) (Misra 2019)."""
    return ops.mish(x)


def glu(x: Any, axis: int = -1) -> Any:
    """One half of `axis` times the sigmoid of the other (Dauphin et al. 2017)."""
    return ops.glu(x, axis)


def softplus(x: Any) -> Any:
    """log(1 + exp(x))."""
    return ops.softplus(x)


def softsign(x: Any) -> Any:
    """X / (1 + |x|)."""
    return ops.softsign(x)


def tanh(x: Any) -> Any:
    """The hyperbolic tangent."""
    return ops.tanh(x)


def exponential(x: Any) -> Any:
    """exp(x)."""
    return ops.exp(x)


def hard_sigmoid(x: Any) -> Any:
    """x / 6 + 0.5, clipped to [0, 1]."""
    return ops.hard_sigmoid(x)


def hard_silu(x: Any) -> Any:
    """X * hard_sigmoid(x) (Howard et al. 2019)."""
    return ops.hard_silu(x)


def hard_tanh(x: Any) -> Any:
    """X, clipped to [-1, 1]."""
    return ops.hard_tanh(x)


def hard_shrink(x: Any, threshold: float = 0.5) -> Any:
    """X where |x| > threshold, 0 elsewhere."""
    return ops.hard_shrink(x, threshold)


def soft_shrink(x: Any, threshold: float = 0.5) -> Any:
    """X moved towards zero by `threshold`, at most to zero."""
    return ops.soft_shrink(x, threshold)


def tanh_shrink(x: Any) -> Any:
    """X - tanh(x)."""
    return ops.tanh_shrink(x)


def threshold(x: Any, threshold: float, default_value: float) -> Any:
    """X where it is above `threshold`, `default_value` elsewhere."""
    return ops.threshold(x, threshold, default_value)


def log_sigmoid(x: Any) -> Any:
    """log(sigmoid(x)), exact for very negative x."""
    return ops.log_sigmoid(x)


def log_softmax(x: Any, axis: int = -1) -> Any:
    """log(softmax(x)), exact where the probability rounds to zero."""
    return ops.log_softmax(x, axis=axis)


def sparsemax(x: Any, axis: int = -1) -> Any:
    """The nearest point of the probability simplex (Martins & Astudillo 2016)."""
    return ops.sparsemax(x, axis)


def sparse_plus(x: Any) -> Any:
    """0 below -1, x above 1, (x + 1)^2 / 4 between."""
    return ops.sparse_plus(x)


def sparse_sigmoid(x: Any) -> Any:
    """(x + 1) / 2, clipped to [0, 1]."""
    return ops.sparse_sigmoid(x)


def squareplus(x: Any, b: float = 4) -> Any:
    """(x + sqrt(x^2 + b)) / 2 (Barron 2021)."""
    return ops.squareplus(x, b)


OBJECTS: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (
        *(linear, relu, leaky_relu, relu6, softmax, sigmoid, elu, selu, celu, gelu, silu, mish),
        *(glu, softplus, softsign, tanh, exponential, hard_sigmoid, hard_silu, hard_tanh),
        *(hard_shrink, soft_shrink, tanh_shrink, threshold, log_sigmoid, log_softmax),
        *(sparsemax, sparse_plus, sparse_sigmoid, squareplus),
    )
}
swish = silu
hard_swish = hard_silu
OBJECTS.update(swish=silu, hard_swish=hard_silu)


def get(identifier: Any) -> Callable[..., Any]:
    """The function that a layer's `activation` argument means; None means `linear`.

    >>> get("relu").__name__, get(None).__name__
    ('relu', 'linear')
    """
    found: Callable[..., Any] | None = resolve(
        identifier, OBJECTS, "activation", "keras.activations"
    )
    return linear if found is None else found


def serialize(activation: Callable[..., Any]) -> Any:
    """The name of one of lamina's own activations; plain data for any other."""
    if OBJECTS.get(getattr(activation, "__name__", "")) is activation:
        return activation.__name__
    return serialize_keras_object(activation)


def deserialize(config: Any, custom_objects: dict[str, Any] | None = None) -> Any:
    """The activation that `serialize` wrote."""
    if isinstance(config, str) and config in OBJECTS:
        return OBJECTS[config]
    return deserialize_keras_object(config, custom_objects, within="keras.activations")
