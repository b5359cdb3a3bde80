"""Every setting of lamina in one place: an environment variable, a setter, a validated value.

A setting is read from the environment when it is first asked for, not on import; a setter wins over
the environment, and `override` sets for the length of a `with` block (for tests).

    setting            environment               values
    executor           LAMINA_EXECUTOR           llvm (default), reference
    threads            LAMINA_THREADS            1 to 256; default: the cores of this process
    cache              LAMINA_CACHE              off, or a folder; default: the user's cache folder
    cpu                LAMINA_CPU                native (default), avx512, avx2, sse2, neon
    dump               LAMINA_DUMP               some of graph,fuse,plan,llvm,asm
    arena              LAMINA_ARENA              planned (default); apart: each value its own buffer
    check              LAMINA_CHECK              off (default); bounds: every access is checked
    data_folder        LAMINA_DATA               a folder with larger data sets
    floatx             LAMINA_FLOATX             float32 (default), float16, bfloat16, float64
    epsilon            LAMINA_EPSILON            a positive number, default 1e-7
    image_data_format  LAMINA_IMAGE_DATA_FORMAT  channels_last (default), channels_first

>>> with override(executor="reference"):
...     executor()
'reference'
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from lamina.errors import LaminaError, layout, near_matches

EXECUTORS = ("llvm", "reference")
CPUS = ("native", "avx512", "avx2", "sse2", "neon")
DUMPS = ("graph", "fuse", "plan", "llvm", "asm")
ARENAS = ("planned", "apart")
CHECKS = ("off", "bounds")
FLOATX = ("float16", "bfloat16", "float32", "float64")
IMAGE_DATA_FORMATS = ("channels_last", "channels_first")
MOST_THREADS = 256


class ConfigError(LaminaError, ValueError):
    """A setting has a value that it cannot have; setting, value and allowed values are named."""


def _refuse(setting: str, given: object, expected: str, hint: str = "") -> ConfigError:
    details = [("expected", expected), ("from", f"{_SETTINGS[setting][0]} or lamina.config")]
    return ConfigError(layout(f"config: {setting} cannot be {given!r}.", details, hint=hint))


def _one_of(known: tuple[str, ...]) -> Callable[[str, Any], str]:
    def parse(setting: str, given: Any) -> str:
        if isinstance(given, str) and given.strip().lower() in known:
            return given.strip().lower()
        hint = near_matches(str(given), known).strip()
        raise _refuse(setting, given, ", ".join(known), hint)

    return parse


def _some_of(known: tuple[str, ...]) -> Callable[[str, Any], frozenset[str]]:
    parse_one = _one_of(known)

    def parse(setting: str, given: Any) -> frozenset[str]:
        if given is None:
            return frozenset()
        words = given.split(",") if isinstance(given, str) else list(given)
        return frozenset(parse_one(setting, word) for word in words if str(word).strip())

    return parse


def _count(setting: str, given: Any) -> int | None:
    if given is None or given == "":
        return None
    try:
        count = int(given)
    except (TypeError, ValueError):
        raise _refuse(setting, given, "a whole number of threads, at least 1") from None
    if not 1 <= count <= MOST_THREADS or count != float(given):
        raise _refuse(setting, given, f"a whole number from 1 to {MOST_THREADS}")
    return count


def _positive(setting: str, given: Any) -> float:
    try:
        value = float(given)
    except (TypeError, ValueError):
        raise _refuse(setting, given, "a positive number") from None
    if not (value > 0 and math.isfinite(value)):
        raise _refuse(setting, given, "a positive number")
    return value


def _cache(setting: str, given: Any) -> Path | None:
    if given is None or given == "":
        return _users_cache()
    if isinstance(given, str) and given.strip().lower() == "off":
        return None
    return _folder(setting, given)


def _folder(setting: str, given: Any) -> Path | None:
    if given is None or given == "":
        return None
    try:
        folder = Path(given).expanduser()
    except (TypeError, RuntimeError):
        raise _refuse(setting, given, "a folder") from None
    if not folder.is_absolute():
        raise _refuse(
            setting,
            given,
            "an absolute folder",
            f"a relative folder would move with the working folder: {folder.absolute()}",
        )
    return folder


def _users_cache() -> Path | None:
    """The folder where this system keeps what can be made again, or None without a home."""
    try:
        if sys.platform == "win32":
            base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
        elif sys.platform == "darwin":
            base = Path.home() / "Library" / "Caches"
        else:
            base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:
        return None
    return base / "lamina" if base.is_absolute() else None


# setting -> (environment variable, default, parser)
_SETTINGS: dict[str, tuple[str, Any, Callable[[str, Any], Any]]] = {
    "executor": ("LAMINA_EXECUTOR", "llvm", _one_of(EXECUTORS)),
    "threads": ("LAMINA_THREADS", None, _count),
    "cache": ("LAMINA_CACHE", None, _cache),
    "cpu": ("LAMINA_CPU", "native", _one_of(CPUS)),
    "dump": ("LAMINA_DUMP", None, _some_of(DUMPS)),
    "arena": ("LAMINA_ARENA", "planned", _one_of(ARENAS)),
    "check": ("LAMINA_CHECK", "off", _one_of(CHECKS)),
    "data_folder": ("LAMINA_DATA", None, _folder),
    "floatx": ("LAMINA_FLOATX", "float32", _one_of(FLOATX)),
    "epsilon": ("LAMINA_EPSILON", 1e-7, _positive),
    "image_data_format": (
        "LAMINA_IMAGE_DATA_FORMAT",
        "channels_last",
        _one_of(IMAGE_DATA_FORMATS),
    ),
}

# Read and written by single operations of a dict, which need no lock (and leave none locked in the
# child of a fork).
_values: dict[str, Any] = {}


def _get(setting: str) -> Any:
    try:
        return _values[setting]
    except KeyError:
        pass
    variable, default, parse = _SETTINGS[setting]
    return _values.setdefault(setting, parse(setting, os.environ.get(variable) or default))


def _put(setting: str, given: Any) -> None:
    _values[setting] = _SETTINGS[setting][2](setting, given)


def reset() -> None:
    """Forget every setter; the environment is read again when a setting is next asked for."""
    _values.clear()


@contextlib.contextmanager
def override(**settings: Any) -> Iterator[None]:
    """Set the named settings inside a `with` block, and give back the old ones after it.

    raises   ConfigError on an unknown setting or an impossible value, before anything is set
    """
    for setting in settings:
        if setting not in _SETTINGS:
            raise ConfigError(
                f"config: there is no setting {setting!r}.{near_matches(setting, _SETTINGS)}"
            )
    parsed = {name: _SETTINGS[name][2](name, given) for name, given in settings.items()}
    before = {name: _values[name] for name in parsed if name in _values}
    _values.update(parsed)
    try:
        yield
    finally:
        for name in parsed:
            _values.pop(name, None)
        _values.update(before)


def executor() -> str:
    """Which executor compiles: "llvm" or "reference"."""
    return str(_get("executor"))


def set_executor(name: str) -> None:
    """Choose the executor of programs compiled from now on: "llvm" or "reference"."""
    _put("executor", name)


def threads() -> int | None:
    """How many threads a step may use; None: as many as this process has cores."""
    count: int | None = _get("threads")
    return count


def set_threads(count: int | None) -> None:
    """Bound the threads of steps called from now on (1 to 256); None: one for each core."""
    _put("threads", count)


def cache_folder() -> Path | None:
    """The folder of compiled objects, or None where caching is off."""
    folder: Path | None = _get("cache")
    return folder


def set_cache_folder(folder: str | Path | None) -> None:
    """Keep compiled objects in `folder` (absolute); "off": do not keep them; None: the default."""
    _put("cache", folder)


def cpu() -> str:
    """For which instruction set code is generated: "native", "avx512", "avx2", "sse2", "neon"."""
    return str(_get("cpu"))


def set_cpu(name: str) -> None:
    """Force the instruction set of code generated from now on; "native" is this machine's."""
    _put("cpu", name)


