"""What lamina knows of the machine: instruction sets, caches, cores, and the system's calls.

This is the only module that knows processors and operating systems. Generators ask it for a
`Target`; native code finds the system's functions in a small table of addresses (`os_table`), so
that no address is ever inside an object.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import functools
import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path

from lamina import config
from lamina.errors import LaminaError, layout
from lamina.llvm import binding, cache


class HostError(LaminaError, RuntimeError):
    """This machine cannot do what was asked: processor and request are named."""


# ------------------------------------------------------------------------- instruction sets


@dataclass(frozen=True)
class Target:
    """An instruction set to generate code for, and what a generator must know of it.

    name        "avx512", "avx2", "sse2" or "neon"
    lanes       float32 elements in a vector register: 16, 8 or 4
    registers   how many vector registers there are: 32 or 16
    has_fma     whether a fused multiply-add is one instruction; where it is not, `llvm.fma` would
                call the C library, so generators multiply, then add
    has_masks   whether loads and stores can be masked (AVX-512)
    features    for LLVM, as in "+avx2,+fma"
    """

    name: str
    cpu: str
    features: str
    triple: str
    lanes: int
    registers: int
    has_fma: bool
    has_masks: bool

    def has(self, feature: str) -> bool:
        """Whether LLVM may use `feature`, as in `target.has("avx512vnni")`."""
        return f"+{feature}" in self.features.split(",")

    @property
    def architecture(self) -> str:
        """`x86_64` or `aarch64`."""
        return "aarch64" if self.name == "neon" else "x86_64"

    @property
    def vector_bytes(self) -> int:
        """The bytes of a vector register: 64, 32 or 16."""
        return self.lanes * 4

    @property
    def key(self) -> str:
        """Everything that machine code depends on, as one line for a cache key."""
        return f"{self.triple} {self.cpu} {self.name} {self.features}"


_AVX512 = ("avx512f", "avx512vl", "avx512dq", "avx512bw", "avx512cd")
_AVX2 = ("avx2", "fma", "f16c", "bmi", "bmi2", "lzcnt", "popcnt", "movbe")
# name -> (lanes, registers, fused multiply-add, masks)
_SHAPES = {
    "avx512": (16, 32, True, True),
    "avx2": (8, 16, True, False),
    "sse2": (4, 16, False, False),
    "neon": (4, 32, True, False),
}
# The processor whose scheduling LLVM assumes, and the features, when a set is forced.
_FORCED = {
    "avx512": ("skylake-avx512", (*_AVX2, *_AVX512)),
    "avx2": ("haswell", _AVX2),
    "sse2": ("x86-64", ("sse2",)),
    "neon": ("generic", ("neon",)),
}


def _target(name: str, cpu: str, features: str, triple: str) -> Target:
    lanes, registers, has_fma, has_masks = _SHAPES[name]
    return Target(name, cpu, features, triple, lanes, registers, has_fma, has_masks)


def architecture() -> str:
    """`x86_64` or `aarch64`: the architecture of this process; HostError on any other."""
    machine = platform.machine().lower()
    if machine in {"x86_64", "amd64"}:
        return "x86_64"
    if machine in {"aarch64", "arm64"}:
        return "aarch64"
    raise HostError(
        layout(
            "llvm: this processor is not supported.",
            [("found", machine), ("known", "x86_64, aarch64")],
            hint="set LAMINA_EXECUTOR=reference",
        )
    )


@dataclass(frozen=True)
class _Description:
    """What LLVM says of this machine."""

    triple: str
    cpu: str
    features: dict[str, bool]


# Lines of /proc/cpuinfo that tell processors apart, on x86 and on Arm; others change all the time.
_IDENTIFYING = (
    "vendor_id", "cpu family", "model", "model name", "stepping", "flags",
    "CPU implementer", "CPU part", "CPU variant", "CPU revision", "Features",
)  # fmt: skip


def _identity(file: Path = Path("/proc/cpuinfo")) -> str | None:
    """The processor and its instructions as the system lists them, or None if it does not."""
    try:
        with file.open() as stream:
            block = stream.read(16384).split("\n\n")[0]
    except OSError:
        return None
    lines = [line for line in block.splitlines() if line.split(":")[0].strip() in _IDENTIFYING]
    return "\n".join(lines) or None


@functools.cache
def _description() -> _Description:
    """LLVM's description, kept on disk for this very processor: a start need not import LLVM."""
    identity = _identity()
    key = f"host {binding.version()}\n{identity}"
    entry = cache.fetch(key) if identity else None
    if entry is not None:
        return _Description(**entry.manifest)
    with binding.lock():
        llvm = binding.llvm()
        found = _Description(
            str(llvm.get_process_triple()),
            str(llvm.get_host_cpu_name()),
            dict(llvm.get_host_cpu_features()),
        )
    if identity:
        cache.store(key, b"", dataclasses.asdict(found))
    return found


