"""Every generator's code compiles for every instruction set and calls no library function."""

from __future__ import annotations

import pytest

from lamina.llvm import engine, host, kernels
from lamina.llvm.elementary import FUNCTIONS, PAIRS
from lamina.llvm.emit import Module
from lamina.llvm.kernel import (
    Convert,
    Core,
    Cumulative,
    Elementwise,
    Guard,
    Load,
    Lookup,
    Random,
    Reduction,
    RowGroup,
    Scalar,
    Scatter,
    Sort,
    Stage,
    Store,
    WindowGradient,
)
from lamina.types import DTYPES, FLOATS, Batch

NAMES = ("avx512", "avx2", "sse2", "neon")
every_target = pytest.mark.parametrize("name", NAMES)
REAL = ("add", "sub", "mul", "div", "mod", "floordiv", "maximum", "minimum", "sign", "isfinite")
WHOLE = ("add", "mul", "floordiv", "mod", "maximum", "pow", "shl", "shr", "and", "not", "sign")


def compile_all(specifications, name: str) -> str:
    """One module of all of them, compiled and checked for symbols; its assembly."""
    target = host.target(name)
    module = Module(target)
    for number, kernel in enumerate(specifications):
        kernels.build(kernel, f"k{number}", module, target)
    text = module.text()
    engine.compile_text(text, target)
    return engine.assembly(text, target)


def scalar(fn: str, dtype: str) -> Elementwise:
    count = 1 if fn in {*FUNCTIONS, "sign", "not", "isfinite"} else 2
    result = "bool" if fn == "isfinite" else dtype
    body = (
        *(Load(i, dtype, 0, (1,)) for i in range(count)),
        Scalar(fn, tuple(range(count)), result),
    )
    return Elementwise((Batch(1),), body, (Store(count, count, result, 0, (1,)),))


@every_target
@pytest.mark.parametrize("dtype", FLOATS)
def test_functions_of_floats(name, dtype):
    names = [*FUNCTIONS, *PAIRS, *REAL]
    compile_all([scalar(fn, dtype) for fn in names], name)


@every_target
@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "int64", "uint64"])
def test_functions_of_integers(name, dtype):
    compile_all([scalar(fn, dtype) for fn in WHOLE], name)


@every_target
def test_conversions_between_all_dtypes(name):
    compile_all(
        [
            Elementwise(
                (37,),
                (Load(0, source, 0, (1,)), Convert(0, dtype)),
                (Store(1, 1, dtype, 0, (1,)),),
            )
            for source in DTYPES
            for dtype in DTYPES
        ],
        name,
    )


@every_target
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "int8", "bool"])
def test_the_other_kernels(name, dtype):
    combine = "max" if dtype == "bool" else "sum"
    into = "max" if dtype == "bool" else "add"
    guard = (Guard((0, 1), 0, 2, 30),)
    specifications = [
        Elementwise(
            (Batch(1), 33),
            (
                Load(0, dtype, 0, (1, 64), guard),
                Load(1, "int32", 0, (33, 1)),
                Lookup(0, dtype, 0, (0, 0), ((1, 1, 9),)),
                Random(2, 3, (1, 0), (0, 1)),
            ),
            (
                Store(0, 3, dtype, 0, (33, 1)),
                Store(2, 4, dtype, 0, (33, 1)),
                Store(3, 5, "uint32", 0, (33, 1)),
            ),
        ),
        *(
            Reduction(
                (Batch(1),),
                (40,),
                (Load(0, dtype, 0, strides),),
                ((0, combine), (0, "argmax")),
                (Core(0, dtype), Core(1, "int32")),
                (Store(0, 1, dtype, 0, (1,)), Store(1, 2, "int32", 0, (1,))),
            )
            for strides in ((40, 1), (1, 64))
        ),
        *(
            RowGroup(
                (Batch(1),),
                columns,
                (Load(0, dtype, 0, (columns, 1)), Core(0, dtype), Scalar("maximum", (0, 1), dtype)),
                (Stage(0, combine),),
                (Store(2, 1, dtype, 0, (columns, 1)),),
                (),
            )
            for columns in (10, 1000)
        ),
        Scatter(1, 50, 19, Batch(1), into, dtype, "int32"),
        Cumulative(Batch(1), 7, 20, combine, False, dtype),
        Sort(Batch(1), 21, dtype, ("int32",), True),
    ]
    if dtype in FLOATS:
        specifications += [
            WindowGradient(kind, Batch(1), (8, 8), (4, 4), (3, 3), (2, 2), (1, 1), 20, dtype)
            for kind in ("max", "mean", "sum")
        ]
    compile_all(specifications, name)


@pytest.mark.parametrize(
    ("name", "register"), [("avx512", "%zmm"), ("avx2", "%ymm"), ("sse2", "%xmm"), ("neon", ".4s")]
)
def test_the_widest_registers_are_used(name, register):
    text = compile_all([scalar("mul", "float32")], name)
    assert register in text
