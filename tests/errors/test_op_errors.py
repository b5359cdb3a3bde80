"""The text of every error that an op's shape rule raises."""

from __future__ import annotations

import re

import pytest

from lamina.errors import BatchError, DtypeError, ShapeError
from lamina.ir import scalar
from lamina.ir.contractions import (
    ConvFilterGrad,
    ConvInputGrad,
    Dot,
    Window,
    WindowGrad,
    conv,
    dot,
    window,
)
from lamina.ir.control import Body, Composite, body_of, cond, scan, while_
from lamina.ir.elementary import Broadcast, Map, Reduce, broadcast, normal_axes, reduce_max
from lamina.ir.graph import apply, constant, input_node
from lamina.ir.indexing import dynamic_slice, dynamic_update, gather, scatter
from lamina.ir.movement import (
    Concat,
    Pad,
    Slice,
    Transpose,
    concat,
    flip,
    iota,
    pad,
    reshape,
    slice_,
    squeeze,
)
from lamina.ir.order import sort, top_k
from lamina.ir.random import random_bits, uniform
from lamina.ir.reductions import Cumulative, arg_max, cumulative, mean
from lamina.transform.gradient import gradients
from lamina.types import Batch, Type

B = Batch(1)


def x(*shape, dtype="float32"):
    return input_node(Type(shape, dtype))


def whole(*shape):
    return x(*shape, dtype="int32")


