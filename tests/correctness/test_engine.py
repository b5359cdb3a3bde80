"""Text to object code to addresses; what LLVM must never see, and what must never be freed early."""

from __future__ import annotations

import ctypes
import dataclasses
import gc
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from lamina.llvm import engine, host, loader, runtime
from lamina.llvm.symbols import ObjectError, symbols

TWICE = "define i64 @twice(i64 %x) { %y = shl i64 %x, 1 ret i64 %y }"
COPY = """
declare ptr @memcpy(ptr, ptr, i64)
define void @copy(ptr %to, ptr %from, i64 %bytes) {
  call ptr @memcpy(ptr %to, ptr %from, i64 %bytes)
  ret void
}"""
TABLE = """
@table = internal constant [4 x float] [float 1.5, float 2.5, float 3.5, float 4.5], align 16
define float @look(i64 %i) {
  %p = getelementptr float, ptr @table, i64 %i
  %v = load float, ptr %p, align 4
  ret float %v
}"""


# Every kind of relocation: constants, variables, functions by table and by pointer, a jump table.
ALL_KINDS = """
@counter = internal global i64 5, align 8
@shared = global i64 11, align 8
@empty = internal global [1000 x i64] zeroinitializer, align 64
@functions = internal constant [3 x ptr] [ptr @one, ptr @two, ptr @exported]
define internal i64 @one(i64 %x) noinline { ret i64 1 }
define internal i64 @two(i64 %x) noinline { ret i64 2 }
define i64 @exported(i64 %x) noinline { %y = add i64 %x, 100 ret i64 %y }
define i64 @count(i64 %x) {
  %old = load i64, ptr @counter, align 8
  %new = add i64 %old, %x
  store i64 %new, ptr @counter, align 8
  ret i64 %new
}
define i64 @by_pointer(i64 %i) {
  %place = getelementptr ptr, ptr @functions, i64 %i
  %function = load ptr, ptr %place, align 8
  %value = call i64 %function(i64 %i)
  ret i64 %value
}
define i64 @own_address(i64 %x) { %y = ptrtoint ptr @exported to i64 ret i64 %y }
define i64 @shared_value(i64 %x) {
  %value = load i64, ptr @shared, align 8
  %place = getelementptr i64, ptr @empty, i64 %x
  %zero = load i64, ptr %place, align 8
  store i64 %value, ptr %place, align 8
  %sum = add i64 %value, %zero
  ret i64 %sum
}
define i64 @choose(i64 %x) {
  switch i64 %x, label %other [
    i64 0, label %a i64 1, label %b i64 2, label %c i64 3, label %d i64 4, label %e i64 5, label %f
  ]
a: ret i64 70
b: ret i64 -3
c: ret i64 9
d: ret i64 44
e: ret i64 123456789
f: ret i64 8
other: ret i64 -1
}"""

own_loader = pytest.mark.skipif(
    not loader.handles(engine.compile_text(TWICE)), reason="LLVM's loader is used here"
)
both_loaders = pytest.mark.parametrize(
    "by_llvm", [pytest.param(False, marks=own_loader), True], ids=["own", "llvm"]
)


def call_twice(loaded, x):
    return ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(loaded.address("twice"))(x)


def test_text_becomes_a_function():
    loaded = engine.load(engine.compile_text(TWICE))
    assert call_twice(loaded, 21) == 42
    loaded.close()
    assert loaded.closed


@both_loaders
@pytest.mark.parametrize("target", host.runnable_targets(), ids=lambda target: target.name)
def test_constants_and_copies_work_on_every_target(target, by_llvm):
    loaded = engine.load(engine.compile_text(TABLE + COPY, target), target, by_llvm=by_llvm)
    look = ctypes.CFUNCTYPE(ctypes.c_float, ctypes.c_int64)(loaded.address("look"))
    assert [look(i) for i in range(4)] == [1.5, 2.5, 3.5, 4.5]
    copy = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_int64)
    to = ctypes.create_string_buffer(8)
    copy(loaded.address("copy"))(to, b"abcdefgh", 5)
    assert to.raw == b"abcde\0\0\0"


