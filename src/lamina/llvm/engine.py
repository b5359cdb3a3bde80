"""LLVM as lamina uses it: text in, object code out; object code in, addresses out.

No optimising passes run unless asked for: the generators have done their work already, and compile
time is a feature. Traps of llvmlite that this module closes, so that nobody else meets them:

- the default global context is never freed, so each compilation has its own context;
- an engine owns its target machine, so that none is used twice;
- an unresolved symbol finalises silently and kills the process at its first call, so objects are
  read first, and only `memcpy`, `memmove` and `memset` may be missing;
- a damaged object kills the process, so the cache checks a digest, and `load` the headers;
- closing an engine while a thread is inside is a crash, so leases are counted;
- the just-in-time code model takes every constant's address from a 64-bit immediate, so ours is the
  small one, position-independent; LLVM's loader ends the process where code and constants then lie
  far apart, so lamina loads objects itself where it can, and elsewhere takes memory in one piece.

>>> import ctypes
>>> object_code = compile_text("define i64 @twice(i64 %x) { %y = shl i64 %x, 1 ret i64 %y }")
>>> loaded = load(object_code)
>>> function = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(loaded.address("twice"))
>>> function(21)
42
>>> loaded.close()
"""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from lamina import config
from lamina.errors import LaminaError, layout
from lamina.llvm import archive, binding, host, loader
from lamina.llvm.host import Target
from lamina.llvm.loader import Image
from lamina.llvm.split import split
from lamina.llvm.symbols import symbols
from lamina.locks import process_lock

# What the C library gives on every system; LLVM calls them for copies of unknown length.
ALLOWED_SYMBOLS = frozenset({"memcpy", "memmove", "memset"})
# macOS's way to set memory to zero; and the linker's name for a table, no function.
_ALIASES = {"bzero": "memset", "__bzero": "memset", "_bzero": "memset"}
_NO_FUNCTIONS = frozenset({"_GLOBAL_OFFSET_TABLE_"})

PASSES = {"instcombine": "add_instruction_combine_pass", "inline": "add_always_inliner_pass"}


class EngineError(LaminaError, RuntimeError):
    """LLVM refused text or an object: an error of lamina's generators, not of the user's model."""


@dataclass
class Counters:
    """How often LLVM worked in this process, for tests that count compilations."""

    parses: int = 0
    loads: int = 0


counters = Counters()


def _llvm_for(target: Target) -> Any:
    """LLVM, initialised for `target`."""
    native = target.architecture == host.architecture()
    return binding.llvm() if native else binding.llvm_for_every_target()


def _machine(target: Target, level: int) -> Any:
    """A target machine for `target`; each belongs to one compilation or one engine."""
    chosen = _llvm_for(target).Target.from_triple(target.triple)
    return chosen.create_target_machine(
        cpu=target.cpu, features=target.features, opt=level, reloc="pic", codemodel="small"
    )


def _parse(text: str, context: Any) -> Any:
    """The module of `text`, verified. A module must be gone before its context is."""
    module = None
    try:
        module = binding.llvm().parse_assembly(text, context)
        module.verify()
    except RuntimeError as failure:
        if module is not None:
            module.close()
        raise EngineError(_refusal(text, str(failure))) from None
    return module


def _refusal(text: str, message: str) -> str:
    """LLVM's message with the line it means, when it names one as `<string>:12:3`."""
    details = [("llvm", " ".join(message.split()))]
    for word in message.split():
        parts = word.strip(":").split(":")
        if len(parts) == 3 and parts[1].isdigit():
            lines = text.splitlines()
            number = int(parts[1])
            if 1 <= number <= len(lines):
                details.append((f"line {number}", lines[number - 1].strip()))
            break
    return layout("llvm: generated code was refused.", details, hint="this is an error in lamina")


def _emit(text: str, target: Target, passes: Sequence[str], level: int, *, assembly: bool) -> Any:
    """Object code as bytes, or assembly as text. `binding.lock` is held, here or by the caller."""
    with (
        binding.llvm().create_context() as context,
        _parse(text, context) as module,
        _machine(target, level) as machine,
    ):
        module.triple = target.triple
        module.data_layout = str(machine.target_data)
        if passes:
            _optimise(module, machine, passes)
        return machine.emit_assembly(module) if assembly else _object(machine, module)


