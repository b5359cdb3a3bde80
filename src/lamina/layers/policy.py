"""Dtype policies: in which dtype a layer computes, and in which it keeps its weights."""

from __future__ import annotations

from typing import Any

from lamina import config
from lamina.errors import DtypeError
from lamina.tensor import as_dtype


class DTypePolicy:
    """A pair of dtypes: "float32" (both), or "mixed_bfloat16" (compute in half, keep float32).

    name            a dtype, "mixed_float16" or "mixed_bfloat16"
    compute_dtype   floating-point inputs and weights are cast to it
    variable_dtype  the dtype of the weights
    """

    def __init__(self, name: str) -> None:
        self.name = name
        if name.startswith("mixed_"):
            half = name.removeprefix("mixed_")
            if half not in ("float16", "bfloat16"):
                raise DtypeError(
                    f"unknown dtype policy {name!r}; known: a dtype, mixed_float16, mixed_bfloat16"
                )
            self.compute_dtype, self.variable_dtype = half, "float32"
        else:
            self.compute_dtype = self.variable_dtype = as_dtype(name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DTypePolicy) and other.name == self.name

    def __hash__(self) -> int:
        return hash(self.name)

    def __repr__(self) -> str:
        return f"<DTypePolicy {self.name!r}>"

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> DTypePolicy:
        return cls(**config)


_global: list[DTypePolicy] = []


def global_policy() -> DTypePolicy:
    """The policy of layers that are given none: `config.floatx()` unless it was set."""
    return _global[-1] if _global else DTypePolicy(config.floatx())


def set_global_policy(policy: Any) -> None:
    """Set the policy of layers made from now on; None goes back to `config.floatx()`."""
    _global[:] = [] if policy is None else [as_policy(policy)]


def as_policy(given: Any) -> DTypePolicy:
    """The policy of a layer's `dtype` argument: None, a name, a policy, or its configuration."""
    if given is None:
        return global_policy()
    if isinstance(given, DTypePolicy):
        return given
    if isinstance(given, dict):
        return DTypePolicy(given["config"]["name"])
    return DTypePolicy(given if isinstance(given, str) else as_dtype(given))
