"""The base of all layers: weights made at the first call, masks, losses, configuration."""

from __future__ import annotations

import functools
import inspect
import warnings
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Self

import numpy as np

from lamina import constraints, initializers, ops, regularizers, tree
from lamina.errors import DtypeError, LaminaError, ShapeError, layout
from lamina.ir.graph import scope
from lamina.layers import context
from lamina.layers.policy import DTypePolicy, as_policy
from lamina.layers.spec import check, described
from lamina.layers.symbolic import KerasTensor, Operation, any_symbolic, infer
from lamina.layers.tracking import own_variables, owned
from lamina.naming import to_snake_case, unique_name
from lamina.random import SeedGenerator
from lamina.tensor import Tensor, Variable, as_dtype, autocast, cast, convert, values
from lamina.tensor.values import where_called
from lamina.types import FLOATS, Batch

_LEGACY = ("input_shape", "batch_input_shape", "input_dim", "input_dtype", "batch_size")


class Layer(Operation):
    """A function with weights.

    Subclasses make their weights in `build(input_shape)` with `add_weight`, or hold other layers
    as attributes, and compute in `call(inputs)`, which may also take `training` and `mask`.
    `build` runs once, before the first call, with None in place of the batch size.

    name                  default: the class name in snake case, numbered
    trainable             whether training changes the weights
    dtype                 a dtype or policy; floating-point inputs are cast to it
    activity_regularizer  a penalty on the outputs

    >>> class Scale(Layer):
    ...     def build(self, input_shape):
    ...         self.factor = self.add_weight(shape=input_shape[-1:], initializer="ones")
    ...
    ...     def call(self, inputs):
    ...         return inputs * self.factor
    >>> Scale()(np.ones((2, 3), "float32")).numpy().sum()
    np.float32(6.0)
    """

    supports_masking = False
    _init_args: tuple[tuple[Any, ...], dict[str, Any]]
    _added: list[Variable]
    _building: bool
    _build_shapes: dict[str, Any]
    _losses: list[Tensor]
    _losses_of: Any  # the trace that the losses belong to

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        layer = super().__new__(cls)
        # Set here, so that a subclass may assign attributes before it calls super().__init__().
        layer._init_args = (args, kwargs)
        layer._inbound_nodes = []
        layer._losses = []
        layer._losses_of = None
        layer._added = []
        layer.built = False
        layer._building = False
        layer._build_shapes = {}
        return layer

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "build" in cls.__dict__:
            cls.build = _scoped_build(cls.__dict__["build"])  # type: ignore[method-assign]

    def __init__(
        self,
        *,
        activity_regularizer: Any = None,
        trainable: bool = True,
        dtype: Any = None,
        autocast: bool = True,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        legacy = {key: kwargs.pop(key) for key in _LEGACY if key in kwargs}
        if kwargs:
            raise TypeError(
                f"{type(self).__name__}: unknown arguments {', '.join(map(repr, sorted(kwargs)))}"
            )
        self.name = name or unique_name(to_snake_case(type(self).__name__))
        if not isinstance(self.name, str) or "/" in self.name:
            raise ValueError(f"the name of a layer is a string without '/', got {name!r}")
        self.dtype_policy = as_policy(dtype)
        self.autocast = autocast
        self._trainable = bool(trainable)
        self.activity_regularizer = regularizers.get(activity_regularizer)
        self.input_spec: Any = None
        if "input_shape" in legacy or "batch_input_shape" in legacy or "input_dim" in legacy:
            self._given_shape = _given_shape(legacy)

    # ------------------------------------------------------------------------- weights

    def build(self, *args: Any, **kwargs: Any) -> None:
        """Make the weights for inputs of this shape (None for the batch size).

        Subclasses define `build(self, input_shape)`, or one `..._shape` for each tensor that
        `call` takes.
        """
        input_shape = args[0] if args else kwargs.get("input_shape")
        self._build_shapes = {} if input_shape is None else {"input_shape": input_shape}
        if type(self).build is Layer.build and input_shape is not None:
            self._build_by_run(input_shape)
        self.built = True

    def _build_by_run(self, input_shape: Any) -> None:
        """Build the layers inside by running `call` on symbolic inputs of this shape."""
        if self.built or not any(not layer.built for layer in self._flatten_layers()[1:]):
            return
        self.built = True
        try:
            infer(self, (_symbolic_for(input_shape, self.compute_dtype),), {})
        except BaseException:
            self.built = False
            raise

    def add_weight(
        self,
        shape: Any = None,
        initializer: Any = None,
        dtype: Any = None,
        trainable: bool = True,
        autocast: bool = True,
        regularizer: Any = None,
        constraint: Any = None,
        aggregation: str = "none",
        overwrite_with_gradient: bool = False,
        name: str | None = None,
    ) -> Variable:
        """A variable of this layer.

        shape         integers; () for a scalar
        initializer   default: glorot_uniform for floats, zeros for integers and truth values
        dtype         default: the policy's dtype of weights
        """
        sizes = () if shape is None else tuple(shape) if isinstance(shape, Iterable) else (shape,)
        if any(not isinstance(size, (int, np.integer)) for size in sizes):
            raise ShapeError(
                layout(
                    f"{self.name}: a weight needs known sizes, got {sizes}.",
                    hint="the input must have a known size on this axis when the layer is built",
                )
            )
        kind = as_dtype(dtype) if dtype is not None else self.variable_dtype
        if initializer is None:
            initializer = "glorot_uniform" if kind in FLOATS else "zeros"
        variable = Variable(
            initializers.get(initializer),
            shape=sizes,
            dtype=kind,
            trainable=trainable,
            autocast=autocast,
            aggregation=aggregation,
            name=name,
        )
        variable.regularizer = regularizers.get(regularizer)
        variable.constraint = constraints.get(constraint)
        if not self._trainable:
            variable.trainable = False
        self._added.append(variable)
        return variable

    def add_variable(self, *args: Any, **kwargs: Any) -> Variable:
        return self.add_weight(*args, **kwargs)

    @property
    def trainable(self) -> bool:
        """Whether training changes the weights; setting it reaches the layers inside."""
        return self._trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        self._trainable = bool(value)
        for variable in own_variables(self):
            if variable.born_trainable:
                variable.trainable = self._trainable
        for layer in self._layers:
            layer.trainable = value

    @property
    def _layers(self) -> list[Layer]:
        """The layers among the attributes."""
        return owned(self, Layer)

    def _flatten_layers(self, include_self: bool = True, recursive: bool = True) -> list[Layer]:
        """This layer and the layers inside, each once, depth first."""
        found: dict[int, Layer] = {}
        stack: list[Layer] = [self]
        while stack:
            layer = stack.pop()
            if id(layer) in found:
                continue
            found[id(layer)] = layer
            if recursive or layer is self:
                stack.extend(reversed(layer._layers))
        layers = list(found.values())
        return layers if include_self else layers[1:]

    @property
    def weights(self) -> list[Variable]:
        """All weights: the layer's own (those born trainable first), then those inside."""
        found: dict[int, Variable] = {}
        for layer in self._flatten_layers():
            for variable in own_variables(layer):
                found.setdefault(id(variable), variable)
        return list(found.values())

    @property
    def trainable_weights(self) -> list[Variable]:
        """The weights that training changes."""
        return [v for v in self.weights if v.trainable] if self._trainable else []

    @property
    def non_trainable_weights(self) -> list[Variable]:
        """The weights that training leaves alone."""
        return [v for v in self.weights if not (self._trainable and v.trainable)]

    @property
    def variables(self) -> list[Variable]:
        """The weights, and the states of random generators."""
        found = {id(v): v for v in self.weights}
        for layer in self._flatten_layers():
            for generator in owned(layer, SeedGenerator):
                found.setdefault(id(generator.state), generator.state)
        return list(found.values())

    @property
    def trainable_variables(self) -> list[Variable]:
        return self.trainable_weights

    @property
    def non_trainable_variables(self) -> list[Variable]:
        return [v for v in self.variables if not (self._trainable and v.trainable)]

    def get_weights(self) -> list[np.ndarray]:
        """Copies of the values of `weights`."""
        return [weight.numpy() for weight in self.weights]

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Set the values of `weights`, all or (where one does not fit) none.

        raises   ShapeError that names the weight
        """
        own = self.weights
        arrays = [np.asarray(array) for array in weights]
        if len(own) != len(arrays):
            raise ShapeError(
                f"{self.name}: has {len(own)} weights, got {len(arrays)} arrays"
                + ("" if self.built else "\n  hint     the layer is not built yet: call it first")
            )
        for weight, array in zip(own, arrays, strict=True):
            if weight.shape != array.shape:
                raise ShapeError(
                    f"{self.name}: weight {weight.path} has shape {weight.shape}, got {array.shape}"
                )
        for weight, array in zip(own, arrays, strict=True):
            weight.assign(array)

    def count_params(self) -> int:
        """The number of elements of all weights."""
        return sum(weight.size for weight in self.weights)

    # ------------------------------------------------------------------------- dtypes

    @property
    def dtype(self) -> str:
        """The dtype of the weights."""
        return self.variable_dtype

    @property
    def variable_dtype(self) -> str:
        return self.dtype_policy.variable_dtype

    @property
    def compute_dtype(self) -> str:
        return self.dtype_policy.compute_dtype

    @property
    def input_dtype(self) -> str:
        return self.dtype_policy.compute_dtype

    # ------------------------------------------------------------------------- losses

    def add_loss(self, loss: Any) -> None:
        """Add scalars (one or several) to the loss of the training step that this call is in."""
        self._own_losses().extend(convert(one) for one in tree.flatten(loss) if one is not None)

    def _own_losses(self) -> list[Tensor]:
        """Losses added in the trace in progress; those of an earlier one are dropped."""
        now = values.active_trace.get()
        if self._losses_of is not now:
            self._losses, self._losses_of = [], now
        return self._losses

    def _clear_losses(self) -> None:
        """Forget the losses that calls have added, here and in the layers inside."""
        for layer in self._flatten_layers():
            layer._losses, layer._losses_of = [], None

    @property
    def losses(self) -> list[Tensor]:
        """Losses added by calls in this step, and the penalties of the weights' regularizers."""
        added = [loss for layer in self._flatten_layers() for loss in layer._own_losses()]
        penalties = [
            convert(weight.regularizer(weight))
            for weight in self.trainable_weights
            if weight.regularizer is not None
        ]
        return added + penalties

    # ------------------------------------------------------------------------- calling

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the outputs; subclasses define it."""
        raise NotImplementedError(f"{type(self).__name__} has no call() method")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not hasattr(self, "_trainable"):
            raise LaminaError(
                f"{type(self).__name__}: super().__init__() must be called in __init__()"
            )
        signature = _call_signature(type(self))
        if args and _holds_numbers(args[0]):
            args = (convert(args[0]), *args[1:])
        args = tuple(tree.map_structure(self._entered, list(args)))
        kwargs = {key: tree.map_structure(self._entered, value) for key, value in kwargs.items()}
        outer = context.current()
        training = kwargs.pop("training", None)
        if training is None and "training" in signature.names:
            training = signature.positional(args, "training")
        asked = training
        if training is None and outer is not None:
            training = outer.training
        if training is None:
            training = signature.default("training")
        if asked is not None and not signature.takes("training"):
            asked = None
        if any_symbolic(args, kwargs):
            extra = {} if asked is None else {"training": asked}
            return self._record(signature, args, {**kwargs, **extra})
        first = args[0] if args else next(iter(kwargs.values()), None)
        masks = self._fill_masks(signature, args, kwargs)
        if not self.built:
            self._ensure_built(signature, args, kwargs)
        check(self, self.input_spec, first)
        if signature.takes("training") and signature.positional(args, "training") is None:
            kwargs["training"] = bool(training) if training is not None else False
        with context.calling(self, training), scope(self.name), self._casting():
            try:
                if outer is None and not values.is_tracing():
                    self._clear_losses()
                outputs = self.call(*args, **kwargs)
            except LaminaError as error:
                _note(error, self, args)
                raise
            if self.activity_regularizer is not None:
                self._penalise(outputs)
        self._set_masks(first, outputs, masks)
        return outputs

    def _record(self, signature: _Signature, args: Any, kwargs: Any) -> Any:
        if not self.built:
            self._ensure_built(signature, args, kwargs)
        check(self, self.input_spec, args[0] if args else next(iter(kwargs.values()), None))
        return self.symbolic_call(*args, **kwargs)

    def _casting(self) -> Any:
        mixed = self.compute_dtype != self.variable_dtype
        return autocast(self.compute_dtype if mixed and self.autocast else None)

    def _entered(self, value: Any) -> Any:
        """An argument of a call: arrays become tensors, floats come in the compute dtype."""
        if isinstance(value, KerasTensor):
            wrong = self.autocast and value.dtype in FLOATS and value.dtype != self.compute_dtype
            return ops.cast(value, self.compute_dtype) if wrong else value
        if isinstance(value, Variable):
            value = value.value
        elif not isinstance(value, Tensor):
            if not (hasattr(value, "__array__") and hasattr(value, "dtype")):
                return value
            if not np.issubdtype(np.asarray(value).dtype, np.number) and value.dtype != bool:
                return value
            value = convert(value)
        if self.autocast and value.dtype in FLOATS and value.dtype != self.compute_dtype:
            mask = get_mask(value)
            value = cast(value, self.compute_dtype)
            if mask is not None:
                value._keras_mask = mask
        return value

    def _ensure_built(self, signature: _Signature, args: Any, kwargs: Any) -> None:
        # Checked before, too: a layer must not be built for an input that it then refuses.
        check(self, self.input_spec, args[0] if args else next(iter(kwargs.values()), None))
        shapes = _shapes(signature.bound(args, kwargs))
        wanted = _build_parameters(type(self))
        if type(self).build is Layer.build:
            # The layers inside are built by the call itself.
            self._build_shapes = {"input_shape": next(iter(shapes.values()), None)}
            self.built = True
            return
        if not shapes and wanted:
            given = ", ".join(type(value).__name__ for value in (*args, *kwargs.values()))
            raise DtypeError(
                layout(
                    f"{self.name}: a tensor or an array is expected, got {given or 'nothing'}.",
                    where_called(),
                )
            )
        with values.outside_trace():
            if len(wanted) <= 1:
                first = next(iter(shapes.values()), None)
                self.build(first)
            else:
                named = {
                    name: shapes[name.removesuffix("_shape")]
                    for name in wanted
                    if name.removesuffix("_shape") in shapes
                }
                if not named:
                    named = dict(zip(wanted, shapes.values(), strict=False))
                self.build(**named)
        self.built = True

    def compute_output_spec(self, *args: Any, **kwargs: Any) -> Any:
        """The symbolic outputs for symbolic arguments, found by tracing a call."""
        return infer(self, args, kwargs)

    def compute_output_shape(self, *args: Any, **kwargs: Any) -> Any:
        """The shape (or shapes) of the output for inputs of this shape."""
        given = args[0] if args else next(iter(kwargs.values()))
        outputs = self.symbolic_outputs(given)
        return tree.map_structure(lambda leaf: leaf.shape, outputs)

    def symbolic_outputs(self, input_shape: Any) -> Any:
        """Symbolic outputs for inputs of this shape, without recording a call."""
        inputs = _symbolic_for(input_shape, self.compute_dtype)
        if not self.built:
            self._ensure_built(_call_signature(type(self)), (inputs,), {})
        return infer(self, (inputs,), {})

    def _penalise(self, outputs: Any) -> None:
        for leaf in tree.flatten(outputs):
            if isinstance(leaf, Tensor) and leaf.dtype in FLOATS:
                # Divided by the rows, so that the penalty does not grow with the batch.
                rows = convert(leaf.shape[0] if leaf.shape else 1, leaf.dtype)
                self.add_loss(self.activity_regularizer(leaf) / rows)

    # ------------------------------------------------------------------------- masks

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        """The mask of the outputs, given the masks of the inputs."""
        return previous_mask

    def _fill_masks(self, signature: _Signature, args: Any, kwargs: dict[str, Any]) -> Any:
        """Give `call` the masks that its tensors carry; returns those of the first argument."""
        bound = signature.bound(args, kwargs)
        first: Any = None
        for position, (name, value) in enumerate(bound.items()):
            masks = tree.map_structure(get_mask, value)
            present = any(mask is not None for mask in tree.flatten(masks))
            if position == 0:
                first = masks if present else None
            if not present:
                continue
            own = "mask" if position == 0 and len(bound) == 1 else f"{name}_mask"
            for wanted in dict.fromkeys((own, "mask") if position == 0 else (own,)):
                if signature.takes(wanted, exactly=True) and bound.get(wanted) is None:
                    kwargs.setdefault(wanted, masks)
                    if kwargs[wanted] is None:
                        kwargs[wanted] = masks
                    break
        return first

    def _set_masks(self, inputs: Any, outputs: Any, masks: Any) -> None:
        leaves = [leaf for leaf in tree.flatten(outputs) if isinstance(leaf, Tensor)]
        if not leaves or all(get_mask(leaf) is not None for leaf in leaves):
            return
        own = type(self).compute_mask is not Layer.compute_mask
        if masks is None and not own:
            return
        if masks is not None and not self.supports_masking and not own:
            warnings.warn(
                f"{self.name} ({type(self).__name__}) does not support masks; the mask of its "
                "input ends here",
                stacklevel=3,
            )
            return
        found = self.compute_mask(inputs, masks)
        if found is None:
            return
        flat = tree.flatten(found)
        if len(flat) != len(leaves):
            return
        for leaf, mask in zip(leaves, flat, strict=True):
            if mask is not None and get_mask(leaf) is None:
                leaf._keras_mask = mask

    # ------------------------------------------------------------------------- configuration

    def get_config(self) -> dict[str, Any]:
        """What makes this layer again by `from_config`: constructor arguments as plain data.

        A subclass with arguments of its own extends it; where it does not, the arguments that the
        constructor got are taken, if they are plain data.
        """
        policy = self.dtype_policy
        config: dict[str, Any] = {
            "name": self.name,
            "trainable": self._trainable,
            "dtype": {
                "module": "keras",
                "class_name": "DTypePolicy",
                "config": {"name": policy.name},
                "registered_name": None,
            },
        }
        if self.activity_regularizer is not None:
            config["activity_regularizer"] = regularizers.serialize(self.activity_regularizer)
        if type(self).get_config is Layer.get_config and type(self).__init__ is not Layer.__init__:
            config = {**config, **self._plain_arguments()}
            accepted = inspect.signature(type(self).__init__).parameters
            if not any(p.kind is p.VAR_KEYWORD for p in accepted.values()):
                config = {key: value for key, value in config.items() if key in accepted}
        return config

    def _plain_arguments(self) -> dict[str, Any]:
        args, kwargs = self._init_args
        bound = inspect.signature(type(self).__init__).bind(self, *args, **kwargs).arguments
        given = dict(list(bound.items())[1:])
        for name, parameter in inspect.signature(type(self).__init__).parameters.items():
            if parameter.kind is parameter.VAR_KEYWORD:
                given.update(given.pop(name, {}))
        given = {key: value for key, value in given.items() if key not in ("name", "dtype")}
        for name, value in given.items():
            plain = (str, int, float, bool, type(None))
            if not all(isinstance(leaf, plain) for leaf in tree.flatten(value)):
                raise NotImplementedError(
                    f"{type(self).__name__} takes {name!r}, which is no plain data; to save it, "
                    "define get_config() and from_config()"
                )
        return given

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """The layer that `get_config` describes.

        Options of Keras that lamina does not have (`lora_rank`, `quantization_config`) may stand
        in it as long as they are None.
        """
        known = {name for kind in cls.__mro__ for name in _parameters(kind)}
        given = {key: value for key, value in config.items() if value is not None or key in known}
        try:
            return cls(**given)
        except TypeError as error:
            raise TypeError(
                f"{cls.__name__} cannot be made from its configuration: {error}"
            ) from error

    def get_build_config(self) -> dict[str, Any] | None:
        """What `build` was called with, for saving, in Keras's form."""
        if len(self._build_shapes) == 1:
            return {"input_shape": next(iter(self._build_shapes.values()))}
        return {"shapes_dict": dict(self._build_shapes)} if self._build_shapes else None

    def build_from_config(self, config: dict[str, Any]) -> None:
        """Build with what `get_build_config` gave."""
        if not config:
            return
        shapes = {key: _tuples(value) for key, value in config.get("shapes_dict", config).items()}
        if self.built:
            return
        if set(shapes) == {"input_shape"}:
            self.build(shapes["input_shape"])
        else:
            self.build(**shapes)
        self.built = True

    def save_own_variables(self, store: Any) -> None:
        """Write the layer's own variables into a mapping from numbers to arrays."""
        for number, variable in enumerate(own_variables(self)):
            store[str(number)] = variable.numpy()

    def load_own_variables(self, store: Any) -> None:
        """Read what `save_own_variables` wrote.

        raises   ShapeError if it does not fit
        """
        own = own_variables(self)
        if len(store.keys()) != len(own):
            raise ShapeError(
                f"{self.name}: has {len(own)} variables, the file holds {len(store.keys())}"
                + ("" if self.built else "; the layer is not built")
            )
        for number, variable in enumerate(own):
            variable.assign(np.asarray(store[str(number)]))

    def __repr__(self) -> str:
        name = getattr(self, "name", "not initialised")
        return f"<{type(self).__name__} name={name}, built={self.built}>"


# ------------------------------------------------------------------------------- helpers


class _Signature:
    """The parameters of a class's `call`."""

    def __init__(self, call: Callable[..., Any]) -> None:
        parameters = list(inspect.signature(call).parameters.values())[1:]
        kinds = inspect.Parameter
        self.names = [
            p.name for p in parameters if p.kind not in (kinds.VAR_POSITIONAL, kinds.VAR_KEYWORD)
        ]
        self.open = any(p.kind is kinds.VAR_KEYWORD for p in parameters)
        self._defaults = {p.name: p.default for p in parameters if p.default is not p.empty}

    def takes(self, name: str, *, exactly: bool = False) -> bool:
        return name in self.names or (self.open and not exactly and name == "training")

    def default(self, name: str) -> Any:
        return self._defaults.get(name)

    def positional(self, args: tuple[Any, ...], name: str) -> Any:
        """The argument if it was given by position."""
        place = self.names.index(name) if name in self.names else len(args)
        return args[place] if place < len(args) else None

    def bound(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Arguments by name, those given by position first."""
        names = [*self.names, *(f"argument_{i}" for i in range(len(self.names), len(args)))]
        return {**dict(zip(names, args, strict=False)), **kwargs}


_signatures: weakref.WeakKeyDictionary[type, _Signature] = weakref.WeakKeyDictionary()


def _call_signature(cls: type[Layer]) -> _Signature:
    if cls not in _signatures:
        _signatures[cls] = _Signature(cls.call)
    return _signatures[cls]


def _build_parameters(cls: type[Layer]) -> tuple[str, ...]:
    parameters = list(inspect.signature(cls.build).parameters.values())[1:]
    return tuple(p.name for p in parameters if p.kind is not p.VAR_KEYWORD)


def _parameters(kind: type) -> list[str]:
    """The names of the arguments of the constructor that a class defines itself."""
    constructor = vars(kind).get("__init__")
    return (
        []
        if kind is object or constructor is None
        else [*inspect.signature(constructor).parameters]
    )


def _scoped_build(build: Callable[..., Any]) -> Callable[..., Any]:
    """`build` under the layer's name, marking the layer as built; the outermost one counts."""

    @functools.wraps(build)
    def scoped(self: Layer, *args: Any, **kwargs: Any) -> Any:
        if self._building:
            return build(self, *args, **kwargs)
        self._building = True
        names = _build_parameters(type(self))
        self._build_shapes = {**dict(zip(names, args, strict=False)), **kwargs}
        try:
            if context.current() is not None and context.current().entry is self:  # type: ignore[union-attr]
                result = build(self, *args, **kwargs)
            else:
                with scope(self.name):
                    result = build(self, *args, **kwargs)
        finally:
            self._building = False
        self.built = True
        return result

    return scoped


def _holds_numbers(value: Any) -> bool:
    """Whether this is a list (or lists in lists) of plain numbers: an array in Python's words."""
    leaves = tree.flatten(value) if isinstance(value, (list, tuple)) else []
    return bool(leaves) and all(isinstance(leaf, (int, float)) for leaf in leaves)


def get_mask(value: Any) -> Any:
    """The mask that a tensor carries, or None."""
    return getattr(value, "_keras_mask", None)


def set_mask(tensor: Tensor, mask: Any) -> Tensor:
    """Let a tensor carry a mask."""
    tensor._keras_mask = mask
    return tensor


def _shape_of(x: Any) -> tuple[int | None, ...]:
    """A shape for `build`: the batch, and whatever is not known, as None."""
    sizes = tuple(None if isinstance(size, Batch) else size for size in x.shape)
    return (None, *sizes[1:]) if sizes else sizes


def _shapes(bound: dict[str, Any]) -> dict[str, Any]:
    """Argument name -> shape (or structure of shapes) for the arguments that hold tensors."""
    found = {}
    for name, value in bound.items():
        leaves = tree.flatten(value)
        if leaves and any(isinstance(leaf, (Tensor, KerasTensor)) for leaf in leaves):
            found[name] = tree.map_structure(
                lambda leaf: _shape_of(leaf) if hasattr(leaf, "shape") else None, value
            )
    return found


def _is_shape(value: Any) -> bool:
    return isinstance(value, (tuple, list)) and all(
        size is None or isinstance(size, (int, np.integer)) for size in value
    )


def _symbolic_for(shape: Any, dtype: str) -> Any:
    """Symbolic tensors for a shape, or for a list, tuple or dict of shapes."""
    if _is_shape(shape):
        return KerasTensor(shape, dtype)
    if isinstance(shape, dict):
        return {key: _symbolic_for(value, dtype) for key, value in shape.items()}
    return type(shape)(_symbolic_for(value, dtype) for value in shape)


def _tuples(value: Any) -> Any:
    """Lists from a file as the shapes that they were."""
    if isinstance(value, dict):
        return {key: _tuples(inner) for key, inner in value.items()}
    if _is_shape(value):
        return tuple(value)
    return [_tuples(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def _given_shape(legacy: dict[str, Any]) -> tuple[int | None, ...]:
    """The batch shape that `input_shape=` and its relatives mean."""
    if legacy.get("batch_input_shape") is not None:
        return tuple(legacy["batch_input_shape"])
    if legacy.get("input_shape") is not None:
        return (legacy.get("batch_size"), *legacy["input_shape"])
    return (legacy.get("batch_size"), legacy["input_dim"])


def _note(error: LaminaError, layer: Layer, args: tuple[Any, ...]) -> None:
    """Say in which layer an error arose; the innermost layer speaks."""
    if getattr(error, "__notes__", None):
        return
    inputs = [described(leaf) for leaf in tree.flatten(list(args)) if isinstance(leaf, Tensor)]
    error.add_note(f"  in       {layer.name} ({type(layer).__name__}), given {', '.join(inputs)}")


__all__ = ["DTypePolicy", "Layer", "get_mask", "set_mask"]