def _object(machine: Any, module: Any) -> bytes:
    """As `machine.emit_object(module)`, but other threads may be in LLVM at the same time.

    llvmlite serialises all calls by a lock of its own. Contexts and target machines of their own
    are all that LLVM asks for, so the one call that takes long goes past it.
    """
    llvm = binding.llvm()
    library = llvm.ffi.lib
    call = getattr(library.LLVMPY_TargetMachineEmitToMemory, "_cfn", None)
    if call is None:
        return bytes(machine.emit_object(module))
    with llvm.ffi.OutputString() as failure:
        buffer = call(machine, module, 1, failure)
        if not buffer:
            raise EngineError(f"llvm: no code was made: {failure}")
    try:
        start = library.LLVMPY_GetBufferStart(buffer)
        return ctypes.string_at(start, library.LLVMPY_GetBufferSize(buffer))
    finally:
        library.LLVMPY_DisposeMemoryBuffer(buffer)


def _emit_parts(texts: list[str], target: Target, passes: Sequence[str], level: int) -> list[bytes]:
    """The object of each text, made on as many threads as this process has cores."""
    objects: list[bytes] = [b""] * len(texts)
    failures: list[BaseException] = []
    waiting = list(reversed(range(len(texts))))

    def work() -> None:
        while waiting and not failures:
            try:
                number = waiting.pop()
                objects[number] = _emit(texts[number], target, passes, level, assembly=False)
            except IndexError:  # another thread took the last one
                return
            except BaseException as failure:  # noqa: BLE001
                failures.append(failure)

    count = min(len(texts), config.threads() or host.cores())
    others = []
    for _ in range(count - 1):
        thread = threading.Thread(target=work, name="lamina-compiler")
        try:
            thread.start()
        except RuntimeError:  # the system has no more threads: fewer make the same objects
            break
        others.append(thread)
    work()
    for thread in others:
        thread.join()
    if failures:
        raise failures[0]
    return objects


def _optimise(module: Any, machine: Any, passes: Sequence[str]) -> None:
    llvm = binding.llvm()
    options = llvm.create_pipeline_tuning_options()
    with llvm.create_pass_builder(machine, options) as builder:
        manager = llvm.create_new_module_pass_manager()
        for name in passes:
            getattr(manager, PASSES[name])()
        manager.run(module, builder)
        manager.close()


def compile_text(
    text: str,
    target: Target | None = None,
    *,
    passes: Sequence[str] = (),
    level: int = 2,
    allowed: frozenset[str] = ALLOWED_SYMBOLS,
) -> bytes:
    """Object code for LLVM text; a long text is compiled in parts, on all cores.

    target   what to generate for; default: `host.detect()`
    passes   of `PASSES`, run in this order before code generation; default: none
    level    of code generation, 0 to 3 (1 to 3 give the same speed)
    allowed  symbols that the object may need from outside
    raises   EngineError with LLVM's message and the offending line; or if a symbol outside of
             `allowed` is needed (a function of the C library that this target has no
             instruction for)
    """
    target = target or host.detect()
    with binding.lock():
        counters.parses += 1
        _llvm_for(target)  # the threads below cannot: this one holds the lock
        # LLVM's own loader takes one object at a time.
        parts = split(text) if loader.suits(target.triple) else [text]
        code = archive.pack(_emit_parts(parts, target, passes, level))
    _check_symbols(code, allowed, target.name)
    return code


def assembly(
    text: str, target: Target | None = None, *, passes: Sequence[str] = (), level: int = 2
) -> str:
    """The assembly that `compile_text` would make of `text`, for reading and for tests."""
    target = target or host.detect()
    with binding.lock():
        emitted: str = _emit(text, target, passes, level, assembly=True)
    return emitted


def _check_symbols(code: bytes, allowed: frozenset[str], name: str) -> None:
    _, needed = symbols(code)
    unknown = sorted(
        name for name in needed - _NO_FUNCTIONS if _ALIASES.get(name, name) not in allowed
    )
    if unknown:
        raise EngineError(
            layout(
                "llvm: generated code calls functions that lamina does not have.",
                [("symbols", ", ".join(unknown)), ("target", name)],
                hint="this is an error in lamina: a kernel must not use these instructions here",
            )
        )


class _JitMemory:
    """Object code in the memory of LLVM's own loader: for systems that `Image` does not know."""

    def __init__(self, code: bytes, target: Target) -> None:
        self.names, needed = symbols(code)
        llvm = binding.llvm()
        self._context = llvm.create_context()
        empty = llvm.parse_assembly("", self._context)
        empty.triple = target.triple
        # llvmlite's memory manager keeps all sections together; on x86 it has no room for the
        # table through which outside functions are called.
        together = target.architecture == "aarch64" or not needed - _NO_FUNCTIONS
        for name in needed - _NO_FUNCTIONS:
            llvm.add_symbol(name, _outside(name))
        self._engine = llvm.create_mcjit_compiler(empty, _machine(target, 2), use_lmm=together)
        with llvm.ObjectFileRef.from_data(code) as file:
            self._engine.add_object_file(file)
            self._engine.finalize_object()

    def find(self, name: str) -> int:
        """The address of the function `name`, or 0."""
        if name not in self.names:
            return 0
        with binding.lock():
            return int(self._engine.get_function_address(name))

    def close(self) -> None:
        """Give the memory back, at the latest when other code is loaded."""
        _unused.append((self._engine, self._context))
        _close_unused()

    def forget(self) -> None:
        """Leave the memory as it is for good."""
        self._engine.detach()
        self._context.detach()


