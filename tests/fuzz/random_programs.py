"""Random training steps: every op of the graph, wired up at random, always of fitting types.

The choices depend on the seed alone, so the same seed with another dtype gives the same program
in another precision, and every executor can be given the same one. Values stay near 1: products
are scaled, and what could grow is squashed.
"""

from __future__ import annotations

import math

import numpy as np

from lamina.ir import scalar
from lamina.ir.contractions import conv, dot, padding_for, window
from lamina.ir.control import body_of, composite, cond, scan
from lamina.ir.elementary import broadcast, full, reduce_max, reduce_sum
from lamina.ir.graph import constant, input_node
from lamina.ir.indexing import dynamic_slice, gather, scatter
from lamina.ir.movement import concat, flip, grow_last, pad, reshape, take_range, transpose
from lamina.ir.order import sort, top_k
from lamina.ir.program import Program
from lamina.ir.random import uniform
from lamina.ir.reductions import arg_max, cumulative, mean
from lamina.ir.scalar import add, cast, div, gt, mul, scale, sub, tanh, where, zeros_like
from lamina.transform.gradient import gradients
from lamina.types import Batch, Type

B = Batch(1)
SMOOTH = ("tanh", "sigmoid", "sin", "cos", "erf", "atan", "square")
CLASSES = 5