@both_loaders
@pytest.mark.parametrize("level", [0, 2])
def test_every_kind_of_reference_is_resolved(by_llvm, level):
    loaded = engine.load(engine.compile_text(ALL_KINDS, level=level), by_llvm=by_llvm)

    def call(name, x):
        return ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(loaded.address(name))(x)

    assert [call("count", 3) for _ in range(3)] == [8, 11, 14]
    assert [call("by_pointer", i) for i in range(3)] == [1, 2, 102]
    assert call("own_address", 0) == loaded.address("exported")
    assert [call("shared_value", i) for i in (0, 999, 0)] == [11, 11, 22]
    assert [call("choose", i) for i in range(-1, 7)] == [-1, 70, -3, 9, 44, 123456789, 8, -1]
    loaded.close()


@own_loader
def test_memory_is_never_writable_and_executable():
    code = engine.compile_text(ALL_KINDS + COPY)
    loaded = engine.load(code, by_llvm=False)
    start, size = loaded._memory.address, loaded._memory.size
    rights = {}
    for line in Path("/proc/self/maps").read_text().splitlines():
        first, last = (int(word, 16) for word in line.split()[0].split("-"))
        if first < start + size and last > start:
            rights[max(first, start)] = line.split()[1]
    assert [rights[key] for key in sorted(rights)][:2] == ["r-xp", "r--p"]
    assert not any("w" in right and "x" in right for right in rights.values())
    loaded.close()
    assert f"{start:x}-" not in Path("/proc/self/maps").read_text()


@own_loader
def test_our_loader_meets_damage_with_an_error():
    """The cache's digest stands before it; still, whatever the bytes say, loading ends in Python."""
    code = engine.compile_text(ALL_KINDS + COPY)
    generator = np.random.default_rng(0)
    failures = 0
    for _ in range(1500):
        damaged = bytearray(code)
        for place in generator.integers(20, len(code), generator.integers(1, 4)):
            damaged[place] = generator.integers(256)
        try:
            loader.Image(bytes(damaged), engine._outside).close()
        except (ObjectError, AttributeError):  # the latter: no such function in the C library
            failures += 1
    assert failures > 100
    for length in range(20, len(code), 37):
        with pytest.raises(ObjectError):
            loader.Image(code[:length], engine._outside)


@own_loader
def test_a_relocation_that_the_loader_does_not_know_is_refused():
    text = "@v = thread_local global i64 3\ndefine ptr @f() { ret ptr @v }"
    code = engine.compile_text(text, allowed=engine.ALLOWED_SYMBOLS | {"__tls_get_addr"})
    with pytest.raises(ObjectError, match="relocations of kind"):
        loader.Image(code, lambda name: 1)


@own_loader
def test_loading_does_not_need_llvm():
    """A start from the cache neither imports LLVM nor waits for it."""
    code = engine.compile_text(TWICE + COPY)
    program = f"""
import sys
from lamina.llvm import engine, host
target = host.Target("sse2", "x86-64", "+sse2", "", 4, 16, False, False)
loaded = engine.load({code!r}, target)
assert loaded.address("twice") and loaded.address("copy")
print("llvmlite.binding" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert done.stdout == "False\n"


def test_the_same_text_gives_the_same_bytes():
    assert engine.compile_text(TABLE) == engine.compile_text(TABLE)


def test_objects_hold_no_address_of_this_process():
    """Two processes compile the same bytes, so an object may be cached."""
    program = f"""
