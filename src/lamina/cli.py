"""The command line: `lamina demo`, `run`, `profile`, `predict` and `info`."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

import lamina
from lamina import config, demo, pictures
from lamina.data import unpack_data
from lamina.errors import LaminaError, ShapeError, layout
from lamina.llvm import cache, host
from lamina.models import Model
from lamina.preprocessing.digit import FRAME, load_digit
from lamina.preprocessing.image import ImageError
from lamina.saving import load_model
from lamina.shim import run_script
from lamina.training.profiling import watching

PACKAGES = ("numpy", "llvmlite", "h5py", "rich", "ml_dtypes", "pillow", "matplotlib")


def parser() -> argparse.ArgumentParser:
    """What can be typed after `lamina`."""
    root = argparse.ArgumentParser(
        prog="lamina",
        description="Deep learning in readable Python, compiled to native code.",
    )
    root.add_argument("--version", action="version", version=f"lamina {lamina.__version__}")
    commands = root.add_subparsers(dest="command", required=True, metavar="COMMAND")

    command = commands.add_parser(
        "demo", help="train a convolutional network on real handwritten digits"
    )
    command.add_argument(
        "--folder", default="lamina-demo", help="where the results go (default: %(default)s)"
    )
    command.add_argument("--epochs", type=int, help="passes over the data")
    command.add_argument("--seed", type=int, default=0, help="of all random numbers")
    command.set_defaults(action=_demo)

    command = commands.add_parser(
        "run", help="run a script written for TensorFlow or Keras, unmodified"
    )
    command.add_argument("script", help="a Python file")
    command.add_argument(
        "arguments", nargs=argparse.REMAINDER, help="handed to the script as they are"
    )
    command.set_defaults(action=_run)

    command = commands.add_parser(
        "profile", help="run a script, then time the kernels of the model that it fitted last"
    )
    command.add_argument("script", help="a Python file")
    command.add_argument("--picture", help="also draw the step as a timeline, a PNG file")
    command.add_argument(
        "arguments", nargs=argparse.REMAINDER, help="handed to the script as they are"
    )
    command.set_defaults(action=_profile)

    command = commands.add_parser(
        "predict", help="read photographs or scans of one handwritten digit each"
    )
    command.add_argument("model", help="a model file, as `lamina demo` writes one")
    command.add_argument("images", nargs="+", metavar="IMAGE", help="image files of any size")
    command.set_defaults(action=_predict)

    command = commands.add_parser("info", help="show CPU features, threads, cache and versions")
    command.set_defaults(action=_info)
    return root


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns 0, or 1 after an error whose text was printed to stderr."""
    given = parser().parse_args(arguments)
    if given.command in ("run", "profile"):
        # The script's own exceptions are its user's business: traceback and all.
        return int(given.action(given))
    try:
        return int(given.action(given))
    except (LaminaError, FileNotFoundError, PermissionError, IsADirectoryError) as error:
        print(f"lamina {given.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader (`| head`) has left; what is still buffered goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _demo(given: argparse.Namespace) -> int:
    demo.run(given.folder, epochs=given.epochs, seed=given.seed)
    return 0


def _run(given: argparse.Namespace) -> int:
    if not Path(given.script).is_file():
        print(f"lamina run: there is no file {given.script!r}", file=sys.stderr)
        return 1
    run_script(given.script, given.arguments)
    return 0


def _profile(given: argparse.Namespace) -> int:
    if not Path(given.script).is_file():
        print(f"lamina profile: there is no file {given.script!r}", file=sys.stderr)
        return 1
    fitted: list[tuple[Any, Any, int]] = []
    with watching(lambda *seen: fitted.append(seen)):
        run_script(given.script, given.arguments)
    if not fitted:
        print("lamina profile: the script fitted no model on arrays", file=sys.stderr)
        return 1
    model, data, batch_size = fitted[-1]
    x, y, weights = unpack_data(data)
    found = model.profile(x, y, batch_size=batch_size, sample_weight=weights)
    print(found)
    if given.picture:
        print(f"timeline: {pictures.step_timeline(found, given.picture)}")
    return 0


def _predict(given: argparse.Namespace) -> int:
    model = load_model(given.model, compile=False)
    digits: list[tuple[str, np.ndarray]] = []
    unread = 0
    for image in given.images:
        try:
            digits.append((image, load_digit(image)))
        except (OSError, ImageError) as error:
            print(f"lamina predict: {error}", file=sys.stderr)
            unread = 1
    if not digits:
        return unread
    inputs = np.stack([digit for _, digit in digits]).astype(np.float32) / 255
    probabilities = model.predict(_fitting(inputs, model, given.model), verbose=0)
    if probabilities.ndim != 2:
        raise ShapeError(f"{given.model}: expected one row of classes an image as the output")
    width = max(len(image) for image, _ in digits)
    for (image, _), row in zip(digits, probabilities, strict=True):
        best, second = np.argsort(row)[::-1][:2]
        print(
            f"{image:<{width}}  {best}  ({100 * row[best]:.1f} %; "
            f"next {second}, {100 * row[second]:.1f} %)"
        )
    return unread


def _fitting(inputs: np.ndarray, model: Model, name: str) -> np.ndarray:
    """Bring the images (N, 28, 28) into the shape that the model takes."""
    shape = tuple(model.input_shape)[1:]
    allowed = {(FRAME, FRAME), (FRAME, FRAME, 1), (FRAME * FRAME,)}
    if shape not in allowed:
        raise ShapeError(
            layout(
                f"{name}: the model does not take images of one digit.",
                [
                    ("expected", "inputs (28, 28), (28, 28, 1) or (784,)"),
                    ("got", f"a model with inputs {shape}"),
                ],
                hint="lamina demo writes a model that does",
            )
        )
    return inputs.reshape(len(inputs), *shape)


def _info(_: argparse.Namespace) -> int:
    target = host.detect()
    where = cache.folder()
    rows = [
        ("lamina", lamina.__version__),
        ("python", f"{platform.python_version()} on {platform.platform()}"),
        ("processor", target.cpu),
        ("vectors", f"{8 * target.vector_bytes} bits ({target.name})"),
        ("caches", _sizes(host.caches())),
        ("cores", str(host.cores())),
        ("threads", str(config.threads() or host.cores())),
        ("executor", config.executor()),
        ("cache", f"{where} ({_used(where)})" if where is not None else "off"),
        ("data", str(config.data_folder() or "LAMINA_DATA is not set")),
    ]
    rows += [(package, _version(package)) for package in PACKAGES]
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:<{width}}  {value}")
    return 0


def _sizes(caches: host.Caches) -> str:
    sizes = ("L1", caches.level_1), ("L2", caches.level_2), ("shared", caches.shared)
    return ", ".join(f"{name} {size // 1024:,} kB" for name, size in sizes)


def _used(folder: Path) -> str:
    sizes = [file.stat().st_size for file in folder.glob("**/*") if file.is_file()]
    return f"{len(sizes)} objects, {sum(sizes) / 1e6:.1f} MB"


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


if __name__ == "__main__":
    sys.exit(main())
