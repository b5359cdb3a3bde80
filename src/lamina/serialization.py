"""Objects to plain data and back, in Keras's form, without ever running code from a file.

An object becomes `{"module", "class_name", "config", "registered_name"}`. Reading looks classes up
by name: lamina's own in a fixed table of namespaces, a user's only where the user has registered
or passed them. Nothing is imported by a name that stands in a file, and no function is rebuilt
from stored code.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np

from lamina.errors import DtypeError, FileFormatError, LaminaError, layout, near_matches

T = TypeVar("T")

# Keras's public namespaces, and the lamina module whose public names answer for each. A name from
# a file is looked up in these modules only.
NAMESPACES = {
    "keras": "lamina.models",
    "keras.models": "lamina.models",
    "keras.layers": "lamina.layers",
    "keras.initializers": "lamina.initializers",
    "keras.regularizers": "lamina.regularizers",
    "keras.constraints": "lamina.constraints",
    "keras.activations": "lamina.activations",
    "keras.losses": "lamina.losses",
    "keras.metrics": "lamina.metrics",
    "keras.optimizers": "lamina.optimizers",
    "keras.optimizers.schedules": "lamina.optimizers.schedules",
    "keras.random": "lamina.random",
}
MAXIMUM_DEPTH = 200

_registered: dict[str, Any] = {}
_registered_names: dict[Any, str] = {}
_scoped: ContextVar[Mapping[str, Any]] = ContextVar(
    "lamina_custom_objects", default=MappingProxyType({})
)


class UnknownObjectError(LaminaError, TypeError, ValueError):
    """A file or a string names a class or function that lamina does not know."""


def register_keras_serializable(
    package: str = "Custom", name: str | None = None
) -> Callable[[T], T]:
    """Let files name a class or function as `package>name`.

    >>> @register_keras_serializable("demo")
    ... class Scale:
    ...     def get_config(self):
    ...         return {}
    >>> get_registered_name(Scale)
    'demo>Scale'
    """

    def register(target: T) -> T:
        if inspect.isclass(target) and not hasattr(target, "get_config"):
            raise ValueError(
                f"{target.__name__}: a class that is registered needs a get_config() method."
            )
        registered = f"{package}>{name or target.__name__}"  # type: ignore[attr-defined]
        _registered[registered] = target
        _registered_names[target] = registered
        return target

    return register


def get_registered_name(target: Any) -> str:
    """`package>name` of a registered class or function, else its plain name."""
    return _registered_names.get(target) or str(target.__name__)


def get_registered_object(name: str, custom_objects: Mapping[str, Any] | None = None) -> Any | None:
    """The class or function known under `name`: passed, in scope, or registered; else None."""
    for known in (custom_objects or {}, _scoped.get(), _registered):
        if name in known:
            return known[name]
    return None


def get_custom_objects() -> dict[str, Any]:
    """The process-wide table of registered objects; adding to it registers."""
    return _registered


@contextlib.contextmanager
def custom_object_scope(custom_objects: Mapping[str, Any]) -> Iterator[None]:
    """Make the named classes and functions known inside the `with` block, in this thread."""
    token = _scoped.set({**_scoped.get(), **custom_objects})
    try:
        yield
    finally:
        _scoped.reset(token)


def namespace_of(target: Any) -> str | None:
    """Keras's public namespace of one of lamina's own classes, or None for a user's class."""
    module = target.__module__
    if not module.startswith("lamina."):
        return None
    rest = module.removeprefix("lamina.")
    if rest.startswith("models."):
        return "keras.src.models.functional" if target.__name__ == "Functional" else "keras"
    if rest.startswith("optimizers.schedules"):
        return "keras.optimizers.schedules"
    return f"keras.{rest.split('.', maxsplit=1)[0]}"


# --------------------------------------------------------------------------------- writing


def serialize_keras_object(value: Any) -> Any:
    """Plain data (dicts, lists, strings, numbers) from which `deserialize_keras_object` rebuilds.

    raises   TypeError for an object that has no `get_config()`
    """
    match value:
        case None | bool() | int() | float() | str():
            return value
        case bytes():
            return {"class_name": "__bytes__", "config": {"value": value.decode("latin-1")}}
        case dict():
            return {key: serialize_keras_object(part) for key, part in value.items()}
        case list() | tuple() | set() | frozenset():
            return [serialize_keras_object(part) for part in value]
        case np.generic():
            return value.item()
        case np.ndarray():
            config = {"value": value.tolist(), "dtype": value.dtype.name}
            return {"class_name": "__numpy__", "config": config}
        case slice():
            parts = [value.start, value.stop, value.step]
            return {"class_name": "__slice__", "config": {"value": parts}}
        case _ if value is Ellipsis:
            return {"class_name": "__ellipsis__", "config": {}}
        case _ if inspect.isfunction(value) or inspect.isbuiltin(value):
            return _serialize_function(value)
    if hasattr(value, "get_config"):
        return _serialize_instance(value)
    raise TypeError(
        layout(
            f"{type(value).__name__} cannot be written to a file.",
            hint="give the class a get_config() method that returns its constructor's arguments",
        )
    )