import hashlib
from lamina.llvm import engine, host, loader, runtime
text = runtime.runtime_text(host.target("native"), host.os_table()) + {COPY!r}
print(hashlib.sha256(engine.compile_text(text)).hexdigest())
"""
    digests = {
        subprocess.run(
            [sys.executable, "-c", program], check=True, capture_output=True, text=True
        ).stdout
        for _ in range(2)
    }
    assert len(digests) == 1


def test_refused_text_names_the_line():
    with pytest.raises(engine.EngineError) as caught:
        engine.compile_text("define i64 @f(i64 %x) {\n  %y = add i32 %x, 1\n  ret i64 %y\n}")
    message = str(caught.value)
    assert message.startswith("llvm: generated code was refused.")
    assert "%y = add i32 %x, 1" in message
    assert "defined with type 'i64'" in message


def test_text_that_only_the_verifier_refuses():
    text = "define void @f(ptr %p) { br label %a\na: %x = add i64 %y, 1\n %y = add i64 1, 1\n ret void }"
    with pytest.raises(engine.EngineError, match="does not dominate"):
        engine.compile_text(text)


def test_a_refusal_leaves_the_engine_usable():
    for _ in range(3):
        with pytest.raises(engine.EngineError):
            engine.compile_text("nonsense")
    assert call_twice(engine.load(engine.compile_text(TWICE)), 4) == 8


@pytest.mark.parametrize(
    ("target", "text", "symbol"),
    [
        ("avx2", "declare double @pow(double, double)\ndefine double @f(double %x) { %y = call double @pow(double %x, double %x) ret double %y }", "pow"),
        ("sse2", "declare float @llvm.fma.f32(float, float, float)\ndefine float @f(float %x) { %y = call float @llvm.fma.f32(float %x, float %x, float %x) ret float %y }", "fmaf"),
        ("sse2", "define half @f(float %x) { %y = fptrunc float %x to half ret half %y }", "__truncsfhf2"),
        ("neon", "declare float @llvm.exp.f32(float)\ndefine float @f(float %x) { %y = call float @llvm.exp.f32(float %x) ret float %y }", "expf"),
    ],
)  # fmt: skip
def test_unresolved_symbols_are_refused_before_loading(target, text, symbol):
    with pytest.raises(engine.EngineError) as caught:
        engine.compile_text(text, host.target(target))
    assert "llvm: generated code calls functions that lamina does not have." in str(caught.value)
    assert symbol in str(caught.value) and f"target   {target}" in str(caught.value)


def test_load_refuses_an_unresolved_symbol_as_well():
    code = engine.compile_text(COPY)
    with pytest.raises(engine.EngineError, match="memcpy"):
        engine.load(code, allowed=frozenset())


@pytest.mark.parametrize("damage", [b"", b"\x7fELF", b"no object at all" * 8])
def test_load_refuses_what_is_no_object(damage):
    with pytest.raises(ObjectError):
        engine.load(damage)


def test_an_unknown_function_is_named():
    loaded = engine.load(engine.compile_text(TWICE))
    with pytest.raises(engine.EngineError, match="there is no function 'thrice'"):
        loaded.address("thrice")


@pytest.mark.parametrize(
    ("name", "triple"),
    [
        ("avx2", "x86_64-unknown-linux-gnu"),
        ("avx2", "x86_64-apple-macosx14.0.0"),
        ("avx2", "x86_64-pc-windows-msvc"),
        ("avx2", "x86_64-pc-windows-msvc-elf"),
        ("neon", "aarch64-unknown-linux-gnu"),
        ("neon", "arm64-apple-macosx14.0.0"),
        ("neon", "aarch64-pc-windows-msvc"),
    ],
)
def test_symbols_are_read_from_every_kind_of_object(name, triple):
    target = dataclasses.replace(host.target(name), triple=triple)
    text = COPY + TWICE + "\ndefine internal void @own() noinline { ret void }"
    text += "\ndeclare void @a_name_of_more_than_eight_letters()"
    text += "\ndefine void @g() { call void @a_name_of_more_than_eight_letters() ret void }"
    allowed = frozenset({"memcpy", "a_name_of_more_than_eight_letters"})
    defined, needed = symbols(engine.compile_text(text, target, allowed=allowed))
    assert {"copy", "twice", "g"} <= defined
    assert "own" not in defined
    assert needed == allowed


@pytest.mark.parametrize("kind", ["futex", "os_sync", "windows", "pthread"])
@pytest.mark.parametrize("name", ["avx512", "avx2", "sse2", "neon"])
def test_the_runtime_compiles_for_every_system_and_needs_nothing(name, kind):
    table = host.OsTable(kind, 1, 2, 3, 4, 5, 6, 7, 8)
    target = host.target(name)
    code = engine.compile_text(runtime.runtime_text(target, table), target, allowed=frozenset())
    defined, _ = symbols(code)
    assert defined == {
        "lamina_run", "lamina_worker", "lamina_stop", "lamina_sleep", "lamina_wake", "lamina_time",
        "lamina_measure",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["avx512", "avx2", "sse2", "neon"])
def test_the_barrier_compiles_for_every_target(name):
    step = """