def dump() -> frozenset[str]:
    """Which stages of compiling are printed: some of graph, fuse, plan, llvm and asm."""
    stages: frozenset[str] = _get("dump")
    return stages


def set_dump(stages: str | None) -> None:
    """Print these stages of compiling, named with commas between; None: none."""
    _put("dump", stages)


def arena() -> str:
    """How memory is laid out: "planned", or "apart", each value in its own poisoned buffer."""
    return str(_get("arena"))


def set_arena(mode: str) -> None:
    """Choose the memory layout of programs compiled from now on: "planned" or "apart"."""
    _put("arena", mode)


def check() -> str:
    """What native code checks as it runs: "off", or "bounds", every access of memory."""
    return str(_get("check"))


def set_check(mode: str) -> None:
    """Choose what programs compiled from now on check: "off", or "bounds" (slow)."""
    _put("check", mode)


def data_folder() -> Path | None:
    """The folder where larger data sets may lie, or None where none is named."""
    folder: Path | None = _get("data_folder")
    return folder


def set_data_folder(folder: str | Path | None) -> None:
    """Name the folder (absolute) of larger data sets."""
    _put("data_folder", folder)


def floatx() -> str:
    """The dtype of weights and of floating-point inputs where none is given, as in Keras."""
    return str(_get("floatx"))


def set_floatx(value: str) -> None:
    """Set the default floating-point dtype: float16, bfloat16, float32 or float64."""
    _put("floatx", value)


def epsilon() -> float:
    """The small number that keeps divisions and logarithms finite, as in Keras (1e-7)."""
    return float(_get("epsilon"))


def set_epsilon(value: float) -> None:
    """Set the small number that losses and metrics use against division by zero."""
    _put("epsilon", value)


def image_data_format() -> str:
    """Where an image's channels stand by default: "channels_last" or "channels_first"."""
    return str(_get("image_data_format"))


def set_image_data_format(data_format: str) -> None:
    """Set where an image's channels stand by default: "channels_last" or "channels_first"."""
    _put("image_data_format", data_format)