def _serialize_function(function: Callable[..., Any]) -> dict[str, Any] | str:
    if function.__name__ == "<lambda>":
        raise TypeError(
            layout(
                "a lambda cannot be written to a file.",
                [
                    (
                        "defined",
                        f"{function.__code__.co_filename}:{function.__code__.co_firstlineno}",
                    )
                ],
                hint="define a named function and decorate it with "
                "@lamina.saving.register_keras_serializable()",
            )
        )
    module = namespace_of(function) or function.__module__
    return {
        "module": module,
        "class_name": "function",
        "config": function.__name__,
        "registered_name": get_registered_name(function),
    }


def _serialize_instance(value: Any) -> dict[str, Any]:
    kind = type(value)
    module = namespace_of(kind)
    builtin = module is not None and kind not in _registered_names
    data = {
        "module": module or kind.__module__,
        "class_name": kind.__name__,
        "config": serialize_dict(value.get_config()),
        "registered_name": None if builtin else get_registered_name(kind),
    }
    if module == "keras.src.models.functional":
        data["registered_name"] = "Functional"
    for key, method in (
        ("build_config", "get_build_config"),
        ("compile_config", "get_compile_config"),
    ):
        config = getattr(value, method)() if hasattr(value, method) else None
        if config is not None:
            data[key] = serialize_dict(config)
    return data


def serialize_dict(config: Mapping[str, Any]) -> dict[str, Any]:
    """Each value of a configuration as plain data."""
    return {key: serialize_keras_object(value) for key, value in config.items()}


# --------------------------------------------------------------------------------- reading


def deserialize_keras_object(
    data: Any,
    custom_objects: Mapping[str, Any] | None = None,
    safe_mode: bool = True,
    *,
    within: str | None = None,
) -> Any:
    """The object that `data` describes.

    data             what `serialize_keras_object` gave, or Keras 3 wrote
    custom_objects   the user's own classes and functions by name
    safe_mode        accepted for Keras's sake; code in a file is never run, whatever it says
    within           a namespace such as "keras.layers" that answers for bare class names
    raises           UnknownObjectError for a name that is not known; FileFormatError for data
                     that has no such form
    """
    del safe_mode
    with custom_object_scope(custom_objects or {}):
        return _rebuild(data, within, 0)


def _rebuild(data: Any, within: str | None, depth: int) -> Any:
    if depth > MAXIMUM_DEPTH:
        raise FileFormatError(f"a configuration is nested more than {MAXIMUM_DEPTH} deep.")
    if isinstance(data, list):
        return [_rebuild(part, within, depth + 1) for part in data]
    if not isinstance(data, dict):
        return data
    if "class_name" not in data or "config" not in data:
        return {key: _rebuild(part, within, depth + 1) for key, part in data.items()}
    name, config = data["class_name"], data["config"]
    if not isinstance(name, str):
        raise FileFormatError(f"a class name is {type(name).__name__}, not a string.")
    if name.startswith("__") and name.endswith("__"):
        return _rebuild_special(name, config, depth)
    if name == "function":
        return lookup_function(config, data.get("module"), data.get("registered_name"))
    if name in ("DTypePolicy", "FloatDTypePolicy"):
        return config.get("name", "float32") if isinstance(config, dict) else config
    kind = lookup_class(name, data.get("module") or within, data.get("registered_name"))
    if not isinstance(config, dict):
        raise FileFormatError(f"{name}: the configuration is {type(config).__name__}, not a dict.")
    return build_object(kind, config, data)


def _rebuild_special(name: str, config: Any, depth: int) -> Any:
    value: Any = config.get("value") if isinstance(config, dict) else config
    match name:
        case "__tuple__":
            return tuple(_rebuild(part, None, depth + 1) for part in value)
        case "__slice__":
            return slice(*value)
        case "__ellipsis__":
            return Ellipsis
        case "__bytes__":
            return str(value).encode("latin-1")
        case "__numpy__" | "__tensor__":
            return np.array(value, dtype=_plain_dtype(config["dtype"]))
        case "__complex__":
            return complex(*value) if isinstance(value, list) else complex(value)
        case "__lambda__":
            raise UnknownObjectError(
                layout(
                    "the file holds the code of a lambda, which lamina never runs.",
                    hint="use a named function, register it with "
                    "@lamina.saving.register_keras_serializable(), and save the model again",
                )
            )
    raise UnknownObjectError(f"the file holds a value of kind {name!r}, which lamina cannot read.")


def _plain_dtype(name: Any) -> np.dtype[Any]:
    if not isinstance(name, str) or name not in _ARRAY_DTYPES:
        raise DtypeError(f"an array in a configuration has the unknown dtype {name!r}.")
    return np.dtype(name)


