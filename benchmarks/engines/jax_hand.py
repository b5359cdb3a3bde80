"""JAX written by hand: one jitted step, or a whole epoch in one scan, whichever is faster."""

from __future__ import annotations

import time

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks.workloads import Workload

SPATIAL = ("NHWC", "HWIO", "NHWC")


def glorot(key, shape):
    fan_in, fan_out = int(np.prod(shape[:-1])), int(np.prod(shape[:-2])) * shape[-1]
    limit = (6 / (fan_in + fan_out)) ** 0.5
    return jax.random.uniform(key, shape, minval=-limit, maxval=limit)


def conv(x, w, stride=1, padding="VALID"):
    return lax.conv_general_dilated(x, w, (stride, stride), padding, dimension_numbers=SPATIAL)


def pool(x):
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")


class Convolutional:
    def __init__(self, last: int) -> None:
        self.last = last

    def init(self, key):
        n = self.last
        shapes = [(3, 3, 1, 32), (3, 3, 32, 64), (3, 3, 64, n), (9 * n, n), (n, 10)]
        return weights(key, shapes)

    def apply(self, p, x):
        x = pool(jax.nn.relu(conv(x, p[0][0]) + p[0][1]))
        x = pool(jax.nn.relu(conv(x, p[1][0]) + p[1][1]))
        x = jax.nn.relu(conv(x, p[2][0]) + p[2][1]).reshape(len(x), -1)
        x = jax.nn.relu(x @ p[3][0] + p[3][1])
        return x @ p[4][0] + p[4][1]


def weights(key, shapes):
    keys = jax.random.split(key, len(shapes))
    return [(glorot(k, shape), jnp.zeros(shape[-1])) for k, shape in zip(keys, shapes, strict=True)]


class Dense:
    def __init__(self, features: int, outputs: int) -> None:
        self.shapes = [(features, 64), (64, 64), (64, outputs)]

    def init(self, key):
        return weights(key, self.shapes)

    def apply(self, p, x):
        for w, b in p[:-1]:
            x = jax.nn.relu(x @ w + b)
        return x @ p[-1][0] + p[-1][1]


class Recurrent:
    def __init__(self, words: int, width: int, cells: int, classes: int, *, every: bool) -> None:
        self.sizes, self.every = (words, width, cells, classes), every

    def init(self, key):
        words, width, cells, classes = self.sizes
        a, b, c, d = jax.random.split(key, 4)
        return {
            "table": jax.random.uniform(a, (words, width), minval=-0.05, maxval=0.05),
            "input": glorot(b, (width, 4 * cells)),
            "state": glorot(c, (cells, 4 * cells)),
            "bias": jnp.zeros(4 * cells),
            "dense": (glorot(d, (cells, classes)), jnp.zeros(classes)),
        }

    def apply(self, p, x):
        cells = self.sizes[2]
        # One product for all time steps before the loop.
        inputs = (p["table"][x] @ p["input"] + p["bias"]).transpose(1, 0, 2)

        def step(carry, given):
            h, c = carry
            i, f, g, o = jnp.split(given + h @ p["state"], 4, -1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            return (h, c), h if self.every else None

        zeros = jnp.zeros((len(x), cells))
        (last, _), every = lax.scan(step, (zeros, zeros), inputs)
        states = every.transpose(1, 0, 2) if self.every else last
        return states @ p["dense"][0] + p["dense"][1]


def batch_norm(x, p):
    mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
    return (x - mean) * lax.rsqrt(variance + 1e-3) * p[0] + p[1]


class Residual:
    sizes = ((32, 32), (32, 32), (32, 64), (64, 64), (64, 128), (128, 128))

    def init(self, key):
        def normalised(key, shape):
            return glorot(key, shape), (jnp.ones(shape[-1]), jnp.zeros(shape[-1]))

        keys = iter(jax.random.split(key, 32))
        blocks = []
        for before, filters in self.sizes:
            block = [
                normalised(next(keys), (3, 3, before, filters)),
                normalised(next(keys), (3, 3, filters, filters)),
            ]
            if before != filters:
                block.append(normalised(next(keys), (1, 1, before, filters)))
            blocks.append(block)
        return {
            "stem": normalised(next(keys), (3, 3, 3, 32)),
            "blocks": blocks,
            "dense": (glorot(next(keys), (128, 10)), jnp.zeros(10)),
        }

    def apply(self, p, x):
        x = jax.nn.relu(batch_norm(conv(x, p["stem"][0], 1, "SAME"), p["stem"][1]))
        for block in p["blocks"]:
            stride = 2 if len(block) == 3 else 1
            y = jax.nn.relu(batch_norm(conv(x, block[0][0], stride, "SAME"), block[0][1]))
            y = batch_norm(conv(y, block[1][0], 1, "SAME"), block[1][1])
            if stride == 2:
                x = batch_norm(conv(x, block[2][0], stride, "SAME"), block[2][1])
            x = jax.nn.relu(x + y)
        return x.mean((1, 2)) @ p["dense"][0] + p["dense"][1]


def layer_norm(x, p):
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) * lax.rsqrt(variance + 1e-3) * p[0] + p[1]