CASES = {
    # scalar functions
    "shapes differ": (
        lambda: scalar.add(x(2, 3), x(3)),
        ShapeError,
        """add: the shapes of its operands differ.
  input 0  float32 (2, 3)
  input 1  float32 (3)
  hint     broadcasting is explicit here: use broadcast(x, shape, axes)""",
    ),
    "dtypes differ": (
        lambda: scalar.mul(x(2), whole(2)),
        DtypeError,
        """mul: the dtypes of its operands differ.
  input 0  float32 (2)
  input 1  int32 (2)
  hint     cast one of them""",
    ),
    "condition": (
        lambda: scalar.where(x(2), x(2), x(2)),
        DtypeError,
        "where: the condition must be bool.",
    ),
    "kind": (
        lambda: scalar.exp(whole(2)),
        DtypeError,
        "exp: takes float operands, not int32.\n  input 0  int32 (2)",
    ),
    "kind of a comparison": (lambda: scalar.shl(x(2), x(2)), DtypeError, "shl: takes integer"),
    "arity": (lambda: apply(Map("add"), x(2)), ShapeError, "add: takes 2 operands, got 1."),
    # movement
    "broadcast axes": (
        lambda: apply(Broadcast((2, 3), (1, 0)), x(3, 2)),
        ShapeError,
        "broadcast: axes (1, 0) must be 2 ascending axes.",
    ),
    "broadcast outside": (
        lambda: apply(Broadcast((2,), (1,)), x(2)),
        ShapeError,
        "broadcast: axes (1,) leave the shape.",
    ),
    "broadcast size": (
        lambda: broadcast(x(1, 3), (2, 3), (0, 1)),
        ShapeError,
        """broadcast: axis 0 has size 2, its input 1.
  input    float32 (1, 3)
  shape    float32 (2, 3)
  hint     axes of size 1 are not stretched: drop them first""",
    ),
    "reshape": (
        lambda: reshape(x(B, 3), (B, 4)),
        ShapeError,
        """reshape: the numbers of elements differ.
  input    float32 (batch, 3)
  shape    float32 (batch, 4)""",
    ),
    "reshape moves the batch": (
        lambda: reshape(x(B, 4), (4, B)),
        BatchError,
        """reshape: the batch axis cannot move past another axis.
  input    float32 (batch, 4)
  shape    float32 (4, batch)
  hint     transpose first""",
    ),
    "reshape loses the batch": (
        lambda: reshape(x(B, 4), (8,)),
        ShapeError,
        "reshape: the numbers of elements differ.",
    ),
    "transpose": (
        lambda: apply(Transpose((0, 0)), x(2, 3)),
        ShapeError,
        "transpose: (0, 0) is no order of 2 axes.",
    ),
    "slice outside": (
        lambda: slice_(x(4), (1,), (6,)),
        ShapeError,
        "slice: 1:6:1 leaves axis 0 of size 4.\n  input    float32 (4)",
    ),
    "slice of the batch": (
        lambda: slice_(x(B, 4), (1, 0), (3, 4)),
        BatchError,
        """slice: axis 0 is the run-time batch and can only be taken whole.
  input    float32 (batch, 4)
  slice    1:3:1""",
    ),
    "slice rank": (
        lambda: apply(Slice((0,), (1,), (1,)), x(2, 2)),
        ShapeError,
        "slice: needs 2 starts, stops and steps.",
    ),
    "flip of the batch": (lambda: flip(x(B, 4), 0), BatchError, "flip: axis 0 is the run-time"),
    "pad of the batch": (
        lambda: pad(x(B, 4), (1, 0), (0, 0)),
        BatchError,
        "pad: axis 0 is the run-time batch and cannot be padded.",
    ),
    "negative pad": (
        lambda: pad(x(4), (-1,), (0,)),
        ShapeError,
        "pad: amounts cannot be negative.\n  input    float32 (4)\n  hint     use slice_",
    ),
    "pad rank": (
        lambda: apply(Pad((1,), (1,), (0,), bytes(4)), x(2, 2)),
        ShapeError,
        "pad: needs 2 low, high and interior.",
    ),
    "concat": (
        lambda: concat([x(2, 3), x(3, 3)], 1),
        ShapeError,
        """concat: shapes differ beside axis 1.
  input 0  float32 (2, 3)
  input 1  float32 (3, 3)""",
    ),
    "concat axis": (
        lambda: apply(Concat(2), x(2), x(2)),
        ShapeError,
        "concat: there is no axis 2.",
    ),
    "concat along the batch": (
        lambda: concat([x(B, 3), x(B, 3)], 0),
        BatchError,
        "concat: axis 0 is the run-time batch.",
    ),
    "concat dtypes": (
        lambda: concat([x(3), whole(3)], 0),
        DtypeError,
        "concat: the dtypes differ.",
    ),
    "iota": (lambda: apply(iota((2,), 0).op.__class__((2,), 1)), ShapeError, "iota: there is no"),
    "squeeze": (lambda: squeeze(x(2, 3), 1), ShapeError, "squeeze: axis 1 has size 3."),
    # reductions
    "reduce axes": (
        lambda: apply(Reduce("sum", (2,)), x(2, 3)),
        ShapeError,
        "reduce sum: axes (2,) are not ascending axes.",
    ),
    "reduce kind": (lambda: apply(Reduce("mad", (0,)), x(2)), ShapeError, "unknown kind 'mad'"),
    "normal axes": (
        lambda: normal_axes(3, 2),
        ShapeError,
        "axis 3 is out of range for a value of 2 axes.",
    ),
    "sum of bools": (
        lambda: apply(Reduce("sum", (0,)), x(2, dtype="bool")),
        DtypeError,
        "reduce sum: takes numbers.",
    ),
    "maximum of nothing": (
        lambda: reduce_max(x(0, 3), 0),
        ShapeError,
        "reduce max: nothing to choose from.\n  input    float32 (0, 3)",
    ),
    "arg of nothing": (lambda: arg_max(x(0), 0), ShapeError, "argmax: axis 0 is missing or empty."),
    "cumulative kind": (
        lambda: cumulative(x(2), "mean"),
        ShapeError,
        "cumulative: unknown kind 'mean'; known: sum, prod, max",
    ),
    "cumulative axis": (
        lambda: apply(Cumulative("sum", 1), x(2)),
        ShapeError,
        "cumulative: there is no axis 1.",
    ),
    "mean of integers": (lambda: mean(whole(2)), DtypeError, "mean: takes floats."),
    # contractions
    "dot": (
        lambda: dot(x(B, 3), x(4, 5)),
        ShapeError,
        """dot: axis 1 of a has size 3, axis 0 of b 4.
  a        float32 (batch, 3)
  b        float32 (4, 5)""",
    ),
    "dot dtypes": (lambda: dot(x(2, 3), whole(3, 4)), DtypeError, "dot: the dtypes differ."),
    "dot of bools": (
        lambda: dot(x(2, 3, dtype="bool"), x(3, 4, dtype="bool")),
        DtypeError,
        "dot: takes numbers.",
    ),
    "dot with the batch on two axes": (
        lambda: dot(x(B, 3), x(B, 3), contract=((1, 1),)),
        BatchError,
        "the run-time batch may stand on one axis only",
    ),
    "dot axis": (
        lambda: apply(Dot((), ((2, 0),), "float32"), x(2, 3), x(3)),
        ShapeError,
        "dot: there is no pair of axes (2, 0).",
    ),
    "dot axis twice": (
        lambda: dot(x(3, 3), x(3, 3), contract=((1, 0),), batch=((1, 1),)),
        ShapeError,
        "dot: an axis appears twice.",
    ),
    "conv window": (
        lambda: conv(x(B, 2, 2, 1), x(3, 3, 1, 4)),
        ShapeError,
        """conv: a window of 3 does not fit into spatial axis 0 of size 2.
  input    float32 (batch, 2, 2, 1)
  padding  ((0, 0), (0, 0))
  hint     use padding="same", a smaller window, or larger images""",
    ),
    "conv channels": (
        lambda: conv(x(B, 4, 4, 3), x(3, 3, 2, 4)),
        ShapeError,
        """conv: 3 channels and 4 filters do not fit a kernel of 2 channels in 1 groups.
  input    float32 (batch, 4, 4, 3)
  kernel   float32 (3, 3, 2, 4)""",
    ),
    "conv rank": (
        lambda: conv(x(B, 4, 3), x(3, 3, 2, 4)),
        ShapeError,
        "conv: needs (batch, spatial..., channels) with one entry per spatial axis.",
    ),
    "conv dtype": (
        lambda: conv(x(B, 4, 3), x(3, 3, 4, dtype="float64")),
        DtypeError,
        "conv: takes an image and a kernel of one float dtype.",
    ),
    "conv batch": (
        lambda: conv(x(4, B, 3), x(3, 3, 4)),
        ShapeError,
        "conv: the batch must be the first axis.",
    ),
    "conv input gradient": (
        lambda: apply(ConvInputGrad((4,), (1,), ((0, 0),), (1,)), x(B, 3, 5), x(3, 2, 5)),
        ShapeError,
        "conv input gradient: expected a gradient of float32 (batch, 2, 5).",
    ),
    "conv filter gradient": (
        lambda: apply(ConvFilterGrad((3,), (1,), ((0, 0),), (1,)), x(B, 4, 2), x(B, 3, 5)),
        ShapeError,
        "conv filter gradient: expected a gradient of float32 (batch, 2, 5).",
    ),
    "conv filter gradient groups": (
        lambda: apply(ConvFilterGrad((3,), (1,), ((0, 0),), (1,), 2), x(B, 4, 3), x(B, 2, 4)),
        ShapeError,
        "conv filter gradient: 3 channels in 2 groups.",
    ),
    "window padding": (
        lambda: window(x(B, 4, 1), "max", (2,), padding=((2, 0),)),
        ShapeError,
        "window max: padding reaches past a window.",
    ),
    "window kind": (
        lambda: apply(Window("min", (2,), (2,), ((0, 0),)), x(B, 4, 1)),
        ShapeError,
        "window: unknown kind 'min'; known: max, sum, mean",
    ),
    "window dtype": (lambda: window(whole(B, 4, 1), "max", (2,)), DtypeError, "takes floats"),
    "window gradient": (
        lambda: apply(WindowGrad("max", (2,), (2,), ((0, 0),)), x(B, 4, 1), x(B, 3, 1)),
        ShapeError,
        "window gradient: expected a gradient of float32 (batch, 2, 1).",
    ),
    # indexing
    "gather dtype": (
        lambda: gather(x(5, 2), x(3)),
        DtypeError,
        """gather: the index must be integer.
  table    float32 (5, 2)
  index    float32 (3)""",
    ),
    "gather batch": (
        lambda: gather(x(5, 2), whole(3), axis=1, batch=1),
        ShapeError,
        "gather: the first 1 axes must be equal.",
    ),
    "gather from nothing": (
        lambda: gather(x(0, 2), whole(3)),
        ShapeError,
        "gather: axis 0 of the table is empty.",
    ),
    "gather axes": (
        lambda: gather(x(5, 2), whole(5), axis=0, batch=1),
        ShapeError,
        "gather: axis 0 with 1 shared leading axes does not fit.",
    ),
    "scatter rows": (
        lambda: scatter("add", x(5, 2), whole(3), x(3, 4)),
        ShapeError,
        """scatter add: rows must be float32 (3, 2).
  base     float32 (5, 2)
  index    int32 (3)
  rows     float32 (3, 4)""",
    ),
    "scatter kind": (
        lambda: scatter("mul", x(5, 2), whole(3), x(3, 2)),
        ShapeError,
        "scatter: unknown kind 'mul'; known: add, set, max",
    ),
    "scatter dtype": (
        lambda: scatter("add", x(5), whole(3), whole(3)),
        DtypeError,
        "scatter add: rows and base have different dtypes.",
    ),
    "scatter of bools": (
        lambda: scatter("add", x(5, dtype="bool"), whole(3), x(3, dtype="bool")),
        DtypeError,
        "scatter add: takes numbers.",
    ),
    "dynamic slice": (
        lambda: dynamic_slice(x(3, 4), [whole()], (1, 1)),
        ShapeError,
        "dynamic slice: needs 2 starts, got 1.",
    ),
    "dynamic slice start": (
        lambda: dynamic_slice(x(3), [x()], (1,)),
        ShapeError,
        "dynamic slice: starts must be integer scalars.",
    ),
    "dynamic slice size": (
        lambda: dynamic_slice(x(3), [whole()], (4,)),
        ShapeError,
        "dynamic slice: the block leaves axis 0.",
    ),
    "dynamic slice of the batch": (
        lambda: dynamic_slice(x(B, 3), [whole(), whole()], (1, 3)),
        BatchError,
        "dynamic slice: axis 0 is the batch, taken whole or not.",
    ),
    "dynamic update": (
        lambda: dynamic_update(x(3), whole(2), [whole()]),
        DtypeError,
        "dynamic update: the patch is int32, the value float32.",
    ),
    # order, random, control
    "sort shapes": (
        lambda: sort(x(3), x(4)),
        ShapeError,
        "sort: keys and values have different shapes.",
    ),
    "sort of the batch": (
        lambda: sort(x(B, 3), axis=0),
        ShapeError,
        "sort: the run-time batch cannot be sorted.",
    ),
    "top k": (lambda: top_k(x(B, 3), 4), ShapeError, "top_k: the last axis must hold at least 4."),
    "key": (
        lambda: random_bits(whole(2), (3,)),
        ShapeError,
        "random: the key must be uint32 (2).\n  key      int32 (2)",
    ),
    "uniform": (
        lambda: uniform(x(2, dtype="uint32"), (3,), dtype="int32"),
        DtypeError,
        "uniform: makes floats, not int32.",
    ),
    "scan length": (
        lambda: scan(body_of(scalar.add, [Type((2,)), Type((2,))]), 4, [x(2)], [x(3, 2)]),
        ShapeError,
        """scan: what it walks over must have 4 steps on axis 0.
  input    float32 (3, 2)""",
    ),
    "scan carry": (
        lambda: scan(
            body_of(lambda h, e: scalar.cast(h, "float64"), [Type((2,)), Type((2,))]),
            3,
            [x(2)],
            [x(3, 2)],
        ),
        ShapeError,
        """scan: a carry must keep its type.
  carry 0  float32 (2) becomes float64 (2)""",
    ),
    "scan body": (
        lambda: scan(body_of(scalar.neg, [Type((2,))]), 3, [x(3)], []),
        ShapeError,
        """scan: its inputs do not fit the parameters of its body.
  input 0  float32 (3)
  expects 0 float32 (2)""",
    ),
    "while test": (
        lambda: while_(body_of(scalar.neg, [Type(())]), body_of(scalar.neg, [Type(())]), [x()]),
        DtypeError,
        "while: the test must give one bool scalar.",
    ),
    "cond flag": (
        lambda: cond(x(), *[body_of(scalar.neg, [Type(())])] * 2, [x()]),
        DtypeError,
        "cond: the flag must be a bool scalar.",
    ),
    "cond branches": (
        lambda: cond(
            x(dtype="bool"),
            body_of(scalar.neg, [Type(())]),
            body_of(lambda a: scalar.gt(a, a), [Type(())]),
            [x()],
        ),
        ShapeError,
        """cond: both branches must give the same types.
  then     float32 ()
  else     bool ()""",
    ),
    "composite": (
        lambda: apply(Composite("attention", body_of(scalar.neg, [Type(())])), x(2)),
        ShapeError,
        "attention: its inputs do not fit the parameters of its body.",
    ),
    # gradients
    "cotangent": (
        lambda: gradients([x(2)], [x(3)], []),
        ShapeError,
        """gradients: a cotangent does not fit its output.
  output   float32 (2)
  given    float32 (3)""",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_text(name):
    build, kind, text = CASES[name]
    with pytest.raises(kind, match="^" + ".*" + re.escape(text)):
        build()


def test_while_has_no_gradient():
    a = x()
    body = body_of(scalar.neg, [a.type])
    test = body_of(lambda v: scalar.gt(v, constant(0.0)), [a.type])
    (out,) = while_(test, body, [a])
    with pytest.raises(ShapeError, match="while: has no gradient, because the number of its"):
        gradients([out], [constant(1.0)], [a])


def test_the_running_product_along_the_batch_has_no_gradient():
    a = x(B, 2)
    out = cumulative(a, "prod", 0)
    with pytest.raises(ShapeError, match="cumulative prod: has no gradient along the batch"):
        gradients([out], [input_node(out.type)], [a])


def test_an_unfed_input_is_named():
    a, b = input_node(Type(()), "left"), input_node(Type(()), "right")
    with pytest.raises(ShapeError, match="a body reads right, which is none of its parameters"):
        Body((a,), (scalar.add(a, b),))
