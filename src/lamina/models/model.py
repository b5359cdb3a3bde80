"""Model: a layer that learns. Made of inputs and outputs, or by a subclass with its own `call`."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from lamina import serialization, tree
from lamina.data import as_arrays, unpack_data
from lamina.errors import ShapeError, TraceError, layout, near_matches
from lamina.layers.core import InputLayer
from lamina.layers.layer import Layer
from lamina.layers.symbolic import KerasTensor, infer, is_keras_tensor
from lamina.layers.tracking import NOT_OWNED
from lamina.metrics import Metric
from lamina.models import configuration
from lamina.models.graph import CallGraph
from lamina.saving import (
    load_archived_weights,
    load_weights,
    save_model,
    save_weights,
)
from lamina.summary import print_summary
from lamina.tensor import Tensor, cast, is_tracing
from lamina.tensor.values import is_recording
from lamina.tensor.values import leaf as leaf_of
from lamina.training.fitting import Fitting
from lamina.training.steps import rounded_capacity

RUNTIME = ("_steps", "_state_lock", "_run_lock", "history")


def functional_arguments(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Whether a model is made of symbolic inputs and outputs."""
    return (
        len(args) >= 2
        or (len(args) == 1 and "outputs" in kwargs)
        or ("inputs" in kwargs and "outputs" in kwargs)
    )