class Transformer:
    def init(self, key):
        keys = iter(jax.random.split(key, 16))
        layers = [
            {
                "qkv": (glorot(next(keys), (128, 384)), jnp.zeros(384)),
                "out": (glorot(next(keys), (128, 128)), jnp.zeros(128)),
                "one": (glorot(next(keys), (128, 512)), jnp.zeros(512)),
                "two": (glorot(next(keys), (512, 128)), jnp.zeros(128)),
                "norms": [(jnp.ones(128), jnp.zeros(128)) for _ in range(2)],
            }
            for _ in range(2)
        ]
        return {
            "table": jax.random.uniform(next(keys), (10000, 128), minval=-0.05, maxval=0.05),
            "positions": jax.random.uniform(next(keys), (128, 128), minval=-0.05, maxval=0.05),
            "layers": layers,
            "dense": (glorot(next(keys), (128, 10)), jnp.zeros(10)),
        }

    def apply(self, p, x):
        x = p["table"][x] + p["positions"]
        for layer in p["layers"]:
            qkv = x @ layer["qkv"][0] + layer["qkv"][1]
            q, k, v = (part.reshape(*x.shape[:2], 4, 32) for part in jnp.split(qkv, 3, -1))
            scores = jax.nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", q, k) / 32**0.5)
            mixed = jnp.einsum("bhqk,bkhd->bqhd", scores, v).reshape(x.shape)
            x = layer_norm(x + mixed @ layer["out"][0] + layer["out"][1], layer["norms"][0])
            inner = jax.nn.relu(x @ layer["one"][0] + layer["one"][1])
            x = layer_norm(x + inner @ layer["two"][0] + layer["two"][1], layer["norms"][1])
        return x.mean(1) @ p["dense"][0] + p["dense"][1]


class Autoencoder:
    shapes = ((3, 3, 1, 32), (3, 3, 32, 64), (3, 3, 64, 64), (3, 3, 64, 32), (3, 3, 32, 1))

    def init(self, key):
        return weights(key, self.shapes)

    def apply(self, p, x):
        for w, b in p[:2]:
            x = jax.nn.relu(conv(x, w, 2, "SAME") + b)
        for w, b in p[2:4]:
            x = lax.conv_transpose(x, w, (2, 2), "SAME", dimension_numbers=SPATIAL)
            x = jax.nn.relu(x + b)
        return conv(x, p[4][0], 1, "SAME") + p[4][1]


NETWORKS = {
    "cnn": lambda: Convolutional(64),
    "cnn128": lambda: Convolutional(128),
    "mlp": lambda: Dense(100, 10),
    "reg": lambda: Dense(10, 1),
    "lstm": lambda: Recurrent(10000, 64, 64, 10, every=False),
    "charlstm": lambda: Recurrent(65, 64, 256, 65, every=True),
    "resnet": Residual,
    "transformer": Transformer,
    "autoencoder": Autoencoder,
}


def loss_of(kind, output, target):
    if kind == "sparse":
        picked = jnp.take_along_axis(jax.nn.log_softmax(output), target[..., None], -1)
        return -picked.mean()
    if kind == "mse":
        return jnp.square(output - target).mean()
    return (jnp.maximum(output, 0) - output * target + jnp.log1p(jnp.exp(-jnp.abs(output)))).mean()


class JaxEngine:
    """Adam by hand (Kingma & Ba 2015), states donated."""

    def __init__(self, workload: Workload, x: np.ndarray, y: np.ndarray, *, scan: bool) -> None:
        self.network = NETWORKS[workload.name]()
        weights = self.network.init(jax.random.key(0))
        zeros = jax.tree.map(jnp.zeros_like, weights)
        self.state = (weights, zeros, jax.tree.map(jnp.zeros_like, weights), jnp.zeros(()))
        self.x, self.y = jnp.asarray(x), jnp.asarray(y)
        self.workload, self.scan = workload, scan
        self.rng = np.random.default_rng(0)
        self._step = jax.jit(self._train, donate_argnums=0)
        self._epoch = jax.jit(self._all, donate_argnums=0)
        self._predict = jax.jit(lambda w, rows: jax.nn.softmax(self.network.apply(w, rows)))

    def _train(self, state, x, y):
        weights, first, second, count = state
        loss, gradient = jax.value_and_grad(
            lambda w: loss_of(self.workload.loss, self.network.apply(w, x), y)
        )(weights)
        count = count + 1
        rate = 1e-3 * jnp.sqrt(1 - 0.999**count) / (1 - 0.9**count)
        first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, first, gradient)
        second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, second, gradient)
        weights = jax.tree.map(
            lambda w, m, v: w - rate * m / (jnp.sqrt(v) + 1e-7), weights, first, second
        )
        return (weights, first, second, count), loss

    def _all(self, state, x, y, order):
        def one(state, rows):
            return self._train(state, x[rows], y[rows])

        return lax.scan(one, state, order)

    def epoch(self) -> None:
        batch, steps = self.workload.batch, len(self.x) // self.workload.batch
        order = self.rng.permutation(len(self.x))[: steps * batch].reshape(steps, batch)
        if self.scan:
            self.state, loss = self._epoch(self.state, self.x, self.y, order)
        else:
            for rows in order:
                self.state, loss = self._step(self.state, self.x[rows], self.y[rows])
        loss.block_until_ready()

    def step(self) -> float:
        batch = self.workload.batch
        self.state, loss = self._step(self.state, self.x[:batch], self.y[:batch])
        return float(loss)

    def predict(self, x: np.ndarray) -> np.ndarray:
        parts = [self._predict(self.state[0], x[i : i + 256]) for i in range(0, len(x), 256)]
        return np.concatenate([np.asarray(part) for part in parts])


def build(_name: str, workload: Workload, x: np.ndarray, y: np.ndarray) -> JaxEngine:
    """The faster of one call a step and one call an epoch, on this machine, for this network."""
    found = []
    rows = workload.batch * min(workload.steps, 4 if workload.flops > 1e6 else 200)
    for scan in (False, True):
        engine = JaxEngine(workload, x[:rows], y[:rows], scan=scan)
        engine.epoch()
        start = time.perf_counter()
        engine.epoch()
        found.append((time.perf_counter() - start, scan))
    return JaxEngine(workload, x, y, scan=min(found)[1])
