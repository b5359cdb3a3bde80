"""The writer of LLVM assembly: what it shares, hoists, folds, and what its loops compute."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
from kernel_oracle import TARGETS

from lamina.llvm import engine, host
from lamina.llvm.emit import (
    FLOAT,
    I32,
    I64,
    POINTER,
    Emit,
    Index,
    Module,
    Place,
    literal,
    mangled,
    parts,
    vector,
)

every_target = pytest.mark.parametrize("target", TARGETS)


def start(target: str, *names: str) -> tuple[Module, Emit]:
    """A module with a function whose parameters are pointers, then an i64 `n`."""
    module = Module(host.target(target))
    parameters = [(POINTER, name) for name in names]
    return module, module.function("f", [*parameters, (I64, "n")])


def call(module: Module, *arrays: np.ndarray, n: int = 0) -> None:
    loaded = engine.load(engine.compile_text(module.text(), module.target), module.target)
    kinds = [ctypes.c_void_p] * len(arrays) + [ctypes.c_int64]
    function = ctypes.CFUNCTYPE(None, *kinds)(loaded.address("f"))
    function(*(array.ctypes.data for array in arrays), n)
    loaded.close()


def test_types_and_literals():
    assert vector(FLOAT, 1) == "float"
    assert parts("<16 x float>") == ("float", 16)
    assert mangled("<8 x ptr>") == "v8p0"
    assert literal(0.1, FLOAT) == "0x3FB99999A0000000", "rounded to float32 first"
    assert literal(0.1, "double") == "0x3FB999999999999A"
    assert literal(True, "i1") == "true"


def test_equal_instructions_are_shared():
    _, e = start("sse2", "x")
    x = e.parameters[1]
    assert (x * 3).text == (x * 3).text
    assert (x * 3).text != (x * 5).text
    assert (x + 0) is x
    assert (x * 1) is x


def test_what_does_not_depend_on_a_loop_stands_before_it():
    module, e = start("sse2", "x")
    x, n = e.parameters
    with e.loop(0, n) as outer, e.loop(0, n) as inner:
        fixed = e.splat(e.cast("trunc", n * 7, I32), 4)
        row = Place(x).step(outer.index, 64)
        e.store(fixed, row.step(inner.index, 16))
    e.finish()
    lines = module.text().splitlines()
    at = {text: number for number, line in enumerate(lines) for text in [line]}
    multiply = next(number for line, number in at.items() if "mul i64 %n, 7" in line)
    address = next(number for line, number in at.items() if "[64 x i8]" in line)
    labels = [number for number, line in enumerate(lines) if line.endswith(":")]
    assert multiply < labels[1] < address < labels[2]


def test_divisions_stay_where_they_are_written():
    module, e = start("sse2", "x")
    x, n = e.parameters
    with e.when(n.differs(0)):
        e.store(n // n, Place(x))
    e.finish()
    text = module.text()
    assert text.index("udiv") > text.index("br i1")


@every_target
@pytest.mark.parametrize("n", [0, 1, 7])
def test_loops_carry_values_and_may_be_empty(target, n):
    module, e = start(target, "x")
    x, count = e.parameters
    with e.loop(0, count, 2, [e.value(100, I64)]) as loop:
        loop.next = [loop.carry[0] + loop.index.on(e)]
    e.store(loop.result[0], Place(x))
    e.finish()
    out = np.zeros(1, "i8")
    call(module, out, n=n)
    assert out[0] == 100 + sum(range(0, n, 2))


def test_a_loop_of_one_round_is_straight_code():
    module, e = start("sse2", "x")
    with e.loop(3, 4, carry=[e.value(1, I64)]) as loop:
        loop.next = [loop.carry[0] + loop.index.on(e)]
    e.store(loop.result[0], Place(e.parameters[0]))
    e.finish()
    assert "phi" not in module.text()
    out = np.zeros(1, "i8")
    call(module, out)
    assert out[0] == 4


@every_target
@pytest.mark.parametrize("n", [0, 1])
def test_choices_and_conditions(target, n):
    module, e = start(target, "x")
    x, count = e.parameters
    (found,) = e.choose(
        count.equal(0), lambda: [e.value(2.5, FLOAT)], lambda: [e.cast("sitofp", count, FLOAT)]
    )
    e.store(found, Place(x))
    with e.when(count > 0):
        e.store(found, Place(x) + 4)
    e.finish()
    out = np.zeros(2, "f4")
    call(module, out, n=n)
    np.testing.assert_array_equal(out, [2.5, 0] if n == 0 else [1, 1])


@every_target
def test_transposes_and_sums_across_lanes(target):
    module, e = start(target, "x", "y")
    x, y, _ = e.parameters
    lanes = e.lanes
    kind = vector(FLOAT, lanes)
    rows = [e.load(Place(x, row * lanes * 4), kind) for row in range(lanes)]
    for row, value in enumerate(e.transpose(rows)):
        e.store(value, Place(y, row * lanes * 4))
    e.store(e.across(rows[0], lambda a, b: a + b), Place(y, lanes * lanes * 4))
    e.finish()
    source = np.arange(lanes * lanes, dtype="f4").reshape(lanes, lanes)
    out = np.zeros(lanes * lanes + 1, "f4")
    call(module, source, out)
    np.testing.assert_array_equal(out[:-1].reshape(lanes, lanes), source.T)
    assert out[-1] == source[0].sum()


@every_target
@pytest.mark.parametrize("n", range(6))
def test_masks_gathers_and_scatters(target, n):
    module, e = start(target, "x", "y")
    x, y, count = e.parameters
    lanes = e.lanes
    mask = e.first_lanes(count, lanes)
    offsets = e.lane_numbers(lanes, I32, 2)
    got = e.gather(e.pointers(Place(x), offsets, 4), FLOAT, mask)
    e.store(got, Place(y), mask=mask)
    e.scatter(got, e.pointers(Place(y, lanes * 4), offsets, 4), mask)
    e.store(e.cast("zext", e.any_lane(mask), I32), Place(y, lanes * 12))
    e.finish()
    source = np.arange(2 * lanes, dtype="f4") + 1
    out = np.zeros(3 * lanes + 1, "f4")
    call(module, source, out, n=n)
    taken = min(n, lanes)
    np.testing.assert_array_equal(out[:taken], source[::2][:taken])
    assert not out[taken:lanes].any()
    np.testing.assert_array_equal(out[lanes : 3 * lanes : 2][:taken], source[::2][:taken])
    assert (out.view("i4")[-1] != 0) == (n > 0)


@every_target
def test_memory_blocks_and_calls(target):
    module, e = start(target, "x", "y")
    inner = module.function("twice", [(I64, "a")], I64, internal=True)
    inner.finish(inner.parameters[0] * 2)
    x, y, count = e.parameters
    e.clear(Place(y), 16)
    buffer = e.stack(64)
    e.copy(buffer, Place(x), count * 4)
    e.prefetch(Place(x))
    e.copy(Place(y) + 16, buffer, count * 4)
    e.store(e.call("twice", I64, count), Place(y) + 64)
    e.store(e.load(e.zero_block(), FLOAT), Place(y) + 72)
    table = Place(e.symbol(module.table(np.arange(4, dtype="i4").tobytes())))
    e.store(e.load(table + 8, I32), Place(y) + 76)
    e.finish()
    source = np.arange(3, dtype="f4")
    out = np.full(20, 9, "f4")
    call(module, source, out, n=3)
    np.testing.assert_array_equal(out[:7], [0, 0, 0, 0, 0, 1, 2])
    assert out.view("i8")[8] == 6
    assert out[18] == 0
    assert out.view("i4")[19] == 2


def test_indexes_keep_constants_apart():
    _, e = start("sse2", "x")
    n = e.parameters[1]
    total = (Index(n, 3) + 4) * 5 + Index(None, 2)
    assert total.constant == 37
    assert total.number is None
    assert (Index(None, 2) * 3).number == 6
    place = Place(e.parameters[0]).step(Index(n, 3), 4) + 8
    assert place.offset == 20


def test_no_fast_math_and_no_library(rng):
    for name in (*TARGETS, "neon"):
        module, e = start(name, "x")
        value = e.load(Place(e.parameters[0]), vector(FLOAT, e.lanes))
        e.store(e.fma(value, value, e.sqrt(e.abs(value))), Place(e.parameters[0]))
        e.finish()
        text = module.text()
        assert not any(word in text for word in ("fast", "contract", "reassoc", "nsz"))
        assert ("llvm.fma" in text) == module.target.has_fma
        engine.compile_text(text, module.target)
