"""Text to object code to addresses; what LLVM must never see, and what must never be freed early."""

from __future__ import annotations

import ctypes
import dataclasses
import gc
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from lamina.llvm import engine, host, runtime
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


def call_twice(loaded, x):
    return ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(loaded.address("twice"))(x)


def test_text_becomes_a_function():
    loaded = engine.load(engine.compile_text(TWICE))
    assert call_twice(loaded, 21) == 42
    loaded.close()
    assert loaded.closed


@pytest.mark.parametrize("target", host.runnable_targets(), ids=lambda target: target.name)
def test_constants_and_copies_work_on_every_target(target):
    loaded = engine.load(engine.compile_text(TABLE + COPY, target), target)
    look = ctypes.CFUNCTYPE(ctypes.c_float, ctypes.c_int64)(loaded.address("look"))
    assert [look(i) for i in range(4)] == [1.5, 2.5, 3.5, 4.5]
    copy = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_int64)
    to = ctypes.create_string_buffer(8)
    copy(loaded.address("copy"))(to, b"abcdefgh", 5)
    assert to.raw == b"abcde\0\0\0"


def test_the_same_text_gives_the_same_bytes():
    assert engine.compile_text(TABLE) == engine.compile_text(TABLE)


def test_objects_hold_no_address_of_this_process():
    """Two processes compile the same bytes, so an object may be cached."""
    program = f"""
import hashlib
from lamina.llvm import engine, host, runtime
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


def test_a_lease_keeps_the_code_until_it_ends():
    loaded = engine.load(engine.compile_text(TWICE))
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
def test_compiling_and_loading_leaves_nothing_behind():
    def resident():
        with Path("/proc/self/statm").open() as stream:
            return int(stream.read().split()[1]) * 4096

    def rounds(count):
        for _ in range(count):
            loaded = engine.load(engine.compile_text(TABLE))
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
