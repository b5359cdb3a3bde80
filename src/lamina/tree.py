"""Nested structures: lists, tuples and dicts with leaves, as arguments and results of models.

A leaf is whatever is not a list, tuple or dict. Dicts are walked in sorted key order, as in Keras,
so that two dicts with the same keys have the same leaves in the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from lamina.errors import ShapeError

_NESTED = (list, tuple, dict)


def is_nested(structure: Any) -> bool:
    """Whether this is a list, tuple or dict (an empty one too)."""
    return isinstance(structure, _NESTED)


def _children(structure: Any) -> list[Any]:
    if isinstance(structure, dict):
        return [structure[key] for key in _keys(structure)]
    return list(structure)


def _keys(structure: dict[Any, Any]) -> list[Any]:
    try:
        return sorted(structure)
    except TypeError:
        return list(structure)


def flatten(structure: Any) -> list[Any]:
    """The leaves, depth first.

    >>> flatten({"b": [1, 2], "a": (3,)})
    [3, 1, 2]
    """
    if not isinstance(structure, _NESTED):
        return [structure]
    found: list[Any] = []
    for child in _children(structure) if isinstance(structure, dict) else structure:
        if isinstance(child, _NESTED):
            found.extend(flatten(child))
        else:
            found.append(child)
    return found


def flatten_with_path(structure: Any) -> list[tuple[tuple[Any, ...], Any]]:
    """(path, leaf) for each leaf; a path holds the keys and positions on the way down."""
    if not is_nested(structure):
        return [((), structure)]
    keys = _keys(structure) if isinstance(structure, dict) else range(len(structure))
    return [
        ((key, *path), leaf)
        for key, child in zip(keys, _children(structure), strict=True)
        for path, leaf in flatten_with_path(child)
    ]


def _rebuild(structure: Any, children: list[Any]) -> Any:
    if isinstance(structure, dict):
        made = dict(zip(_keys(structure), children, strict=True))
        ordered = {key: made[key] for key in structure}
        return ordered if type(structure) is dict else _same_kind(structure, ordered)
    if isinstance(structure, tuple) and hasattr(structure, "_fields"):
        return type(structure)(*children)
    return type(structure)(children)


def _same_kind(structure: dict[Any, Any], items: dict[Any, Any]) -> dict[Any, Any]:
    try:
        return type(structure)(items)
    except TypeError:
        return items


def pack(structure: Any, leaves: Iterable[Any]) -> Any:
    """The same structure with other leaves, given in the order of `flatten`.

    raises   ShapeError if there are too few or too many leaves
    """
    feed = iter(leaves)
    packed = _pack(structure, feed)
    if next(feed, _END) is not _END:
        raise ShapeError("pack: more leaves were given than the structure has places")
    return packed


_END = object()


def _pack(structure: Any, feed: Iterator[Any]) -> Any:
    if not is_nested(structure):
        leaf = next(feed, _END)
        if leaf is _END:
            raise ShapeError("pack: fewer leaves were given than the structure has places")
        return leaf
    return _rebuild(structure, [_pack(child, feed) for child in _children(structure)])


def pack_sequence_as(structure: Any, flat_sequence: Iterable[Any]) -> Any:
    """`pack`, by Keras's name."""
    return pack(structure, flat_sequence)


def map_structure(function: Callable[..., Any], *structures: Any) -> Any:
    """Apply `function` leaf by leaf to one or several structures of the same form.

    >>> map_structure(lambda a, b: a + b, {"x": 1}, {"x": 2})
    {'x': 3}
    """
    first = structures[0]
    for other in structures[1:]:
        assert_same_structure(first, other)
    leaves = zip(*(flatten(structure) for structure in structures), strict=True)
    return pack(first, [function(*together) for together in leaves])


def assert_same_structure(one: Any, other: Any) -> None:
    """Raise ShapeError unless both are nested alike."""
    if is_nested(one) != is_nested(other):
        raise ShapeError(f"two structures differ: {_kind(one)} against {_kind(other)}")
    if not is_nested(one):
        return
    if isinstance(one, dict) != isinstance(other, dict) or len(one) != len(other):
        raise ShapeError(f"two structures differ: {_kind(one)} against {_kind(other)}")
    if isinstance(one, dict) and set(one) != set(other):
        raise ShapeError(f"two structures differ: keys {_keys(one)} against {_keys(other)}")
    for a, b in zip(_children(one), _children(other), strict=True):
        assert_same_structure(a, b)


def _kind(structure: Any) -> str:
    if is_nested(structure):
        return f"{type(structure).__name__} of {len(structure)}"
    return type(structure).__name__


def skeleton(structure: Any) -> Any:
    """A hashable description of the nesting, equal for equally nested structures.

    >>> skeleton({"a": [1, 2]})
    ('dict', (('a', ('list', ('*', '*'))),))
    """
    if not isinstance(structure, _NESTED):
        return "*"
    if isinstance(structure, dict):
        return "dict", tuple([(key, skeleton(structure[key])) for key in _keys(structure)])
    kind = "list" if isinstance(structure, list) else "tuple"
    return kind, tuple([skeleton(part) for part in structure])