# Engines with their contexts that wait to be closed.
_unused: list[tuple[Any, Any]] = []


def _close_unused() -> None:
    """Close what nobody uses, unless another thread is in LLVM.

    A finaliser must not wait for the lock: the garbage collector may run it on a thread for which
    the one that holds the lock is waiting.
    """
    if not binding.lock().acquire(blocking=False):
        return
    try:
        while _unused:
            engine, context = _unused.pop()
            engine.close()
            context.close()
    finally:
        binding.lock().release()


_leasing = process_lock()


class Loaded:
    """Object code in executable memory. `address` of a function is valid until it is closed.

    A thread that may be inside holds a lease (`with loaded.lease():`): `close` frees the memory at
    once where there are no leases, otherwise when the last one ends. A Loaded that nobody refers
    to any more is closed as well, unless the interpreter is ending: then threads may still sit
    in it.
    """

    def __init__(self, memory: Image | _JitMemory) -> None:
        self._memory: Image | _JitMemory | None = memory
        self._leases = 0
        self._closing = False

    def address(self, name: str) -> int:
        """Where the function `name` begins; EngineError if there is none, or after `close`."""
        memory = self._memory
        if self._closing or memory is None:
            raise EngineError(f"llvm: {name} was asked for after its code was closed.")
        place = memory.find(name)
        if not place:
            raise EngineError(f"llvm: there is no function {name!r} in this object.")
        return place

    def lease(self) -> Lease:
        """Keep the memory until the lease ends; EngineError after `close`."""
        with _leasing:
            if self._closing:
                raise EngineError("llvm: a lease was asked for after the code was closed.")
            self._leases += 1
        return Lease(self)

    def _give_back(self) -> None:
        with _leasing:
            self._leases -= 1
            free = self._closing and self._leases == 0
        if free:
            self._free()

    def close(self) -> None:
        """Free the memory, now or when the last lease ends. May be called again."""
        with _leasing:
            free = not self._closing and self._leases == 0
            self._closing = True
        if free:
            self._free()

    @property
    def closed(self) -> bool:
        """Whether the memory is free again."""
        return self._memory is None

    def _free(self) -> None:
        memory, self._memory = self._memory, None
        if memory is not None:
            memory.close()

    def __del__(self, is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        # A default, because the interpreter may have emptied this module already.
        memory = getattr(self, "_memory", None)
        if memory is None:
            return
        if is_finalizing():
            memory.forget()
        else:
            self._free()


class Lease:
    """The right to be inside a `Loaded`; it ends with the `with` block, or with `end`."""

    __slots__ = ("_loaded",)

    def __init__(self, loaded: Loaded) -> None:
        self._loaded: Loaded | None = loaded

    def end(self) -> None:
        """Give the lease back; a second call does nothing."""
        loaded, self._loaded = self._loaded, None
        if loaded is not None:
            loaded._give_back()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        failure: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()


def load(
    code: bytes,
    target: Target | None = None,
    *,
    allowed: frozenset[str] = ALLOWED_SYMBOLS,
    by_llvm: bool | None = None,
) -> Loaded:
    """Load object code into executable memory.

    code     from `compile_text` for a target that this machine can run; whoever reads it from a
             file has checked its digest before
    by_llvm  whether LLVM's loader is used; default: where lamina's own cannot
    raises   EngineError on an unresolved symbol; ObjectError if it is no object file
    """
    target = target or host.detect()
    _check_symbols(code, allowed, target.name)
    if by_llvm is None:
        by_llvm = not loader.handles(code)
    counters.loads += 1
    if not by_llvm:
        return Loaded(loader.Image(code, _outside))
    with binding.lock():
        _close_unused()
        return Loaded(_JitMemory(code, target))


def _outside(name: str) -> int:
    """The address of a function of the C library."""
    library = ctypes.CDLL("msvcrt" if sys.platform == "win32" else None)
    return ctypes.cast(getattr(library, name), ctypes.c_void_p).value or 0
