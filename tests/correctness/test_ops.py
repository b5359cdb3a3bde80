"""One table drives every op: shape rule against meaning, gradient against central differences."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from lamina.ir.contractions import Dot, WindowGrad
from lamina.ir.elementary import Map, full
from lamina.ir.graph import apply, input_node, picks
from lamina.ir.interpret import interpret, resolved
from lamina.ir.movement import Broadcast, Concat, Pad, Reshape, Slice, Transpose
from lamina.ir.samples import draw, every_sample, parse
from lamina.ir.scalar import StopGradient
from lamina.transform.gradient import gradients
from lamina.types import FLOATS, Type, numpy_dtype

SAMPLES = [
    pytest.param(op, specifications, id=f"{number}-{op}"[:70])
    for number, (op, specifications) in enumerate(every_sample())
]
NO_GRADIENT = {"sign", "floor", "ceil", "round", "floordiv"}


def widened(op):
    """The op for float64 operands."""
    match op:
        case Dot(out_dtype="float32"):
            return dataclasses.replace(op, out_dtype="float64")
        case Pad(value=value) if len(value) == 4:
            number = np.frombuffer(value, np.float32)[0]
            return dataclasses.replace(op, value=np.float64(number).tobytes())
    return op


def wide_type(specification):
    type, _, _ = parse(specification)
    return Type(type.shape, "float64") if type.is_float else type


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize(("op", "specifications"), SAMPLES)
def test_shape_rule_tells_what_numpy_gives(op, specifications, rows, rng):
    inputs = [input_node(parse(s)[0]) for s in specifications]
    node = apply(op, *inputs)
    arrays = [draw(s, rng, rows) for s in specifications]
    found = interpret(list(picks(node)), dict(zip(inputs, arrays, strict=True)), rows)
    for type, array in zip(node.types, found, strict=True):
        assert array.shape == type.at(rows).shape
        assert array.dtype == numpy_dtype(type.dtype)


@pytest.mark.parametrize(("op", "specifications"), SAMPLES)
def test_an_op_with_a_batch_resolves_to_one_without(op, specifications):
    node = apply(op, *(input_node(parse(s)[0]) for s in specifications))
    (fixed,) = resolved([node], 3)
    assert fixed.types == tuple(type.at(3) for type in node.types)
    assert resolved([fixed], 5) == [fixed]


class Probe:
    """A scalar function of an op's float64 inputs: `<cotangents, op(inputs)>`."""

    def __init__(self, op, specifications, rng, rows=3):
        self.rows = rows
        op = widened(op)
        self.inputs = [input_node(wide_type(s)) for s in specifications]
        self.outputs = list(picks(apply(op, *self.inputs)))
        self.arrays = [draw(s, rng, rows, "float64") for s in specifications]
        self.floats = [i for i, node in enumerate(self.inputs) if node.type.is_float]
        self.cotangents = [
            input_node(node.type) if node.type.is_float else None for node in self.outputs
        ]
        self.weights = [
            None if node is None else rng.standard_normal(node.type.at(rows).shape)
            for node in self.cotangents
        ]

    def feed(self, arrays=None, weights=None):
        pairs = zip(self.inputs, arrays or self.arrays, strict=True)
        also = zip(self.cotangents, weights or self.weights, strict=True)
        return {**dict(pairs), **{node: w for node, w in also if node is not None}}

    def value(self, arrays):
        found = interpret(self.outputs, self.feed(arrays), self.rows)
        pairs = zip(self.weights, found, strict=True)
        return sum(np.vdot(w, y) for w, y in pairs if w is not None)

    def moved(self, i, direction, step):
        arrays = list(self.arrays)
        arrays[i] = arrays[i] + step * direction
        return arrays

    def gradients(self):
        return gradients(self.outputs, self.cotangents, self.inputs)

    def gradient_values(self, arrays=None, weights=None):
        found = self.gradients()
        there = [g for g in found if g is not None]
        values = iter(interpret(there, self.feed(arrays, weights), self.rows))
        return [None if g is None else next(values) for g in found]