def native_triple() -> str:
    """The triple of this process; on Windows with ELF objects, the only ones that LLVM loads."""
    triple = _description().triple
    return f"{triple}-elf" if sys.platform == "win32" else triple


@functools.cache
def _native() -> Target:
    cpu, found = _description().cpu, _description().features
    triple = native_triple()
    if architecture() == "aarch64":
        return _target("neon", cpu, _flatten({**found, "neon": True}), triple)
    if all(found.get(feature) for feature in (*_AVX2, *_AVX512)):
        return _target("avx512", cpu, _flatten({**found, "prefer-256-bit": False}), triple)
    if all(found.get(feature) for feature in _AVX2):
        # A processor with a part of AVX-512 is used as if it had none: the generators ask for all.
        without = {name: False for name in found if name.startswith("avx512")}
        return _target("avx2", cpu, _flatten({**found, **without}), triple)
    return target("sse2")


def _flatten(features: dict[str, bool]) -> str:
    return ",".join(f"{'+' if features[name] else '-'}{name}" for name in sorted(features))


@functools.cache
def target(name: str) -> Target:
    """The target of this name: "native", or a forced "avx512", "avx2", "sse2" or "neon".

    A forced target of this machine's architecture has this process's triple, and its code runs
    where the processor knows the instructions; another architecture's is for looking at assembly
    and for exporting.

    >>> target("avx2").lanes, target("neon").registers
    (8, 32)
    """
    if name == "native":
        return _native()
    cpu, features = _FORCED[name]
    wanted = "aarch64" if name == "neon" else "x86_64"
    triple = native_triple() if architecture() == wanted else f"{wanted}-unknown-linux-gnu"
    text = ",".join(f"+{feature}" for feature in features)
    if name == "avx512":
        text += ",-prefer-256-bit"
    return _target(name, cpu, text, triple)


def detect() -> Target:
    """The target that `config.cpu()` asks for; HostError where this machine cannot run it."""
    wanted = config.cpu()
    chosen = target(wanted)
    if not can_run(chosen):
        raise HostError(
            layout(
                f"llvm: this machine cannot run {wanted} code.",
                [
                    ("found", f"{_native().name} on {_native().cpu}"),
                    ("from", "LAMINA_CPU or lamina.config"),
                ],
                hint="unset LAMINA_CPU",
            )
        )
    return chosen


def can_run(wanted: Target) -> bool:
    """Whether this machine has every instruction of `wanted`."""
    if wanted.architecture != architecture():
        return False
    if wanted is _native() or wanted.name in {"sse2", "neon"}:  # the latter: on every such machine
        return True
    return all(_description().features.get(feature) for feature in _FORCED[wanted.name][1])


def runnable_targets() -> list[Target]:
    """Every forced target that this machine can run, the widest first (for tests)."""
    return [one for one in map(target, ("avx512", "avx2", "sse2", "neon")) if can_run(one)]


# ------------------------------------------------------------------------- caches and cores


@dataclass(frozen=True)
class Caches:
    """Bytes of the data caches as one core sees them; `shared` is the last level's whole size."""

    level_1: int
    level_2: int
    shared: int


_USUAL_CACHES = Caches(32 << 10, 512 << 10, 8 << 20)


@functools.cache
def caches() -> Caches:
    """The sizes of this processor's caches; usual ones where the system does not tell."""
    sizes: dict[int, int] = {}
    if sys.platform == "linux":
        sizes = _linux_caches(Path("/sys/devices/system/cpu/cpu0/cache"))
    elif sys.platform == "darwin":
        sizes = {
            1: _sysctl("hw.perflevel0.l1dcachesize") or _sysctl("hw.l1dcachesize"),
            2: _sysctl("hw.perflevel0.l2cachesize") or _sysctl("hw.l2cachesize"),
            3: _sysctl("hw.l3cachesize"),
        }
    level_1 = sizes.get(1) or _USUAL_CACHES.level_1
    level_2 = sizes.get(2) or _USUAL_CACHES.level_2
    shared = sizes.get(3) or (level_2 if sizes.get(2) else _USUAL_CACHES.shared)
    return Caches(level_1, level_2, max(shared, level_2))