define void @step(ptr %args, i64 %tid, i64 %threads) {
  %time = call i64 @lamina_nanoseconds(ptr %args)
  %ticks = call i64 @lamina_ticks()
  call void @lamina_barrier(ptr %args, i64 %threads)
  ret void
}"""
    text = runtime.barrier_text(host.target(name)) + step
    engine.compile_text(text, host.target(name), allowed=frozenset())
    listing = engine.assembly(text, host.target(name))
    counter, pause = ("cntvct_el0", "isb") if name == "neon" else ("rdtsc", "pause")
    assert counter in listing.lower() and pause in listing


def test_passes_run_when_asked_for():
    text = "define i64 @f(i64 %x) { %y = mul i64 %x, 8 %z = add i64 %y, 0 ret i64 %z }"
    plain, combined = engine.assembly(text), engine.assembly(text, passes=["instcombine"])
    assert "f:" in plain and "f:" in combined


def test_counters_count():
    before = dataclasses.replace(engine.counters)
    code = engine.compile_text(TWICE)
    assert (engine.counters.parses, engine.counters.loads) == (before.parses + 1, before.loads)
    engine.load(code)
    assert (engine.counters.parses, engine.counters.loads) == (before.parses + 1, before.loads + 1)


@both_loaders
def test_a_lease_keeps_the_code_until_it_ends(by_llvm):
    loaded = engine.load(engine.compile_text(TWICE), by_llvm=by_llvm)
    first, second = loaded.lease(), loaded.lease()
    address = loaded.address("twice")
    loaded.close()
    assert not loaded.closed
    assert ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(address)(3) == 6
    first.end()
    first.end()
    assert not loaded.closed
    with second:
        pass
    assert loaded.closed
    loaded.close()
    with pytest.raises(engine.EngineError, match="after the code was closed"):
        loaded.lease()
    with pytest.raises(engine.EngineError, match="after its code was closed"):
        loaded.address("twice")


def test_a_lease_keeps_code_that_nobody_refers_to():
    loaded = engine.load(engine.compile_text(TWICE))
    address, lease = loaded.address("twice"), loaded.lease()
    del loaded
    gc.collect()
    assert ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(address)(5) == 10
    lease.end()


def test_threads_may_compile_load_and_close_at_once():
    failures = []

    def work(number):
        try:
            for _ in range(5):
                text = f"define i64 @twice(i64 %x) {{ %y = mul i64 %x, {number} ret i64 %y }}"
                loaded = engine.load(engine.compile_text(text))
                assert call_twice(loaded, 7) == 7 * number
                loaded.close()
        except Exception as failure:  # noqa: BLE001
            failures.append(failure)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2, 6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@both_loaders
def test_compiling_and_loading_leaves_nothing_behind(by_llvm):
    def resident():
        with Path("/proc/self/statm").open() as stream:
            return int(stream.read().split()[1]) * 4096

    def rounds(count):
        for _ in range(count):
            loaded = engine.load(engine.compile_text(TABLE), by_llvm=by_llvm)
            loaded.address("look")
            loaded.close()

    rounds(30)
    before = resident()
    rounds(150)
    assert resident() - before < 3 << 20  # the default context would have kept 27 MB


def test_many_programs_stay_loaded():
    kept = [engine.load(engine.compile_text(TWICE)) for _ in range(40)]
    assert [call_twice(loaded, i) for i, loaded in enumerate(kept)] == [2 * i for i in range(40)]


def test_importing_lamina_does_not_import_llvmlite():
    program = "import sys, lamina.llvm.engine, lamina.llvm.pool; print('llvmlite' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert done.stdout == "False\n"
