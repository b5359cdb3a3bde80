"""Products of int8 and half precision in words: right, exact where they are integers, and used."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import pytest
from contraction_cases import BATCH, Case, Geometry, convolution, dot, input_gradient, same
from emulation import Emulator, missing
from test_contraction import check, compare, oracle
from test_llvm_steps import same_bits

from benchmarks import precision
from lamina import config, keras, mixed_precision
from lamina.ir.contractions import conv
from lamina.ir.contractions import dot as dot_node
from lamina.ir.elementary import reduce_sum
from lamina.ir.graph import constant, input_node
from lamina.ir.movement import reshape
from lamina.ir.program import Program
from lamina.ir.scalar import cast, mul, relu, scale, sub
from lamina.llvm import choices, engine, generate, host
from lamina.llvm.emit import I8, Module
from lamina.llvm.executor import compile_llvm
from lamina.llvm.kernel import Contraction
from lamina.llvm.kernels import contraction, narrow
from lamina.llvm.kernels.narrow import Narrow
from lamina.llvm.kernels.words import Words
from lamina.reference import compile_reference
from lamina.transform.gradient import gradients
from lamina.types import Batch, Type, static_shape

TARGETS = host.runnable_targets()
every_target = pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
B = Batch(1)


@dataclass
class Narrowed(Case):
    """A case whose integers take every value that there is."""

    def arrays(self, seed: int = 0) -> list[np.ndarray]:
        generator = np.random.default_rng(seed)
        return [
            generator.integers(-128, 128, array.shape).astype(np.int8)
            if array.dtype == np.int8
            else array
            for array in super().arrays(seed)
        ]


def narrowed(case: Case, dtype: str) -> Narrowed:
    """The case with both operands of this dtype."""
    integer = dtype == "int8"
    kernel = dataclasses.replace(
        case.kernel,
        a=dataclasses.replace(case.kernel.a, dtype=dtype),
        b=dataclasses.replace(case.kernel.b, dtype=dtype),
    )
    dtypes = (dtype, dtype, *case.dtypes[2:])
    if integer:  # without an epilogue
        body = tuple(dataclasses.replace(one, dtype="int32") for one in kernel.body)
        stores = tuple(dataclasses.replace(one, dtype="int32") for one in kernel.stores)
        kernel = dataclasses.replace(kernel, body=body, stores=stores, accumulator="int32")
        dtypes = (dtype, dtype, "int32")
    fields = {field.name: getattr(case, field.name) for field in dataclasses.fields(case)}
    name = f"{dtype} {case.name}"
    return Narrowed(**{**fields, "kernel": kernel, "dtypes": dtypes, "name": name})


def image(height: int, width: int, channels: int, filters: int, **more: object) -> Geometry:
    return Geometry(BATCH, (height, width), channels, filters, **more)


PLAIN = [
    dot(23, 64, 16),
    dot(4, 32, 33),
    dot(37, 100, 75),
    dot(5, 17, 130),
    dot(BATCH, 33, 70, rows=11, capacity=16),
    dot(BATCH, 48, 20, rows=1, capacity=16),
    dot(BATCH * 3, 131, 130, rows=5, capacity=7),
    dot(BATCH, 96, 64, rows=41, part=(11, 33)),
    dot(BATCH, 96, 64, rows=41, part=(11, 11)),
    dot(12, 20, 40, batch=(2, 3), split=0),
    dot(12, 20, 40, batch=(2, 3), split=1, part=(1, 3)),
    dot(BATCH, 32, 24, batch=(3,), rows=9, split=1),
    dot(700, 131, 200),
    convolution(image(8, 8, 16, 20), rows=2),
    convolution(image(9, 7, 17, 24, padding=same(3)), rows=3, part=(1, 3)),
    convolution(image(14, 12, 8, 36, strides=(2, 1), padding=same(3)), rows=2),
    convolution(image(12, 12, 32, 32, dilation=(2, 2)), rows=2),
    convolution(image(8, 8, 32, 48, padding=same(3), groups=2), rows=2),
    convolution(image(40, 40, 16, 16, kernel=(1, 1)), rows=1),
    convolution(image(3, 64, 8, 16, padding=same(3)), rows=2),
]
FLOATS = [
    dot(23, 37, 20, kind="bias_relu"),
    dot(17, 100, 65, kind="residual"),
    dot(BATCH, 131, 130, rows=37, capacity=64, kind="bias_relu"),
    convolution(image(9, 11, 16, 32, padding=same(3)), rows=2, kind="bias_relu"),
    input_gradient(image(9, 11, 16, 24, padding=same(3)), rows=3, kind="residual"),
]
CASES = [
    *(narrowed(case, dtype) for dtype in ("int8", "bfloat16") for case in PLAIN),
    *(narrowed(case, dtype) for dtype in ("bfloat16", "float16") for case in FLOATS),
]


@every_target
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_product_in_words_computes_its_specification(case, target):
    if case.kernel.space[-1] >= target.lanes:
        assert isinstance(contraction.plan(case.kernel, target), Narrow)
    check(case, target)


@pytest.mark.parametrize("case", CASES[::5], ids=lambda case: case.name)
def test_nothing_before_an_operand_is_read(case):
    check(case, TARGETS[0], at_end=False)


@every_target
@pytest.mark.parametrize(("left", "right"), [(-128, -128), (-128, 127), (127, 127)])
def test_the_largest_integers_are_summed_exactly(left, right, target, monkeypatch):
    case = narrowed(dot(19, 48, 999), "int8")
    arrays = case.arrays()
    arrays[0][:], arrays[1][:] = left, right
    monkeypatch.setattr(Narrowed, "arrays", lambda self: arrays)
    found = check(case, target)
    assert (found[2] == 999 * left * right).all()


# ------------------------------------------------------------------------- other processors


def with_features(name: str, *features: str) -> host.Target:
    base = host.target(name)
    text = ",".join([base.features, *(f"+{feature}" for feature in features)])
    return dataclasses.replace(base, features=text)


@pytest.mark.parametrize(
    ("target", "dtype", "instruction"),
    [
        (with_features("avx512", "avx512vnni"), "int8", "vpdpbusd\t"),
        (with_features("avx2", "avxvnni"), "int8", "vpdpbusd\t"),
        (with_features("avx512"), "int8", "vpmaddwd\t"),
        (with_features("avx2"), "int8", "vpmaddwd\t"),
        (with_features("sse2"), "int8", "pmaddwd\t"),
        (with_features("neon", "dotprod"), "int8", "sdot\t"),
        (with_features("avx512", "avx512bf16"), "bfloat16", "vdpbf16ps\t"),
        (with_features("avx512"), "bfloat16", "vfmadd"),
        (with_features("neon", "bf16"), "bfloat16", "bfdot\t"),
        (with_features("neon"), "bfloat16", "fmla\t"),
    ],
    ids=lambda one: one.name if isinstance(one, host.Target) else one.strip(),
)
def test_the_instruction_for_words_is_used(target, dtype, instruction):
    for case in CASES:
        if case.name.startswith(dtype):
            module = Module(target)
            contraction.build(case.kernel, "kernel", module)
            engine.compile_text(module.text(), target)
    module = Module(target)
    contraction.build(narrowed(dot(BATCH, 100, 75), dtype).kernel, "kernel", module)
    assert instruction in engine.assembly(module.text(), target)


@pytest.mark.parametrize(
    ("dtype", "feature"), [("int8", "dotprod"), ("int8", "i8mm"), ("bfloat16", "bf16")]
)
def test_arm_instructions_compute_the_specification(dtype, feature, tmp_path, monkeypatch):
    if feature == "i8mm":  # unsigned by signed: what is done around vpdpbusd, on an emulator
        unsigned = Words(dtype, 4, I8, "llvm.aarch64.neon.usdot.v4i32.v16i8", I8, unsigned=True)
        monkeypatch.setattr(narrow, "words", lambda dtype, target: unsigned)
    if missing():
        pytest.skip(f"{', '.join(missing())} not found")
    cases = [case for case in CASES if case.name.startswith(dtype) and case.flops < 3_000_000]
    contraction.plan.cache_clear()
    emulator = Emulator(tmp_path, with_features("neon", feature))
    library = emulator.library([case.kernel for case in cases])
    for number, case in enumerate(cases):
        given = case.arrays()
        bounds = case.low, case.high, case.rows
        expected, scales = oracle(case.kernel, given, *bounds)
        found = emulator.run_kernel(library, f"k{number}", case.kernel, given, *bounds)
        compare(case, found, expected, scales)


# ------------------------------------------------------------------------- whole programs


def quantised():
    """Two products of int8, the second of what the first is cut down to."""
    x = input_node(Type((B, 40), "int8"), "x")
    weights = [input_node(Type(shape, "int8"), f"w{shape[0]}") for shape in ((40, 48), (48, 33))]
    h = dot_node(x, weights[0])
    small = cast(scale(cast(h, "float32"), 2.0**-11), "int8")
    return Program((x,), tuple(weights), (h, dot_node(small, weights[1])), (None, None))


def mixed():
    """A convolution and a dense layer in bfloat16, weights and descent in float32."""
    x = input_node(Type((B, 9, 8, 16)), "x")
    weights = [input_node(Type((3, 3, 16, 24)), "w0"), input_node(Type((1008, 40)), "w1")]
    images, filters, matrix = (cast(node, "bfloat16") for node in (x, *weights))
    h = reshape(relu(conv(images, filters)), (B, 1008))
    out = cast(dot_node(h, matrix), "float32")
    loss = reduce_sum(mul(out, out), (0, 1))
    slopes = gradients([loss], [constant(1e-3)], weights)
    return Program((x,), tuple(weights), (loss,), tuple(map(sub, weights, slopes)))


CAPACITY = 13
every_program = pytest.mark.parametrize(("build", "products"), [(quantised, 2), (mixed, 3)])


def drawn(program, rows):
    rng = np.random.default_rng(1)

    def draw(type):
        shape = static_shape(type.shape, rows)
        if type.dtype == "int8":
            return rng.integers(-128, 128, shape).astype(np.int8)
        return (0.3 * rng.standard_normal(shape)).astype(np.float32)

    inputs = [draw(node.type) for node in program.inputs]
    return inputs, [draw(node.type) for node in program.states]


@every_program
def test_programs_use_words(build, products):
    target = host.detect()
    tasks = generate.generate(build(), CAPACITY, target).tasks
    kernels = [task.kernel for task, _, _ in tasks if isinstance(task.kernel, Contraction)]
    assert sum(isinstance(contraction.plan(one, target), Narrow) for one in kernels) == products


@every_program
def test_any_rows_and_threads_give_the_references_values(
    build, products, several_threads, monkeypatch
):
    several_threads()
    monkeypatch.setattr(choices, "SMALLEST_SHARED_WORK", 1)
    program = build()
    reference = compile_reference(program, CAPACITY)
    with config.override(cache="off"):
        executable = compile_llvm(program, CAPACITY)
    for rows in (1, 2, CAPACITY - 1, CAPACITY):
        results = []
        for threads in (1, 2, 3):
            inputs, states = drawn(program, rows)
            with config.override(threads=threads):
                assert executable.threads(1) == threads
                results.append([*executable(inputs, states), *states])
        assert same_bits(results[0], results[1])
        assert same_bits(results[0], results[2])
        inputs, states = drawn(program, rows)
        for found, wanted in zip(results[0], [*reference(inputs, states), *states], strict=True):
            if wanted.dtype.kind == "i":
                assert np.array_equal(found, wanted)
            else:
                # A bfloat16 may be rounded the other way: one part in 256 of a value.
                np.testing.assert_allclose(found, wanted, rtol=1e-2, atol=2e-3)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_a_mixed_policy_multiplies_in_words(policy, monkeypatch):
    found = []
    generated = generate.generate

    def watched(program, capacity, target, **more):
        made = generated(program, capacity, target, **more)
        for task, _, _ in made.tasks:
            if isinstance(task.kernel, Contraction):
                found.append(contraction.plan(task.kernel, target))
        return made

    monkeypatch.setattr(generate, "generate", watched)
    layers = keras.layers
    model = keras.Sequential(
        [
            layers.Input(shape=(40,)),
            layers.Dense(48, activation="relu", dtype=policy),
            layers.Dense(64, activation="relu", dtype=policy),
            layers.Dense(3, activation="softmax", dtype="float32"),
        ]
    )
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy")
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((64, 40)).astype(np.float32), rng.integers(0, 3, 64)
    with config.override(cache="off"):
        history = model.fit(x, y, batch_size=16, epochs=40, verbose=0).history["loss"]
    # Forward twice, and the gradient of the first layer's output.
    assert sum(isinstance(one, Narrow) for one in found) == 3
    assert history[-1] < 0.5 * history[0]


def test_the_benchmark_measures_every_dtype(monkeypatch, capsys):
    monkeypatch.setattr(precision, "SHAPES", ((24, 40, 32),))
    found = precision.main(["--repeat", "1", "--workloads", "mlp", "--seconds", "0.01"])
    assert set(found["products"]["24x40x32"]) == {"float32", "bfloat16", "int8"}
    assert set(found["steps"]["mlp"]) == {"float32", "mixed_bfloat16"}
    assert "mlp" in capsys.readouterr().out
    assert mixed_precision.global_policy().name == "float32"
