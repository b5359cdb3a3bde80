"""A module cut into parts is the same module: same functions, same results, same bytes each time."""

from __future__ import annotations

import ctypes

import pytest

from lamina import config
from lamina.llvm import archive, engine, host, loader, split
from lamina.llvm.symbols import ObjectError, symbols


def kernel(number, lines):
    body = "\n".join(f"  %x{i + 1} = mul i64 %x{i}, {2 * number + 3}" for i in range(lines))
    return f"define i64 @k{number}(i64 %x0, ptr %p) noinline nounwind {{\n{body}\n  ret i64 %x{lines}\n}}"


def module(kernels=12, lines=700):
    """Kernels, an internal function that calls them all, one that only kernel 3 calls, a table."""
    calls = "\n".join(
        f"  %v{n} = call i64 @k{n}(i64 %x, ptr @table)\n  %s{n + 1} = add i64 %s{n}, %v{n}"
        for n in range(kernels)
    )
    extra = (
        "define i64 @calls_inner(i64 %x) {\n  %y = call i64 @inner(i64 %x)\n  ret i64 %y\n}\n"
        "define i64 @calls_kernel(i64 %x) {\n  %y = call i64 @k1(i64 %x, ptr null)\n  ret i64 %y\n}\n"
        "define i64 @looks(i64 %i) {\n  %p = getelementptr i64, ptr @table, i64 %i\n"
        "  %v = load i64, ptr %p, align 8\n  ret i64 %v\n}"
    )
    return "\n".join(
        [
            "declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)",
            "declare ptr @memcpy(ptr, ptr, i64)",
            "@table = internal unnamed_addr constant [3 x i64] [i64 5, i64 6, i64 7], align 8",
            *(kernel(n, lines) for n in range(kernels)),
            extra,
            "define internal i64 @inner(i64 %x) noinline {\n  %y = add i64 %x, 1\n  ret i64 %y\n}",
            f"define internal i64 @one(i64 %x) noinline {{\n  %s0 = add i64 %x, 0\n{calls}\n  ret i64 %s{kernels}\n}}",
            "define i64 @step(i64 %x) {\n  %y = call i64 @one(i64 %x)\n  ret i64 %y\n}",
        ]
    )


def expected(x, kernels=12, lines=700):
    return (x + sum(x * pow(2 * n + 3, lines, 2**64) for n in range(kernels))) % 2**64


def test_a_short_module_is_left_whole():
    text = module(2, 5)
    assert split.split(text) == [text]


def test_parts_hold_each_function_once_and_are_of_a_size():
    parts = split.split(module())
    assert len(parts) == 12 * 700 // split.PART_LINES
    definitions = [
        line for part in parts for line in part.splitlines() if line.startswith("define")
    ]
    names = [line.split("@")[1].split("(")[0] for line in definitions]
    assert sorted(names) == sorted(
        [f"k{n}" for n in range(12)]
        + ["calls_inner", "calls_kernel", "looks", "inner", "one", "step"]
    )
    sizes = [part.count("\n") for part in parts]
    assert max(sizes) < 2.2 * min(sizes)


@pytest.mark.parametrize("whole", [False, True])
def test_parts_work_together(whole, monkeypatch):
    if whole:
        monkeypatch.setattr(loader, "suits", lambda triple: False)
    code = engine.compile_text(module())
    if not whole and loader.suits(host.native_triple()):
        assert len(archive.unpack(code)) == 7
    loaded = engine.load(code)

    def call(name, x):
        function = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_uint64)
        return function(loaded.address(name))(x)

    assert call("step", 12345) == expected(12345)
    assert call("calls_inner", 41) == 42
    assert call("calls_kernel", 1) == pow(5, 700, 2**64)
    assert [call("looks", i) for i in range(3)] == [5, 6, 7]
    loaded.close()


def test_the_bytes_do_not_depend_on_the_number_of_threads():
    with config.override(threads=1):
        one = engine.compile_text(module())
    with config.override(threads=3):
        three = engine.compile_text(module())
    assert one == three


def test_symbols_of_an_archive_are_those_of_the_whole():
    defined, needed = symbols(engine.compile_text(module()))
    assert {"step", "k0", "k11", "looks"} <= defined
    assert needed == frozenset()
    assert "one" not in defined


def test_an_error_in_one_part_is_reported():
    text = module().replace("%y = add i64 %x, 1\n", "%y = add i32 %x, 1\n")
    with pytest.raises(engine.EngineError, match=r"%y = add i32 %x, 1"):
        engine.compile_text(text)
    engine.compile_text(module())


def test_a_missing_function_in_one_part_is_refused():
    text = module().replace("%y = call i64 @inner", "%y = call i64 @outer")
    text = f"declare i64 @outer(i64)\n{text}"
    with pytest.raises(engine.EngineError, match="outer"):
        engine.compile_text(text)


@pytest.mark.parametrize(
    "line",
    ["@state = internal global i64 0, align 8", "@seen = constant i64 3", '@"odd name" = internal constant i64 1'],
)  # fmt: skip
def test_modules_with_variables_or_odd_names_are_left_whole(line):
    text = f"{line}\n{module()}"
    assert split.split(text) == [text]


def test_a_damaged_archive_is_an_error():
    code = archive.pack([b"first", b"second!", b""])
    assert archive.unpack(code) == [b"first", b"second!", b""]
    for length in (9, 40, len(code) - 70, len(code) - 3):
        with pytest.raises(ValueError, match="archive"):
            archive.unpack(code[:length])
    with pytest.raises(ObjectError):
        symbols(code)
    with pytest.raises(ObjectError):
        engine.load(code[:50])