@pytest.mark.parametrize(("op", "specifications"), SAMPLES)
def test_gradient_matches_central_differences(op, specifications, rng):
    probe = Probe(op, specifications, rng)
    if not probe.floats or isinstance(op, StopGradient):
        assert probe.gradient_values() == [None] * len(probe.inputs)
        return
    for i, gradient in enumerate(probe.gradient_values()):
        if i not in probe.floats:
            assert gradient is None, "only floats have a gradient"
            continue
        direction = rng.standard_normal(probe.arrays[i].shape)
        ahead, behind = (probe.value(probe.moved(i, direction, s * 1e-6)) for s in (1, -1))
        numeric = (ahead - behind) / 2e-6
        exact = 0.0 if gradient is None else np.vdot(gradient, direction)
        assert gradient is None or gradient.shape == probe.arrays[i].shape
        np.testing.assert_allclose(exact, numeric, rtol=1e-6, atol=1e-7)
        flat = isinstance(op, WindowGrad) or (isinstance(op, Map) and op.fn in NO_GRADIENT)
        if any(w is not None for w in probe.weights) and not flat:
            assert gradient is not None, "a float input of a float result must have a gradient"


@pytest.mark.parametrize(("op", "specifications"), SAMPLES)
def test_second_derivative_matches_central_differences(op, specifications, rng):
    """The gradient is graph: its own gradient must be right too."""
    probe = Probe(op, specifications, rng)
    first = probe.gradients()
    for i, gradient in enumerate(first):
        if gradient is None:
            continue
        weight = rng.standard_normal(probe.arrays[i].shape)
        cotangent = input_node(gradient.type)
        feed = {**probe.feed(), cotangent: weight}
        second = gradients([gradient], [cotangent], probe.inputs)
        for k in probe.floats:
            direction = rng.standard_normal(probe.arrays[k].shape)
            ahead, behind = (
                np.vdot(weight, probe.gradient_values(probe.moved(k, direction, s * 1e-6))[i])
                for s in (1, -1)
            )
            numeric = (ahead - behind) / 2e-6
            exact = 0.0
            if second[k] is not None:
                exact = np.vdot(interpret([second[k]], feed, probe.rows)[0], direction)
            np.testing.assert_allclose(exact, numeric, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize(
    ("op", "specifications"),
    [p for p in SAMPLES if all(parse(s)[0].is_float for s in p.values[1])],
)
def test_half_precision_rounds_the_single_precision_result_once(op, specifications, dtype, rng):
    if isinstance(op, (Pad, Dot)) or not specifications:
        pytest.skip("carries a dtype of its own")
    arrays = [draw(s, rng, 3, dtype) for s in specifications]

    def run(arrays):
        types = [
            Type(parse(s)[0].shape, a.dtype.name)
            for s, a in zip(specifications, arrays, strict=True)
        ]
        inputs = [input_node(type) for type in types]
        outputs = list(picks(apply(op, *inputs)))
        return interpret(outputs, dict(zip(inputs, arrays, strict=True)), 3)

    narrow, wide = run(arrays), run([a.astype(np.float32) for a in arrays])
    for one, other in zip(narrow, wide, strict=True):
        if one.dtype.name in FLOATS and one.dtype.name not in {"float32", "float64"}:
            np.testing.assert_array_equal(one, other.astype(one.dtype))
        else:
            np.testing.assert_array_equal(one, other)


def test_movement_never_changes_a_value(rng):
    """What only moves elements gives elements of its inputs (or padding), bit for bit."""
    for op, specifications in every_sample():
        if not isinstance(op, (Reshape, Transpose, Slice, Pad, Concat, Broadcast)):
            continue
        arrays = [draw(s, rng, 2) for s in specifications]
        inputs = [input_node(parse(s)[0]) for s in specifications]
        (found,) = interpret([apply(op, *inputs)], dict(zip(inputs, arrays, strict=True)), 2)
        known = np.concatenate([a.ravel() for a in arrays])
        if isinstance(op, Pad):
            known = np.append(known, op.number("float32"))
        assert np.isin(found, known).all()


def test_constants_and_full():
    (value,) = interpret([full((2, 3), 1.5, "float64")], {})
    np.testing.assert_array_equal(value, np.full((2, 3), 1.5))
    assert value.dtype == np.float64