def _linux_caches(folder: Path) -> dict[int, int]:
    sizes: dict[int, int] = {}
    with contextlib.suppress(OSError, ValueError):
        for index in sorted(folder.glob("index*")):
            if (index / "type").read_text().strip() in {"Data", "Unified"}:
                level = int((index / "level").read_text())
                sizes[level] = _bytes((index / "size").read_text().strip())
    return sizes


def _bytes(text: str) -> int:
    """`"48K"` as 49152."""
    units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    return int(text[:-1]) * units[text[-1]] if text[-1:] in units else int(text)


def _sysctl(name: str) -> int:
    value, size = ctypes.c_int64(0), ctypes.c_size_t(8)
    read = ctypes.CDLL(None).sysctlbyname
    failed = read(name.encode(), ctypes.byref(value), ctypes.byref(size), None, 0)
    return 0 if failed else value.value


def affinity() -> list[int]:
    """The processors that this process may run on; a plain count where the system has no mask."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def cores() -> int:
    """How many cores this process may keep busy: affinity, siblings and the container's quota.

    Two processors that share a core share its multipliers, so they count once.
    """
    processors = affinity()
    physical = len(processors)
    if sys.platform == "linux":
        physical = _physical_cores(Path("/sys/devices/system/cpu"), processors)
    quota = cgroup_quota()
    return max(1, min(physical, int(quota)) if quota is not None else physical)


def _physical_cores(folder: Path, processors: list[int]) -> int:
    siblings: set[str] = set()
    for processor in processors:
        try:
            path = folder / f"cpu{processor}" / "topology" / "thread_siblings_list"
            siblings.add(path.read_text().strip())
        except OSError:
            siblings.add(str(processor))
    return max(1, len(siblings))


def cgroup_quota(root: Path = Path("/")) -> float | None:
    """The processors' worth of time that this container may use, or None without a bound.

    Reads cgroup v2 (`cpu.max`) and v1 (`cpu.cfs_quota_us`); an ancestor's bound counts too.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    bounds: list[float] = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            base = root / "sys/fs/cgroup"
            bounds += _quotas(base, path, ("cpu.max",))
        elif "cpu" in controllers.split(","):
            base = root / "sys/fs/cgroup" / controllers
            if not base.exists():
                base = root / "sys/fs/cgroup/cpu"
            bounds += _quotas(base, path, ("cpu.cfs_quota_us", "cpu.cfs_period_us"))
    return min(bounds, default=None)


def _quotas(base: Path, path: str, names: tuple[str, ...]) -> list[float]:
    """The bounds from the group at `path` up to the root; a container may see only the root."""
    bounds: list[float] = []
    parts = [part for part in path.split("/") if part and part != ".."]
    for depth in range(len(parts), -1, -1):
        folder = base.joinpath(*parts[:depth])
        try:
            words = " ".join((folder / name).read_text() for name in names).split()
            if words[0] not in {"max", "-1"}:
                bounds.append(int(words[0]) / int(words[1]))
        except (OSError, ValueError, IndexError, ZeroDivisionError):
            continue
    return bounds


# ------------------------------------------------------------------------- the system's calls


@dataclass(frozen=True)
class OsTable:
    """Addresses of the system's calls that put a thread to sleep, wake it and tell the time.

    kind      which calls these are: "futex" (Linux), "os_sync" (macOS from 14.4), "windows"
              (`WaitOnAddress`) or "pthread" (any POSIX system)
    wait, wake, clock, lock, unlock   addresses; the last two for "pthread" only
    number    the number of the futex call, or ticks a second of the Windows counter
    make_lock, make_condition         addresses of the initialisers, for "pthread" only
    """

    kind: str
    wait: int
    wake: int
    clock: int
    number: int = 0
    lock: int = 0
    unlock: int = 0
    make_lock: int = 0
    make_condition: int = 0


def _address(library: ctypes.CDLL, name: str) -> int:
    return ctypes.cast(getattr(library, name), ctypes.c_void_p).value or 0


_FUTEX_NUMBERS = {"x86_64": 202, "aarch64": 98}


