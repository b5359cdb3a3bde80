"""The order of the floors: a module imports only from below, or from rooms to its left.

The imports are parsed, not executed. To add a room, write it into `FLOORS` at the place where it
stands; a module that the table does not know fails the first test.
"""

from __future__ import annotations

import ast
import functools
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "src" / "lamina"

# Lowest floor first; within a floor, left to right. A room is a module or a folder of modules;
# "a.b" is a room inside a folder that other rooms of the same floor share.
FLOORS: list[list[str]] = [
    ["errors", "locks", "config", "types", "tree"],
    ["ir"],
    ["transform"],
    ["executor", "reference", "llvm", "xla"],
    ["tensor", "trace", "function"],
    [
        "serialization",
        "naming",
        "ops",
        "random",
        "initializers",
        "regularizers",
        "constraints",
        "activations",
        "layers",
        "mixed_precision",
        "losses",
        "metrics",
        "optimizers",
    ],
    [
        "progress",
        "summary",
        "data",
        "callbacks",
        "saving",
        "training",
        "models",
        "datasets",
        "preprocessing",
        "utils",
    ],
    ["profile", "pictures"],
    ["keras", "shim", "demo", "cli"],
]

# Installed only with an extra, or slow to import: never at module level, so that `import lamina`
# stays quick, and wrapped by few modules, so that each is met in one place.
HEAVY = {"llvmlite", "h5py", "rich", "ml_dtypes", "jax", "matplotlib", "PIL", "sklearn", "scipy"}

RANK = {
    room: (floor, place) for floor, rooms in enumerate(FLOORS) for place, room in enumerate(rooms)
}


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name below `lamina`; the root is ""."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = list(path.relative_to(PACKAGE).with_suffix("").parts)
        if parts[-1] == "__init__":
            parts.pop()
        found[".".join(parts)] = path
    return found


MODULES = modules()


@functools.cache
def imports(path: Path) -> list[tuple[str, str | None, int, bool]]:
    """(module, name, line, at module level) for every import statement in the file."""
    found: list[tuple[str, str | None, int, bool]] = []
    tree = ast.parse(path.read_text(encoding="utf-8"))
    deferred = {
        id(inner)
        for outer in ast.walk(tree)
        if isinstance(outer, (ast.FunctionDef, ast.AsyncFunctionDef))
        for inner in ast.walk(outer)
    }
    for node in ast.walk(tree):
        top = id(node) not in deferred
        if isinstance(node, ast.Import):
            found.extend((alias.name, None, node.lineno, top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            module = node.module or ""
            found.extend((module, alias.name, node.lineno, top) for alias in node.names)
    return found


def target_of(module: str, name: str | None) -> str | None:
    """The lamina module that an import statement reads, or None if it is another package's."""
    if module != "lamina" and not module.startswith("lamina."):
        return None
    inner = module.removeprefix("lamina").removeprefix(".")
    if name is not None:
        deeper = f"{inner}.{name}".removeprefix(".")
        if deeper in MODULES:
            return deeper
    return inner


def room_of(module: str) -> str:
    return module.split(".", maxsplit=1)[0]


@functools.cache
def edges() -> dict[str, list[tuple[str, int]]]:
    return {
        module: [
            (target, line)
            for name, member, line, _ in imports(path)
            if (target := target_of(name, member)) is not None
        ]
        for module, path in MODULES.items()
    }


def test_every_module_stands_in_a_room():
    homeless = sorted(m for m in MODULES if m and room_of(m) not in RANK)
    assert not homeless, f"not in FLOORS: {', '.join(homeless)}"


@pytest.mark.parametrize("module", [m for m in MODULES if m], ids=lambda m: m)
def test_imports_go_down_or_left(module):
    rank = RANK.get(room_of(module), (99, 99))
    for target, line in edges()[module]:
        # The root resolves its names lazily; it holds nothing but the version.
        if not target or room_of(target) == room_of(module):
            continue
        assert RANK.get(room_of(target), (99, 99)) < rank, (
            f"{MODULES[module]}:{line}: lamina.{module} may not import lamina.{target}, which "
            "stands on a higher floor or to its right"
        )


def test_no_module_imports_itself_by_a_detour():
    graph = {module: {target for target, _ in found} for module, found in edges().items()}
    finished: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, f"import cycle: {' -> '.join((*path, module))}"
        if module in finished:
            return
        for target in sorted(graph.get(module, ())):
            visit(target, (*path, module))
        finished.add(module)

    for module in graph:
        visit(module, ())


@pytest.mark.parametrize("module", list(MODULES), ids=lambda m: m or "lamina")
def test_no_lamina_module_is_imported_late(module):
    for name, member, line, top in imports(MODULES[module]):
        if target_of(name, member) is not None:
            assert top, f"{MODULES[module]}:{line}: {name} is imported inside a function"


@pytest.mark.parametrize("module", list(MODULES), ids=lambda m: m or "lamina")
def test_heavy_packages_are_imported_at_first_use(module):
    for name, _, line, top in imports(MODULES[module]):
        if name.split(".", maxsplit=1)[0] in HEAVY:
            assert not top, f"{MODULES[module]}:{line}: {name} is imported at module level"


@pytest.mark.parametrize("module", list(MODULES), ids=lambda m: m or "lamina")
def test_only_declared_packages_are_imported(module):
    known = HEAVY | {"lamina", "numpy"} | sys.stdlib_module_names
    for name, _, line, _ in imports(MODULES[module]):
        package = name.split(".", maxsplit=1)[0]
        assert package in known, f"{MODULES[module]}:{line}: {package} is not a dependency"
