"""lamina's words for TensorFlow's names: what a missing `tf.` name is called here."""

from __future__ import annotations

from collections.abc import Iterable

from lamina.errors import layout, near_matches

# Of `tf.<name>`; "" says that there is nothing to write instead.
TENSORFLOW = {
    "GradientTape": "lamina.value_and_grad(function)(...), which differentiates a function",
    "argmax": "lamina.ops.argmax",
    "argmin": "lamina.ops.argmin",
    "add": "lamina.ops.add",
    "matmul": "lamina.ops.matmul",
    "concat": "lamina.ops.concatenate",
    "constant": "lamina.ops.convert_to_tensor",
    "convert_to_tensor": "lamina.ops.convert_to_tensor",
    "cast": "lamina.ops.cast",
    "compat": "lamina.keras: lamina follows Keras 3, and has no TensorFlow 1 mode",
    "distribute": "nothing: delete it, a step already uses every core",
    "einsum": "lamina.ops.einsum",
    "errors": "lamina.errors",
    "expand_dims": "lamina.ops.expand_dims",
    "gather": "lamina.ops.take",
    "image": "lamina.ops.image",
    "io": "lamina.utils",
    "linalg": "lamina.ops",
    "math": "lamina.ops: tf.math.log is lamina.ops.log",
    "newaxis": "None",
    "nn": "lamina.ops: tf.nn.relu is lamina.ops.relu, or the string 'relu'",
    "one_hot": "lamina.ops.one_hot",
    "pad": "lamina.ops.pad",
    "range": "lamina.ops.arange",
    "reduce_max": "lamina.ops.max",
    "reduce_mean": "lamina.ops.mean",
    "reduce_min": "lamina.ops.min",
    "reduce_prod": "lamina.ops.prod",
    "reduce_sum": "lamina.ops.sum",
    "saved_model": "model.save('model.keras') and lamina.models.load_model",
    "set_random_seed": "lamina.utils.set_random_seed",
    "shape": "lamina.ops.shape",
    "signal": "lamina.ops",
    "summary": "lamina.callbacks",
    "strings": "",
    "tensor_scatter_nd_update": "lamina.ops.scatter_update",
    "test": "",
    "train": "lamina.callbacks.ModelCheckpoint and model.save",
    "transpose": "lamina.ops.transpose",
    "where": "lamina.ops.where",
    "while_loop": "lamina.ops.while_loop",
    "py_function": "compile(..., run_eagerly=True)",
    "Module": "lamina.layers.Layer",
    "TensorShape": "a tuple",
    "TensorSpec": "lamina.Input",
}

# dtypes are names here: tf.float32 is "float32".
DTYPES = (
    "float16",
    "float32",
    "float64",
    "bfloat16",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "bool",
)

SAME_IN_OPS = (
    "abs clip_by_value equal exp floor greater less logical_and logical_or maximum minimum "
    "multiply negative not_equal ones ones_like pow reshape reverse round sigmoid sign sin cos "
    "slice sort split sqrt square squeeze stack stop_gradient subtract tanh tensordot tile "
    "unstack zeros zeros_like eye linspace repeat norm divide cond scan map_fn"
).split()
RENAMED_IN_OPS = {
    "clip_by_value": "clip",
    "pow": "power",
    "reverse": "flip",
    "map_fn": "map",
}


def word_for(name: str) -> str | None:
    """What lamina says for `tf.<name>`, or None when this is no name of TensorFlow's.

    >>> word_for("reduce_mean")
    'lamina.ops.mean'
    >>> word_for("float32")
    "the string 'float32'"
    """
    if name in TENSORFLOW:
        return TENSORFLOW[name] or "nothing; lamina has no such thing"
    if name in DTYPES:
        return f"the string {name!r}"
    if name in SAME_IN_OPS:
        return f"lamina.ops.{RENAMED_IN_OPS.get(name, name)}"
    return None


def missing(module: str, name: str, known: Iterable[str]) -> str:
    """The text of the error for a name that `module` does not have.

    >>> print(missing("lamina", "reduce_sum", []))
    module 'lamina' has no attribute 'reduce_sum'.
      hint     lamina's word for tf.reduce_sum is lamina.ops.sum
    """
    word = word_for(name)
    if word is not None:
        return layout(
            f"module {module!r} has no attribute {name!r}.",
            hint=f"lamina's word for tf.{name} is {word}",
        )
    return f"module {module!r} has no attribute {name!r}.{near_matches(name, known)}"