class Model(Layer, Fitting):
    """A layer with `compile`, `fit`, `evaluate`, `predict`, `save` and `summary`.

    inputs, outputs   symbolic tensors, or lists or dicts of them: a functional model
    name, trainable, dtype

    Without inputs and outputs it is a base for subclasses, which hold layers as attributes and
    define `call(inputs, training=False)`.

    >>> import lamina
    >>> inputs = lamina.Input((4,))
    >>> model = Model(inputs, lamina.layers.Dense(2)(inputs))
    >>> model.output_shape
    (None, 2)
    """

    # Attributes that weights files pass over; the layers among them are found in other places.
    _not_saved = frozenset(
        {
            *("_inbound_nodes", "_init_args", "_build_shapes", "_losses", "_added", "_losses_of"),
            *("_compile_arguments", "_compile_loss", "_compile_metrics", "_loss_tracker"),
            *("_graph", "_graph_layers", "_steps", "_state_lock", "_run_lock", "history"),
            *("loss", "dtype_policy", "input_spec"),
        }
    )

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        if cls is Model and functional_arguments(args, kwargs):
            return Layer.__new__(Functional, *args, **kwargs)
        return Layer.__new__(cls, *args, **kwargs)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        graph: CallGraph | None = None
        if functional_arguments(args, kwargs):
            given = dict(zip(("inputs", "outputs", "name"), args, strict=False))
            inputs = kwargs.pop("inputs", None) if "inputs" in kwargs else given["inputs"]
            outputs = kwargs.pop("outputs", None) if "outputs" in kwargs else given["outputs"]
            if "name" in given:
                kwargs["name"] = given["name"]
            graph = from_entries(inputs, outputs)
        elif args:
            raise TypeError(f"{type(self).__name__}: a model takes inputs and outputs, or neither.")
        trainable = kwargs.pop("trainable", True)
        super().__init__(**kwargs)
        self._init_trainer()
        self._graph = graph
        self._looks_at_values = False
        if graph is not None:
            self._graph_layers = [one for one in graph.operations if isinstance(one, Layer)]
            self.built = True
        if not trainable:
            self.trainable = False

    # ------------------------------------------------------------------------- structure

    @property
    def layers(self) -> list[Layer]:
        """The layers directly inside, in the order of the computation or of assignment."""
        if self._graph is not None:
            return list(self._graph_layers)
        return list(self._layers)

    @property
    def _operations(self) -> list[Any]:
        return list(self._graph.operations) if self._graph is not None else self.layers

    def get_layer(self, name: str | None = None, index: int | None = None) -> Layer:
        """A layer by its name or its number.

        raises   ValueError with the nearest names
        """
        layers = self.layers
        if (name is None) == (index is None):
            raise ValueError("get_layer: give a name or an index, one of them.")
        if index is not None:
            if not -len(layers) <= index < len(layers):
                raise ValueError(f"get_layer: there is no layer {index}; there are {len(layers)}.")
            return layers[index]
        for layer in layers:
            if layer.name == name:
                return layer
        names = [layer.name for layer in layers]
        raise ValueError(
            layout(
                f"get_layer: there is no layer {name!r}.{near_matches(str(name), names)}",
                [("layers", ", ".join(names))],
            )
        )

    def _symbolic(self, what: str) -> CallGraph:
        if self._graph is None:
            raise AttributeError(
                f"{self.name} has no symbolic {what}: it is not made of inputs and outputs."
            )
        return self._graph

    @property
    def inputs(self) -> list[KerasTensor]:
        """The symbolic inputs, flat."""
        return list(self._symbolic("inputs").flat_inputs)

    @property
    def outputs(self) -> list[KerasTensor]:
        """The symbolic outputs, flat."""
        return list(self._symbolic("outputs").flat_outputs)

    @property
    def input(self) -> Any:
        """The symbolic inputs, nested as given."""
        return self._symbolic("input").inputs

    @property
    def output(self) -> Any:
        """The symbolic outputs, nested as given."""
        return self._symbolic("output").outputs

    @property
    def input_names(self) -> list[str]:
        return [_operation(tensor).name for tensor in self.inputs]

    @property
    def output_names(self) -> list[str] | None:
        """The names of the layers that give the outputs; None where that is not known."""
        if self._graph is None:
            return None
        return [_operation(tensor).name for tensor in self.outputs]

    @property
    def input_shape(self) -> Any:
        return tree.map_structure(lambda tensor: tensor.shape, self.input)

    @property
    def output_shape(self) -> Any:
        return tree.map_structure(lambda tensor: tensor.shape, self.output)

    # ------------------------------------------------------------------------- computing

    def call(self, inputs: Any, training: Any = None, mask: Any = None) -> Any:
        """The outputs; a subclass that is not made of inputs and outputs defines it."""
        if self._graph is None:
            raise NotImplementedError(
                layout(
                    f"{type(self).__name__} does not define call(inputs).",
                    hint="define call(), or make the model of inputs and outputs",
                )
            )
        flat = self._entries(inputs)
        for tensor, value in zip(self._graph.flat_inputs, flat, strict=True):
            _check_entry(self, tensor, value)
        return self._graph.run(
            [_fitted(tensor, value) for tensor, value in zip(self.inputs, flat, strict=True)],
            lambda node, args, kwargs: node.operation(*args, **kwargs),
        )

    def _entries(self, inputs: Any) -> list[Any]:
        """One value for each symbolic input: by name from a dict, else in order."""
        graph = self._symbolic("inputs")
        if isinstance(inputs, dict):
            names = list(graph.inputs) if isinstance(graph.inputs, dict) else self.input_names
            if isinstance(graph.inputs, dict):
                names = sorted(names)
            missing = [name for name in names if name not in inputs]
            if missing:
                raise ShapeError(
                    layout(
                        f"{self.name}: the input {missing[0]!r} is missing."
                        f"{near_matches(str(missing[0]), map(str, inputs))}",
                        [
                            ("expected", ", ".join(map(str, names))),
                            ("got", ", ".join(map(str, inputs)) or "nothing"),
                        ],
                    )
                )
            flat = [inputs[name] for name in names]
            flat = tree.flatten(flat)
        else:
            flat = tree.flatten(inputs)
        if len(flat) != len(graph.flat_inputs):
            raise ShapeError(
                layout(
                    f"{self.name}: expected {len(graph.flat_inputs)} inputs, got {len(flat)}.",
                    [("inputs", ", ".join(self.input_names))],
                )
            )
        return flat

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The outputs for tensors or arrays; `training=True` for layers that train otherwise.

        Called on values, the model runs compiled, as `predict` does; inside a step, inside
        `lamina.grad`, with `run_eagerly`, or where its `call` looks at values, it runs op by op.
        """
        if len(args) == 1 and set(kwargs) <= {"training"} and self._runs_compiled(args[0]):
            try:
                return self._compiled_call(args[0], kwargs.get("training"))
            except TraceError:
                self._looks_at_values = True
        return super().__call__(*args, **kwargs)

    def _runs_compiled(self, inputs: Any) -> bool:
        if self._looks_at_values or self.run_eagerly or is_tracing() or is_recording():
            return False
        leaves = [leaf for leaf in tree.flatten(inputs) if leaf is not None]
        rows = {leaf.shape[0] if is_plain(leaf) and len(leaf.shape) else 0 for leaf in leaves}
        return len(rows) == 1 and 0 not in rows

    def _compiled_call(self, inputs: Any, training: Any) -> Any:
        arrays = as_arrays(inputs, "inputs")
        self._build_on(arrays)
        rows = len(next(leaf for leaf in tree.flatten(arrays) if leaf is not None))
        kind = "train" if training else "predict"
        step = self._steps.step(
            ("call", training, self._step_signature(kind)),
            lambda data: self._called(unpack_data(data)[0], training),
            (arrays,),
            rounded_capacity(rows),
            rows,
        )
        lock = self._state_lock
        with lock.writing() if step.writes else lock.reading():
            results = step.call(tree.flatten(arrays))
        outputs, masks, losses = step.traced.unflatten(
            [Tensor(leaf_of(array)) for array in results]
        )
        for output, mask in zip(tree.flatten(outputs), masks, strict=True):
            if mask is not None:
                output._keras_mask = mask
        self._clear_losses()
        self._own_losses().extend(losses)
        return outputs

    def _called(self, inputs: Any, training: Any) -> Any:
        """Outputs, their masks, and the losses that the layers added."""
        outputs = super().__call__(inputs, training=training)
        masks = [getattr(leaf, "_keras_mask", None) for leaf in tree.flatten(outputs)]
        losses = [loss for layer in self._flatten_layers() for loss in layer._own_losses()]
        return outputs, masks, losses

    def _build_on(self, x: Any) -> None:
        """Make the weights from a batch, without computing anything."""
        if self._graph is None and type(self).call is Model.call:
            self.built = True  # only the steps of its own call anything
            return
        if not self.built or any(not layer.built for layer in self._layers_now()):
            symbolic = tree.map_structure(
                lambda leaf: (
                    None if leaf is None else KerasTensor((None, *leaf.shape[1:]), str(leaf.dtype))
                ),
                x,
            )
            infer(lambda inputs: self(inputs, training=False), (symbolic,), {})

    def _structure(self) -> tuple[list[Layer], list[Any]]:
        """The layers and weights; those of a graph are looked up once, because it stays."""
        return self._known_structure()[:2]

    def _layers_now(self) -> list[Layer]:
        """This model and the layers inside; a graph stays, attributes may change at any time."""
        return self._flatten_layers() if self._graph is None else self._structure()[0]

    def _clear_losses(self) -> None:
        for layer in self._layers_now():
            layer._losses, layer._losses_of = [], None

    def _known_structure(self) -> tuple[list[Layer], list[Any], list[Metric]]:
        """Layers, weights, and the metrics that are attributes of the layers."""
        known = self._steps.structure
        if known is None or self._graph is None or known[0] is not self._graph:
            layers, weights = super()._structure()
            inner = [one for one in layers if not isinstance(one, Model)]  # a model inside
            found = [metric for one in inner for metric in _metrics_of(one)]  # measures itself
            known = (self._graph, (layers, weights, found))
            self._steps.structure = known
        parts: tuple[list[Layer], list[Any], list[Metric]] = known[1]
        return parts

    def _own_metrics(self) -> list[Metric]:
        metrics = [*_metrics_of(self), *self._known_structure()[2]]
        return list({id(metric): metric for metric in metrics}.values())

    # ------------------------------------------------------------------------- looking

    def _connections(self) -> Callable[[Any], str] | None:
        """What the summary shows under "Connected to"; None for a chain of layers."""
        if self._graph is None or self._graph.is_sequential():
            return None
        mine = {id(node) for node in self._graph.nodes}

        def connected(layer: Any) -> str:
            parts = [
                f"{tensor._keras_history.operation.name}"
                f"[{tensor._keras_history.node_index}][{tensor._keras_history.tensor_index}]"
                for node in layer._inbound_nodes
                if id(node) in mine
                for tensor in node.input_tensors
            ]
            return ", ".join(parts) or "-"

        return connected

    def summary(
        self,
        line_length: int | None = None,
        positions: Sequence[float] | None = None,
        print_fn: Callable[[str], Any] | None = None,
        expand_nested: bool = False,
        show_trainable: bool = False,
        layer_range: Sequence[str] | None = None,
    ) -> None:
        """Print a table of the layers, their output shapes and numbers of weights."""
        print_summary(
            self,
            line_length,
            positions,
            print_fn,
            expand_nested,
            show_trainable,
            layer_range,
        )

    # ------------------------------------------------------------------------- files

    def save(
        self,
        filepath: str | os.PathLike[str],
        overwrite: bool = True,
        zipped: bool | None = None,
    ) -> None:
        """Write everything to a `.keras` file; see `lamina.saving.save_model`."""
        save_model(self, filepath, overwrite, zipped)

    def save_weights(self, filepath: str | os.PathLike[str], overwrite: bool = True) -> None:
        """Write the weights to a `.weights.h5` file."""
        save_weights(self, filepath, overwrite)

    def load_weights(self, filepath: str | os.PathLike[str], skip_mismatch: bool = False) -> None:
        """Read the weights of a `.weights.h5` or `.keras` file; all or nothing.

        raises   WeightsMismatchError, FileFormatError
        """
        if os.fspath(filepath).endswith(".keras"):
            load_archived_weights(self, filepath, skip_mismatch)
        else:
            load_weights(self, filepath, skip_mismatch)

    def to_json(self, **options: Any) -> str:
        """The configuration as JSON, for `lamina.models.model_from_json`."""
        return json.dumps(serialization.serialize_keras_object(self), **options)

    def get_config(self) -> dict[str, Any]:
        """What makes the model again by `from_config`."""
        if self._graph is None:
            return super().get_config()
        return {
            "name": self.name,
            "trainable": self.trainable,
            **configuration.graph_config(self._graph),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Any:
        """The model that `get_config` describes; weights begin anew."""
        with serialization.custom_object_scope(custom_objects or {}):
            if "layers" in config and "input_layers" in config:
                inputs, outputs = configuration.rebuilt_graph(config)
                kind = Functional if cls is Model else cls
                model = kind(inputs, outputs, name=config.get("name"))
                if not config.get("trainable", True):
                    model._trainable = False
                return model
            return super().from_config(config)

    def get_build_config(self) -> dict[str, Any] | None:
        return {"input_shape": None} if self._graph is not None else super().get_build_config()

    def build_from_config(self, config: dict[str, Any]) -> None:
        if self._graph is None:
            super().build_from_config(config)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compile with what `get_compile_config` gave."""
        arguments = configuration.compile_arguments(config)
        if "optimizer" in arguments:
            self.compile(**arguments)
            if self.built and self.optimizer is not None and not self.optimizer.built:
                self.optimizer.build(self.trainable_variables)
                self.optimizer.built = True

    # ------------------------------------------------------------------------- copies

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in RUNTIME}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.history = None
        self._make_runtime()

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _bare, (type(self),), self.__getstate__()

    def __deepcopy__(self, memo: dict[int, Any]) -> Model:
        twin: Model = _bare(type(self))
        memo[id(self)] = twin
        twin.__setstate__(copy.deepcopy(self.__getstate__(), memo))
        return twin


