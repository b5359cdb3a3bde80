"""Machine code for aarch64, run on another machine by `qemu-aarch64`.

A small C program (`emulated.c`) opens the code as a shared object, calls one function on memory
that it reads from its input, and writes that memory to its output.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lamina.ir.program import Program
from lamina.llvm import archive, choices, engine, generate, host, kernels, runtime, words
from lamina.llvm.emit import Module
from lamina.llvm.executor import LlvmExecutable
from lamina.llvm.kernel import Kernel

QEMU, COMPILER, LINKER = "qemu-aarch64", "aarch64-linux-gnu-gcc", "aarch64-linux-gnu-ld"
ROOT = "/usr/aarch64-linux-gnu"
TARGET = host.target("neon")
ARGUMENTS = 16
_OFFSETS = ("SLEEP", "WAKE", "NANOSECONDS", "SPIN", "SYSTEM", "NUMBER")


def missing() -> list[str]:
    """The tools that this machine lacks."""
    return [name for name in (QEMU, COMPILER, LINKER) if shutil.which(name) is None]


@dataclass
class Memory:
    """The areas that a call reads and writes, and where addresses of areas stand in others."""

    areas: list[bytes] = field(default_factory=list)
    relocations: list[tuple[int, int, int]] = field(default_factory=list)

    def add(self, data: bytes) -> int:
        """The number of a new area."""
        self.areas.append(data)
        return len(self.areas) - 1

    def point(self, area: int, word: int, to: int) -> None:
        """Put the address of the area `to` into a word of another."""
        self.relocations.append((area, 8 * word, to))

    def packed(self) -> bytes:
        parts = [struct.pack("<qq", len(self.areas), len(self.relocations))]
        for data in self.areas:
            parts += [struct.pack("<q", len(data)), data]
        parts += [struct.pack("<qqq", *relocation) for relocation in self.relocations]
        return b"".join(parts)

    def unpacked(self, data: bytes) -> list[bytes]:
        found = []
        for area in self.areas:
            found.append(data[: len(area)])
            data = data[len(area) :]
        return found


class Emulator:
    """The tools, and a folder for what they make."""

    def __init__(self, folder: Path, target: host.Target = TARGET) -> None:
        self.folder, self.target = folder, target
        self.driver = folder / "driver"
        self.count = 0
        offsets = [f"-D{name}={getattr(runtime, name)}" for name in _OFFSETS]
        source = Path(__file__).with_name("emulated.c")
        command = [COMPILER, "-O1", "-Wall", "-Werror", "-pthread", "-DFUTEX=98", *offsets]
        subprocess.run([*command, source, "-o", self.driver, "-ldl"], check=True)
        self.runtime = self.linked(runtime.runtime_text(target, host.OsTable("futex", 0, 0, 0)))

    def linked(self, text: str) -> Path:
        """A shared object of LLVM text."""
        self.count += 1
        parts = []
        for number, code in enumerate(archive.unpack(engine.compile_text(text, self.target))):
            parts.append(self.folder / f"{self.count}-{number}.o")
            parts[-1].write_bytes(code)
        library = self.folder / f"{self.count}.so"
        subprocess.run([LINKER, "-shared", "-o", library, *parts], check=True)
        return library

    def call(self, memory: Memory, *arguments: object) -> list[bytes]:
        """Run the driver; what the areas hold afterwards."""
        command = [QEMU, "-L", ROOT, str(self.driver), *map(str, arguments)]
        done = subprocess.run(command, input=memory.packed(), capture_output=True, check=False)
        assert done.returncode == 0, f"{done.returncode}: {done.stderr.decode()}"
        return memory.unpacked(done.stdout)

    def library(self, specifications: Sequence[Kernel]) -> Path:
        """A shared object of the functions k0, k1, ..., one for each kernel."""
        module = Module(self.target)
        for number, kernel in enumerate(specifications):
            kernels.build(kernel, f"k{number}", module, self.target)
        return self.linked(module.text())

    def run_kernel(
        self,
        library: Path,
        name: str,
        kernel: Kernel,
        arrays: Sequence[np.ndarray],
        low: int,
        high: int,
        rows: int,
    ) -> list[np.ndarray]:
        """Call a kernel's function once; its operands afterwards."""
        memory = Memory([b""])
        scratch = -(-kernels.scratch_bytes(kernel, self.target) // 64) * 64
        for word, array in enumerate(arrays):
            memory.point(0, word, memory.add(array.tobytes()))
        memory.point(0, len(arrays), memory.add(b"\xff" * scratch))
        numbers = np.zeros(ARGUMENTS, "<i8")
        numbers[len(arrays) + 1 : len(arrays) + 4] = low, high, rows
        memory.areas[0] = numbers.tobytes()
        found = self.call(memory, library, name)[1:]
        return [
            np.frombuffer(data, array.dtype).reshape(array.shape)
            for data, array in zip(found, arrays, strict=False)
        ]


class Elsewhere:
    """Stands for code that is not in this process."""

    def address(self, name: str) -> int:
        return 0


class Emulated(LlvmExecutable):
    """A program compiled for the other machine, with everything around its step as it is here."""

    def __init__(
        self, emulator: Emulator, program: Program, capacity: int, threads: int = 1
    ) -> None:
        made = generate.generate(program, capacity, emulator.target)
        super().__init__(program, capacity, Elsewhere(), made.sizes)
        self.emulator, self.wanted = emulator, threads
        self.library = emulator.linked(made.text)

    def threads(self, steps: int) -> int:
        return min(choices.threads_wanted(self.sizes.work, steps), self.wanted)

    def _call(self, data, states, outputs, batch_size, total, order, first, last, stop_on) -> int:
        arrays = [*states, *data, *outputs]
        threads, sizes = self.threads(last - first), self.sizes
        table = np.zeros(words.POINTERS + len(arrays), "<i8")
        table[words.FIRST], table[words.STOP] = first, last
        table[words.BATCH], table[words.TOTAL] = batch_size, total
        memory = Memory([bytes(8 * ARGUMENTS)])
        memory.point(0, 0, memory.add(table.tobytes()))
        room = {
            words.SHARED: sizes.shared,
            words.PRIVATE: sizes.private * threads,
            words.SCRATCH: sizes.scratch * threads,
        }
        for word, size in room.items():
            memory.point(1, word, memory.add(b"\xff" * (-(-size // 4096) * 4096)))
        if order is not None:
            memory.point(1, words.ORDER, memory.add(order.tobytes()))
        begin = len(memory.areas)
        for position, array in enumerate(arrays):
            memory.point(1, words.POINTERS + position, memory.add(array.tobytes()))
        found = self.emulator.call(memory, self.library, "step", threads, self.emulator.runtime)
        for array, after in zip(arrays, found[begin:], strict=True):
            if array.flags.writeable:
                array[...] = np.frombuffer(after, array.dtype).reshape(array.shape)
        return int(np.frombuffer(found[1], "<i8")[words.STOP])