@functools.cache
def os_table(kind: str | None = None) -> OsTable:
    """The calls of this system; `kind` asks for another of its kinds (for tests)."""
    if kind is None:
        kind = _usual_kind()
    if kind == "windows":
        synch = ctypes.CDLL("api-ms-win-core-synch-l1-2-0.dll")
        kernel = ctypes.CDLL("kernel32.dll")
        frequency = ctypes.c_int64()
        kernel.QueryPerformanceFrequency(ctypes.byref(frequency))
        return OsTable(
            kind,
            wait=_address(synch, "WaitOnAddress"),
            wake=_address(synch, "WakeByAddressAll"),
            clock=_address(kernel, "QueryPerformanceCounter"),
            number=frequency.value,
        )
    library = ctypes.CDLL(None)
    clock = _address(library, "clock_gettime")
    if kind == "futex":
        call = _address(library, "syscall")
        return OsTable(kind, call, call, clock, number=_FUTEX_NUMBERS[architecture()])
    if kind == "os_sync":
        return OsTable(
            kind,
            wait=_address(library, "os_sync_wait_on_address"),
            wake=_address(library, "os_sync_wake_by_address_all"),
            clock=clock,
        )
    return OsTable(
        "pthread",
        wait=_address(library, "pthread_cond_wait"),
        wake=_address(library, "pthread_cond_broadcast"),
        clock=clock,
        lock=_address(library, "pthread_mutex_lock"),
        unlock=_address(library, "pthread_mutex_unlock"),
        make_lock=_address(library, "pthread_mutex_init"),
        make_condition=_address(library, "pthread_cond_init"),
    )


def _usual_kind() -> str:
    if sys.platform == "win32":
        return "windows"
    if sys.platform == "linux":
        return "futex"
    has_sync = hasattr(ctypes.CDLL(None), "os_sync_wait_on_address")
    return "os_sync" if has_sync else "pthread"


def monotonic_clock() -> int:
    """The number by which `clock_gettime` knows the clock of Python's `time.perf_counter_ns`."""
    return 8 if sys.platform == "darwin" else 1


# ------------------------------------------------------------------------- processor state


def pause_text(wanted: Target) -> tuple[str, str]:
    """(declaration, instruction) of a pause inside a spinning loop, as LLVM text."""
    if wanted.architecture == "x86_64":
        return "declare void @llvm.x86.sse2.pause()", "call void @llvm.x86.sse2.pause()"
    # `isb` waits for some tens of cycles; `yield` does nothing on most cores.
    return "declare void @llvm.aarch64.isb(i32)", "call void @llvm.aarch64.isb(i32 15)"


def ticks_text(wanted: Target) -> tuple[str, str]:
    """(declarations, expression) of a cheap counter that user code may read, as LLVM text."""
    if wanted.architecture == "x86_64":
        return "declare i64 @llvm.readcyclecounter()", "call i64 @llvm.readcyclecounter()"
    # The cycle counter is closed to user code on Arm; the virtual counter is open.
    return (
        "declare i64 @llvm.read_volatile_register.i64(metadata)",
        'call i64 @llvm.read_volatile_register.i64(metadata !{!"CNTVCT_EL0"})',
    )


# Rounding to nearest even, all exceptions masked, denormal inputs and results taken as zero.
_MXCSR_FLUSHING = 0x9FC0
_FPCR_FLUSH = 1 << 24


def denormal_text(wanted: Target) -> str:
    """LLVM text of `i64 @lamina_flush()` and `void @lamina_unflush(i64 mode)`.

    The first makes this thread flush denormals to zero and round to nearest, and returns the mode
    that was; the second gives that mode back. Half-precision denormals are kept on both
    architectures.
    """
    if wanted.architecture == "x86_64":
        return f"""
declare void @llvm.x86.sse.stmxcsr(ptr)
declare void @llvm.x86.sse.ldmxcsr(ptr)
define internal i64 @lamina_flush() nounwind {{
  %place = alloca i32, align 4
  call void @llvm.x86.sse.stmxcsr(ptr %place)
  %before = load i32, ptr %place, align 4
  store i32 {_MXCSR_FLUSHING}, ptr %place, align 4
  call void @llvm.x86.sse.ldmxcsr(ptr %place)
  %mode = zext i32 %before to i64
  ret i64 %mode
}}
define internal void @lamina_unflush(i64 %mode) nounwind {{
  %place = alloca i32, align 4
  %before = trunc i64 %mode to i32
  store i32 %before, ptr %place, align 4
  call void @llvm.x86.sse.ldmxcsr(ptr %place)
  ret void
}}
"""
    return f"""
declare i64 @llvm.aarch64.get.fpcr()
declare void @llvm.aarch64.set.fpcr(i64)
define internal i64 @lamina_flush() nounwind {{
  %mode = call i64 @llvm.aarch64.get.fpcr()
  call void @llvm.aarch64.set.fpcr(i64 {_FPCR_FLUSH})
  ret i64 %mode
}}
define internal void @lamina_unflush(i64 %mode) nounwind {{
  call void @llvm.aarch64.set.fpcr(i64 %mode)
  ret void
}}
"""
