"""One module under a second name: `lamina.keras.layers` *is* `lamina.layers`."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


class Alias(MetaPathFinder, Loader):
    """Imports names under one prefix as the modules of another; both names give one module.

    real     full module name -> the module that it stands for, or None when it is not ours
    """

    def __init__(self, real: Callable[[str], str | None]) -> None:
        self.real = real
        self._specs: dict[str, ModuleSpec | None] = {}

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        """The spec of an alias, or None to leave the name to the finders after this one."""
        real = self.real(fullname)
        if real is None:
            return None
        return ModuleSpec(fullname, self, origin=f"alias of {real}", is_package=True)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """The real module; its own spec is remembered, because the import system replaces it."""
        real = self.real(spec.name)
        assert real is not None
        try:
            module = importlib.import_module(real)
        except ModuleNotFoundError as error:
            if error.name != real:
                raise
            raise ModuleNotFoundError(
                f"No module named {spec.name!r}: lamina has no {real!r}", name=spec.name
            ) from None
        self._specs[spec.name] = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Give the module its own spec back; it has run already."""
        assert module.__spec__ is not None
        module.__spec__ = self._specs.pop(module.__spec__.name)


def install(alias: Alias, *, first: bool = False) -> None:
    """Ask `alias` for modules: before every other finder, or after them."""
    if first:
        sys.meta_path.insert(0, alias)
    else:
        sys.meta_path.append(alias)
