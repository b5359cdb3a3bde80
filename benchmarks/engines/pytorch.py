"""PyTorch written by hand: fused Adam, and the better of channels-first and channels-last."""

from __future__ import annotations

import time

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from benchmarks.workloads import Workload


class Recurrent(nn.Module):
    def __init__(self, words: int, width: int, cells: int, classes: int, *, every: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, width)
        self.lstm = nn.LSTM(width, cells, batch_first=True)
        self.dense = nn.Linear(cells, classes)
        self.every = every

    def forward(self, x):
        states, _ = self.lstm(self.embedding(x))
        return self.dense(states if self.every else states[:, -1])


class Block(nn.Module):
    def __init__(self, before: int, filters: int) -> None:
        super().__init__()
        stride = 1 if before == filters else 2
        self.first = nn.Conv2d(before, filters, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(filters, filters, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(filters) for _ in range(2)])
        self.short = nn.Identity()
        if stride == 2:
            self.short = nn.Sequential(
                nn.Conv2d(before, filters, 1, stride, bias=False), nn.BatchNorm2d(filters)
            )

    def forward(self, x):
        y = F.relu(self.norms[0](self.first(x)))
        return F.relu(self.norms[1](self.second(y)) + self.short(x))


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(2)])
        self.inner = nn.Sequential(nn.Linear(width, 512), nn.ReLU(), nn.Linear(512, width))

    def forward(self, x):
        rows, length, width = x.shape
        q, k, v = (
            part.view(rows, length, self.heads, width // self.heads).transpose(1, 2)
            for part in self.qkv(x).chunk(3, -1)
        )
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape)
        x = self.norms[0](x + self.out(mixed))
        return self.norms[1](x + self.inner(x))


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(10000, 128)
        self.positions = nn.Parameter(torch.rand(128, 128) * 0.1 - 0.05)
        self.blocks = nn.Sequential(Attention(128, 4), Attention(128, 4))
        self.dense = nn.Linear(128, 10)

    def forward(self, x):
        return self.dense(self.blocks(self.embedding(x) + self.positions).mean(1))


def convolutional(last: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 32, 3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(64, last, 3), nn.ReLU(), nn.Flatten(),
        nn.Linear(9 * last, last), nn.ReLU(), nn.Linear(last, 10),
    )  # fmt: skip


def dense(features: int, outputs: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(features, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, outputs)
    )


def residual() -> nn.Module:
    sizes = ((32, 32), (32, 32), (32, 64), (64, 64), (64, 128), (128, 128))
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, 1, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
        *(Block(before, filters) for before, filters in sizes),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10),
    )  # fmt: skip


def autoencoder() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, 2, 1), nn.ReLU(),
        nn.Conv2d(32, 64, 3, 2, 1), nn.ReLU(),
        nn.ConvTranspose2d(64, 64, 3, 2, 1, 1), nn.ReLU(),
        nn.ConvTranspose2d(64, 32, 3, 2, 1, 1), nn.ReLU(),
        nn.Conv2d(32, 1, 3, 1, 1),
    )  # fmt: skip


NETWORKS = {
    "cnn": lambda: convolutional(64),
    "cnn128": lambda: convolutional(128),
    "mlp": lambda: dense(100, 10),
    "reg": lambda: dense(10, 1),
    "lstm": lambda: Recurrent(10000, 64, 64, 10, every=False),
    "charlstm": lambda: Recurrent(65, 64, 256, 65, every=True),
    "resnet": residual,
    "transformer": Transformer,
    "autoencoder": autoencoder,
}


def loss_of(kind: str, output, target):
    if kind == "sparse":
        return F.cross_entropy(output.flatten(0, -2), target.flatten())
    if kind == "mse":
        return F.mse_loss(output, target)
    return F.binary_cross_entropy_with_logits(output, target)


class TorchEngine:
    """A plain loop over shuffled batches of tensors in memory."""

    def __init__(self, workload: Workload, x: np.ndarray, y: np.ndarray, *, last: bool) -> None:
        torch.manual_seed(0)
        images = x.ndim == 4
        self.format = torch.channels_last if images and last else torch.contiguous_format
        self.x = torch.from_numpy(x).long() if x.dtype.kind == "i" else torch.from_numpy(x)
        self.y = torch.from_numpy(y).long() if workload.loss == "sparse" else torch.from_numpy(y)
        if images:
            self.x = self.x.permute(0, 3, 1, 2).contiguous(memory_format=self.format)
            self.y = self.y.permute(0, 3, 1, 2).contiguous() if self.y.ndim == 4 else self.y
        self.images = images
        self.model = NETWORKS[workload.name]()
        if images:
            self.model = self.model.to(memory_format=self.format)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3, fused=True)
        self.workload = workload

    def epoch(self) -> None:
        batch = self.workload.batch
        order = torch.randperm(len(self.x))
        for start in range(0, len(order), batch):
            rows = order[start : start + batch]
            self._train(self.x[rows], self.y[rows])

    def step(self) -> float:
        batch = self.workload.batch
        return self._train(self.x[:batch], self.y[:batch]).item()

    def _train(self, x, y):
        if self.images:
            x = x.contiguous(memory_format=self.format)
        self.optimizer.zero_grad(set_to_none=True)
        loss = loss_of(self.workload.loss, self.model(x), y)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def predict(self, x: np.ndarray) -> np.ndarray:
        self.model.eval()
        parts = []
        with torch.inference_mode():
            for start in range(0, len(x), 256):
                rows = torch.from_numpy(x[start : start + 256])
                if self.images:
                    rows = rows.permute(0, 3, 1, 2).contiguous(memory_format=self.format)
                parts.append(torch.softmax(self.model(rows), -1))
        self.model.train()
        return torch.cat(parts).numpy()


def build(_name: str, workload: Workload, x: np.ndarray, y: np.ndarray) -> TorchEngine:
    """The faster of the two memory formats on this machine, for this network."""
    if x.ndim != 4:
        return TorchEngine(workload, x, y, last=False)
    found = []
    rows = workload.batch * min(workload.steps, 4)
    for last in (False, True):
        engine = TorchEngine(workload, x[:rows], y[:rows], last=last)
        engine.epoch()
        start = time.perf_counter()
        engine.epoch()
        found.append((time.perf_counter() - start, last))
    return TorchEngine(workload, x, y, last=min(found)[1])