def _bare(kind: type[Model]) -> Any:
    return Layer.__new__(kind)


class Functional(Model):
    """A model made of inputs and outputs; `Model(inputs, outputs)` gives one."""

    _keras_layers_first = True


def _metrics_of(layer: Layer) -> list[Metric]:
    """The metrics among a layer's attributes, also inside containers."""
    hidden = layer._not_saved if isinstance(layer, Model) else NOT_OWNED
    return [
        leaf
        for name, value in vars(layer).items()
        if name not in hidden and isinstance(value, (Metric, list, tuple, dict))
        for leaf in tree.flatten(value)
        if isinstance(leaf, Metric)
    ]


def is_plain(leaf: Any) -> bool:
    """Whether this is an array, or a tensor with a value and without a mask."""
    return isinstance(leaf, (np.ndarray, Tensor)) and getattr(leaf, "_keras_mask", None) is None


def _operation(tensor: KerasTensor) -> Any:
    history = tensor._keras_history
    assert history is not None  # the graph was checked when it was made
    return history.operation


def from_entries(inputs: Any, outputs: Any) -> CallGraph:
    """The graph from inputs to outputs; inputs that a layer made get entries of their own."""
    graph = CallGraph(inputs, outputs)
    if all(isinstance(_operation(tensor), InputLayer) for tensor in graph.flat_inputs):
        return graph
    entries = [
        tensor
        if isinstance(_operation(tensor), InputLayer)
        else InputLayer(batch_shape=tensor.shape, dtype=tensor.dtype).output
        for tensor in graph.flat_inputs
    ]
    again = graph.run(entries, lambda node, args, kwargs: node.operation(*args, **kwargs))
    return CallGraph(tree.pack(inputs, entries), again)