_ARRAY_DTYPES = (
    *("float16", "float32", "float64", "bool", "int8", "int16", "int32", "int64"),
    *("uint8", "uint16", "uint32", "uint64"),
)


def build_object(kind: Any, config: Mapping[str, Any], data: Mapping[str, Any]) -> Any:
    """An instance of a known class from its configuration, built and compiled as the data says."""
    if not hasattr(kind, "from_config"):
        raise FileFormatError(f"{kind.__name__} has no from_config(), so it cannot be read.")
    config = dict(config)
    if namespace_of(kind) is not None:
        if isinstance(config.get("vocabulary"), str):
            raise FileFormatError(
                layout(
                    f"{kind.__name__}: the file names another file to take the vocabulary from, "
                    "which lamina does not read.",
                    hint="make the layer with the vocabulary itself, and save the model again",
                )
            )
        # Keras writes arguments that lamina does not have; unset, they mean nothing.
        accepted = _accepted(kind)
        config = {
            key: value
            for key, value in config.items()
            if key in accepted or not (value is None or value is False)
        }
    instance = kind.from_config(config)
    build = data.get("build_config")
    if build and hasattr(instance, "build_from_config") and not getattr(instance, "built", False):
        instance.build_from_config(_rebuild(build, None, 0))
    compiled = data.get("compile_config")
    if compiled and hasattr(instance, "compile_from_config"):
        instance.compile_from_config(compiled)
    return instance


def _accepted(kind: type) -> set[str]:
    """The names of the arguments that a class and its bases take."""
    return {
        name
        for base in kind.__mro__
        if "__init__" in vars(base)
        for name in inspect.signature(vars(base)["__init__"]).parameters
    }


def lookup_class(name: str, module: str | None, registered_name: str | None = None) -> type:
    """The class of that name: a user's, registered or in scope, or else one of lamina's own."""
    for candidate in (registered_name, name):
        found = get_registered_object(candidate) if isinstance(candidate, str) else None
        if inspect.isclass(found):
            return found
    namespace = public_namespace(module)
    candidates = [namespace] if namespace else [] if module else list(NAMESPACES)
    for candidate in candidates:
        found = public_name(candidate, name)
        if inspect.isclass(found):
            return found
    raise UnknownObjectError(_unknown("class", name, candidates, registered_name))


def lookup_function(
    name: Any, module: str | None = None, registered_name: str | None = None
) -> Callable[..., Any]:
    """The function of that name: a user's, registered or in scope, or else one of lamina's own."""
    for candidate in (registered_name, name):
        found = get_registered_object(candidate) if isinstance(candidate, str) else None
        if inspect.isfunction(found):
            return found
    namespace = public_namespace(module)
    kinds = ("keras.activations", "keras.losses", "keras.metrics")
    candidates = [namespace] if namespace else [] if module not in (None, "builtins") else kinds
    for candidate in candidates:
        found = public_name(candidate, name) if isinstance(name, str) else None
        if inspect.isfunction(found):
            return found
    raise UnknownObjectError(_unknown("function", str(name), list(candidates), registered_name))


def public_namespace(module: str | None) -> str | None:
    """The key of `NAMESPACES` that a module name from a file means, or None.

    >>> public_namespace("keras.src.layers.core.dense"), public_namespace("os")
    ('keras.layers', None)
    """
    if not isinstance(module, str):
        return None
    path = module.replace("lamina", "keras", 1) if module.startswith("lamina") else module
    parts = [part for part in path.split(".") if part != "src"]
    if parts[:3] == ["keras", "optimizers", "schedules"]:
        return "keras.optimizers.schedules"
    for length in (2, 1):
        if ".".join(parts[:length]) in NAMESPACES and parts[0] == "keras":
            return ".".join(parts[:length])
    return None


def public_name(namespace: str, name: str) -> Any | None:
    """What one of lamina's own modules offers under a public name, or None."""
    if name.startswith("_"):
        return None
    try:
        module = importlib.import_module(NAMESPACES[namespace])
    except ModuleNotFoundError:
        return None
    found = getattr(module, name, None)
    if not (inspect.isclass(found) or inspect.isfunction(found)):
        return None
    return found if found.__module__.startswith("lamina.") else None


def public_names(namespace: str) -> list[str]:
    """The public classes and functions of a namespace."""
    try:
        module = importlib.import_module(NAMESPACES[namespace])
    except ModuleNotFoundError:
        return []
    return [name for name in dir(module) if public_name(namespace, name) is not None]


def _unknown(what: str, name: str, namespaces: list[str], registered_name: str | None) -> str:
    known = [*_registered, *_scoped.get()]
    for namespace in namespaces:
        known += public_names(namespace)
    full = registered_name if isinstance(registered_name, str) else name
    return layout(
        f"unknown {what} {name!r}.{near_matches(name, known)}",
        [("registered", full)] if full != name else [],
        hint=f"if it is yours, pass custom_objects={{{name!r}: {name}}} or decorate it with "
        "@lamina.saving.register_keras_serializable()",
    )