class Growing:
    """A program under construction: a pool of values that further ones are made from."""

    def __init__(self, seed, dtype):
        self.choose = np.random.default_rng(seed)
        self.dtype = dtype
        self.states, self.pool = [], []
        self.key = input_node(Type((2,), "uint32"), "key")
        features = self.size(2, 9)
        self.image = self.choose.random() < 0.4
        sizes = (self.size(4, 8), self.size(4, 8), self.size(1, 3))
        self.x = self.input((B, *sizes) if self.image else (B, features), "x")
        self.sequence = self.input((B, self.size(2, 5), self.size(1, 6)), "sequence")
        self.label = input_node(Type((B,), "int32"), "label")
        self.inputs = [self.x, self.sequence, self.label]
        self.pool += [self.x, self.sequence]

    def size(self, low, high):
        return int(self.choose.integers(low, high + 1))

    def pick(self, options):
        return options[self.size(0, len(options) - 1)]

    def input(self, shape, label):
        return input_node(Type(shape, self.dtype), label)

    def weight(self, *shape):
        node = self.input(shape, f"weight {len(self.states)}")
        self.states.append(node)
        return node

    def full(self, shape, value):
        return full(shape, value, self.dtype)

    def floats(self, rank=None, at_least=1):
        """Values of the pool with a batch, of some rank."""
        found = [
            node
            for node in self.pool
            if node.type.is_float
            and node.type.batch_axis is not None
            and (node.type.rank == rank if rank else node.type.rank >= at_least)
        ]
        return found or [self.x]

    # ------------------------------------------------------------------------ one step each

    def unary(self):
        x = self.pick(self.floats())
        return scalar.map_(self.pick(SMOOTH), x)

    def positive(self):
        x = self.pick(self.floats())
        grown = add(mul(x, x), self.full(x.shape, 0.5))
        return scalar.map_(self.pick(("log", "sqrt", "rsqrt", "reciprocal", "log1p")), grown)

    def binary(self):
        x = self.pick(self.floats())
        partners = [node for node in self.pool if node.type == x.type]
        name = self.pick(("add", "sub", "mul", "maximum", "minimum"))
        return scale(scalar.map_(name, x, self.pick(partners)), 0.7)

    def bias(self):
        x = self.pick([node for node in self.floats() if isinstance(node.shape[-1], int)])
        b = self.weight(x.shape[-1])
        return add(x, broadcast(b, x.shape, (x.type.rank - 1,)))

    def relu(self):
        x = self.pick(self.floats())
        return where(gt(x, zeros_like(x)), x, scale(x, 0.1))

    def dense(self):
        x = self.pick([node for node in self.floats() if isinstance(node.shape[-1], int)])
        depth, width = x.shape[-1], self.size(1, 9)
        y = dot(x, self.weight(depth, width))
        return tanh(scale(y, 1 / math.sqrt(depth)))

    def attention(self):
        x = self.pick(self.floats(3))
        if x.type.rank != 3 or x.type.batch_axis != 0:
            return None
        scores = dot(x, x, contract=((2, 2),), batch=((0, 0),))
        return dot(self.softmax(scores), x, contract=((2, 1),), batch=((0, 0),))

    def softmax(self, x=None):
        x = x or self.pick([node for node in self.floats() if isinstance(node.shape[-1], int)])
        kept = tuple(range(x.type.rank - 1))
        if x.type.rank == 1 or x.shape[-1] == 0:
            return None
        raised = scalar.exp(sub(x, broadcast(reduce_max(x, -1), x.shape, kept)))
        return div(raised, broadcast(reduce_sum(raised, -1), x.shape, kept))

    def layer_norm(self):
        x = self.pick(self.floats(at_least=2))
        if not isinstance(x.shape[-1], int):
            return None
        kept = tuple(range(x.type.rank - 1))
        centred = sub(x, broadcast(mean(x, -1), x.shape, kept))
        spread = add(mean(mul(centred, centred), -1), self.full(x.shape[:-1], 0.1))
        return mul(centred, broadcast(scalar.rsqrt(spread), x.shape, kept))

    def batch_norm(self):
        x = self.pick(self.floats(at_least=2))
        axis = x.type.batch_axis
        kept = tuple(i for i in range(x.type.rank) if i != axis)
        centred = sub(x, broadcast(mean(x, axis), x.shape, kept))
        spread = mean(mul(centred, centred), axis)
        spread = add(spread, self.full(spread.shape, 0.1))
        return mul(centred, broadcast(scalar.rsqrt(spread), x.shape, kept))

    def reduction(self):
        x = self.pick(self.floats(at_least=2))
        axes = [i for i in range(x.type.rank) if i != x.type.batch_axis]
        chosen = self.choose.permutation(axes)[: self.size(1, len(axes))].tolist()
        kind = self.size(0, 2)
        if kind == 0:
            return mean(x, chosen)
        return reduce_max(x, chosen) if kind == 1 else tanh(reduce_sum(x, chosen))

    def transposed(self):
        x = self.pick(self.floats(at_least=2))
        return transpose(x, self.choose.permutation(x.type.rank).tolist())

    def reshaped(self):
        x = self.pick(self.floats(at_least=2))
        axis = x.type.batch_axis
        if axis != 0:
            return None
        rest = math.prod(x.shape[1:])
        if self.choose.random() < 0.3:
            return reshape(reshape(x, (Batch(rest),)), (B, rest))
        divisors = [d for d in range(1, rest + 1) if rest % d == 0]
        first = self.pick(divisors)
        return reshape(x, (x.shape[0], first, rest // first))

    def sliced(self):
        x = self.pick(self.floats(at_least=2))
        axis = self.pick([i for i in range(x.type.rank) if i != x.type.batch_axis])
        if x.shape[axis] < 2:
            return None
        kind = self.size(0, 2)
        if kind == 0:
            return flip(x, axis)
        start = self.size(0, x.shape[axis] - 2)
        return take_range(x, axis, start, x.shape[axis], kind)

    def padded(self):
        x = self.pick(self.floats(at_least=2))
        low, high = (
            [0 if isinstance(s, Batch) else self.size(0, 1) for s in x.shape] for _ in "ab"
        )
        return pad(x, low, high, 0.25)

    def joined(self):
        x = self.pick(self.floats(at_least=2))
        axis = self.pick([i for i in range(x.type.rank) if i != x.type.batch_axis])
        return concat([x, scale(x, 0.5)], axis)

    def convolved(self):
        x = self.pick(self.floats(4))
        if x.type.rank != 4 or x.type.batch_axis != 0:
            return None
        spatial, channels = x.shape[1:3], x.shape[3]
        size = [self.size(1, min(3, n)) for n in spatial]
        strides = [self.size(1, 2) for _ in spatial]
        mode = self.pick(("same", "valid"))
        w = self.weight(*size, channels, self.size(1, 5))
        y = conv(x, w, strides, padding_for(mode, spatial, size, strides))
        return tanh(scale(y, 1 / math.sqrt(math.prod(size) * channels)))

    def pooled(self):
        x = self.pick(self.floats(4))
        if x.type.rank != 4 or x.type.batch_axis != 0 or min(x.shape[1:3]) < 2:
            return None
        return window(x, self.pick(("max", "mean", "sum")), (2, 2))

    def embedded(self):
        table = self.weight(CLASSES, self.size(1, 6))
        return gather(table, self.label)

    def picked(self):
        x = self.pick(self.floats(2))
        if x.type.rank != 2 or x.type.batch_axis != 0 or x.shape[1] < 1:
            return None
        # A computed index, which is clamped rather than refused: some tables are small.
        place = scalar.shift(self.label, self.size(-1, 1))
        return gather(x, scalar.mod(place, full(place.shape, 7, "int32")), axis=1, batch=1)

    def scattered(self):
        x = self.pick(self.floats(2))
        if x.type.rank != 2 or x.type.batch_axis != 0:
            return None
        base = zeros_like(x)
        index = cast(arg_max(x, 1), "int32")
        return scatter("add", base, index, mean(x, 1), axis=1, batch=1)

    def counted(self):
        x = self.pick(self.floats(at_least=2))
        axis = self.pick([i for i in range(x.type.rank) if i != x.type.batch_axis])
        kind = self.pick(("sum", "max"))
        return scale(cumulative(x, kind, axis, reverse=bool(self.size(0, 1))), 0.5)

    def sorted(self):
        x = self.pick(self.floats(at_least=2))
        axis = self.pick([i for i in range(x.type.rank) if i != x.type.batch_axis])
        return sort(x, axis=axis, descending=bool(self.size(0, 1)))[0]

    def largest(self):
        x = self.pick(self.floats(2))
        if x.type.rank != 2 or x.type.batch_axis != 0 or x.shape[1] < 1:
            return None
        return top_k(x, self.size(1, x.shape[1]))[0]

    def dropped(self):
        x = self.pick(self.floats())
        chance = uniform(self.key, x.shape, len(self.pool), self.dtype)
        return where(gt(chance, self.full(x.shape, 0.3)), scale(x, 1 / 0.7), zeros_like(x))

    def narrowed(self):
        x = self.pick(self.floats(at_least=2))
        axis = self.pick([i for i in range(x.type.rank) if i != x.type.batch_axis])
        if x.shape[axis] < 2:
            return None
        starts = [constant(0, "int32")] * x.type.rank
        first = reduce_max(self.label)
        starts[axis] = first
        sizes = list(x.shape)
        sizes[axis] -= 1
        return dynamic_slice(x, starts, sizes)

    def recurrent(self):
        x = self.pick(self.floats(3))
        if x.type.rank != 3 or x.type.batch_axis != 0 or x.shape[1] < 1:
            return None
        steps, features, units = x.shape[1], x.shape[2], self.size(1, 5)
        wx, wh, b = self.weight(features, units), self.weight(units, units), self.weight(units)

        def cell(h, x_t, wx, wh, b):
            z = add(add(dot(x_t, wx), dot(h, wh)), grow_last(b, h.shape))
            new = tanh(scale(z, 0.5))
            return new, add(new, scale(h, 0.5))

        types = [Type((B, units), self.dtype), Type((B, features), self.dtype)]
        body = body_of(cell, [*types, wx.type, wh.type, b.type])
        first = self.full((B, units), 0.0)
        walked = transpose(x, (1, 0, 2))
        last, outputs = scan(
            body, steps, [first], [walked], [wx, wh, b], reverse=bool(self.size(0, 1))
        )
        return last if self.size(0, 1) else transpose(outputs, (1, 0, 2))

    def branched(self):
        x = self.pick(self.floats())
        flag = gt(reduce_max(self.label), constant(CLASSES // 2, "int32"))
        then = body_of(tanh, [x.type])
        otherwise = body_of(lambda a: scale(a, 0.5), [x.type])
        return cond(flag, then, otherwise, [x])[0]

    def named(self):
        x = self.pick(self.floats())
        body = body_of(lambda a: mul(tanh(a), scalar.sigmoid(a)), [x.type])
        return composite("gate", body, [x])[0]


PLAIN = [
    "unary", "positive", "binary", "bias", "relu", "dense", "softmax", "layer_norm", "batch_norm",
    "reduction", "transposed", "reshaped", "sliced", "padded", "joined", "convolved", "pooled",
    "embedded", "picked", "dropped", "counted",
]  # fmt: skip
RARE = [
    "attention", "scattered", "sorted", "largest", "narrowed", "recurrent", "branched", "named",
]  # fmt: skip


def random_program(seed, *, dtype="float32", steps=12, kinds=(*PLAIN, *RARE)):
    """A random training step: inputs x, sequence, label, key; weights as states; a loss."""
    growing = Growing(seed, dtype)
    for _ in range(steps):
        made = getattr(growing, growing.pick(list(kinds)))()
        if made is None or math.prod(s for s in made.shape if isinstance(s, int)) > 600:
            continue
        growing.pool.append(made)
    ends = growing.pool[-4:]
    losses = [mean(mul(node, node)) for node in ends]
    loss = losses[0]
    for one in losses[1:]:
        loss = add(loss, one)
    slopes = gradients([loss], [constant(1.0, dtype)], growing.states)
    updates = [
        None if slope is None else sub(state, scale(slope, 0.1))
        for state, slope in zip(growing.states, slopes, strict=True)
    ]
    return Program(
        (*growing.inputs, growing.key),
        tuple(growing.states),
        (loss, *ends),
        tuple(updates),
    )


def random_feed(program, rows, seed):
    """Arrays for the inputs and the states of a program."""
    rng = np.random.default_rng(seed)
    inputs, states = [], []
    for nodes, arrays in ((program.inputs, inputs), (program.states, states)):
        for node in nodes:
            shape = node.type.at(rows).shape
            if node.type.is_float:
                values = rng.standard_normal(shape)
                arrays.append(np.asarray(values if nodes is program.inputs else 0.7 * values))
                arrays[-1] = arrays[-1].astype(node.dtype)
            else:
                arrays.append(rng.integers(0, CLASSES, shape).astype(node.dtype))
    return inputs, states


def permuted(inputs, program, order):
    """The same inputs with their rows in another order."""
    return [
        array if node.type.batch_axis is None else np.take(array, order, node.type.batch_axis)
        for array, node in zip(inputs, program.inputs, strict=True)
    ]