def _fitted(tensor: KerasTensor, value: Any) -> Any:
    """A value in the rank and dtype of its symbolic input."""
    if is_keras_tensor(value) or not isinstance(value, Tensor):
        return value
    mask = getattr(value, "_keras_mask", None)
    rank = len(value.shape)
    if rank + 1 == len(tensor.shape) and tensor.shape[-1] == 1:
        value = value[..., None]
    elif rank == len(tensor.shape) + 1 and value.shape[-1] == 1:
        value = value[..., 0]
    if value.dtype != tensor.dtype:
        value = cast(value, tensor.dtype)
    if mask is not None:
        value._keras_mask = mask
    return value


def _check_entry(model: Model, tensor: KerasTensor, value: Any) -> None:
    expected, given = tensor.shape, tuple(getattr(value, "shape", ()))
    if value is None:
        return
    shown = given
    if len(given) == len(expected) + 1 and given[-1] == 1:
        given = given[:-1]
    elif len(given) + 1 == len(expected) and expected[-1] == 1:
        given = (*given, 1)
    fits = len(given) == len(expected) and all(
        a is None or not isinstance(b, int) or a == b
        for a, b in zip(expected[1:], given[1:], strict=True)
    )
    if fits:
        return
    flat = [size for size in given[1:] if isinstance(size, int)]
    hint = ""
    if len(expected) == 2 and len(given) > 2 and int(np.prod(flat)) == expected[1]:
        hint = f"flattening the input gives {expected[1]} features: add Flatten() first"
    elif len(shown) + 1 == len(expected) and shown[1:] == expected[2:]:
        hint = "one sample is a batch of one: array[None]"
    raise ShapeError(
        layout(
            f"{model.name}: the input {_operation(tensor).name!r} does not have the shape that "
            "the model was made for.",
            [
                ("expected", f"({', '.join(map(str, expected))})"),
                ("given", f"{getattr(value, 'dtype', '')} ({', '.join(map(str, shown))})"),
            ],
            hint=hint,
        )
    )
