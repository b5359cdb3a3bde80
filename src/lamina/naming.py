"""Names: CamelCase to snake_case, numbered names of objects, and strings that stand for objects.

`losses.get("mse")`, `initializers.get("glorot_uniform")` and their like share `resolve`.
"""

from __future__ import annotations

import inspect
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from lamina.errors import layout, near_matches
from lamina.locks import process_lock
from lamina.serialization import UnknownObjectError, deserialize_keras_object, get_registered_object

_used: Counter[str] = Counter()
_lock = process_lock()


def to_snake_case(name: str) -> str:
    """`CamelCase` as `camel_case`, with Keras's rule for digits and runs of capitals.

    >>> to_snake_case("Conv2DTranspose"), to_snake_case("AUC"), to_snake_case("KLDivergence")
    ('conv2d_transpose', 'auc', 'kl_divergence')
    """
    name = re.sub(r"\W+", "", name)
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def unique_name(prefix: str) -> str:
    """`prefix` the first time, then `prefix_1`, `prefix_2`, ... until the names are reset."""
    with _lock:
        count = _used[prefix]
        _used[prefix] += 1
    return f"{prefix}_{count}" if count else prefix


def reset_unique_names() -> None:
    """Begin counting anew, as `utils.clear_session` does."""
    with _lock:
        _used.clear()


def by_both_names(*classes: type) -> dict[str, Any]:
    """The classes under their own names and in snake_case."""
    table: dict[str, Any] = {kind.__name__: kind for kind in classes}
    table.update({to_snake_case(kind.__name__): kind for kind in classes})
    return table


def resolve(identifier: Any, table: Mapping[str, Any], kind: str, namespace: str) -> Any:
    """The object that a user's argument means: a string, a configuration, a class, or itself.

    identifier   None (stays None), a name, what `serialize` gave, a class (an instance is made
                 with its defaults), or any callable, which is given back
    table        the names that lamina knows
    kind         what is looked for, in words, for the message: "loss"
    namespace    "keras.losses", for configurations that name a class without its module
    raises       UnknownObjectError, a TypeError and a ValueError
    """
    if identifier is None:
        return None
    if isinstance(identifier, dict):
        found = deserialize_keras_object(identifier, within=namespace)
    elif isinstance(identifier, str):
        found = table.get(identifier) or get_registered_object(identifier)
        if found is None:
            raise UnknownObjectError(
                layout(
                    f"unknown {kind} {identifier!r}.{near_matches(identifier, table)}",
                    hint=f"lamina.{namespace.removeprefix('keras.')} lists what there is; your own "
                    "is passed as an object, or registered with "
                    "@lamina.saving.register_keras_serializable()",
                )
            )
    else:
        found = identifier
    if inspect.isclass(found):
        found = found()
    if not callable(found) and not hasattr(found, "get_config"):
        raise UnknownObjectError(
            f"a {kind} is given as a string, an object or a configuration; "
            f"this is {type(identifier).__name__}."
        )
    return found
