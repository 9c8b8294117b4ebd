"""Small PyTorch networks for tests, also used as a user's own ``code:`` file. Needs torch."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Residual(nn.Module):
    """A block whose two paths must keep the same channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, groups=2), nn.BatchNorm2d(channels),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.body(x))


class Cnn(nn.Module):
    """image float32 [N,1,8,8] -> logits [N,4], with everything small CNNs are made of."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(0.5))
        self.stem = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.SiLU(), nn.MaxPool2d(2))
        self.block = Residual(8)
        self.wide = nn.Sequential(nn.Conv2d(8, 16, 3, stride=2), nn.BatchNorm2d(16), nn.Hardswish(), nn.Dropout(0.5))
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4))

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.wide(self.block(self.stem(image - self.mean))))


class Encoder(nn.Module):
    """ids int64 [N,6], mask int64 [N,6] -> {logits [N,3], pooled [N,16]}: torch's own transformer layer."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(40, 16)
        self.places = nn.Parameter(torch.randn(6, 16) * 0.1)
        self.query, self.key, self.value, self.out = (nn.Linear(16, 16) for _ in range(4))
        self.norm1, self.norm2 = nn.LayerNorm(16), nn.LayerNorm(16)
        self.up, self.down = nn.Linear(16, 32), nn.Linear(32, 16)
        self.head = nn.Linear(16, 3)

    def forward(self, ids: Tensor, mask: Tensor) -> dict[str, Tensor]:
        x = self.tokens(ids) + self.places
        n, length, width = x.shape
        q, k, v = (f(x).view(n, length, 2, width // 2).transpose(1, 2) for f in (self.query, self.key, self.value))
        kept = mask[:, None, None, :].bool()
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=kept)
        x = self.norm1(x + self.out(attended.transpose(1, 2).reshape(n, length, width)))
        x = self.norm2(x + self.down(F.gelu(self.up(x))))
        weights = mask[..., None].to(x.dtype)
        pooled = (x * weights).sum(1) / weights.sum(1).clamp(min=1)
        return {"logits": self.head(pooled), "pooled": pooled}


class OneByOne(nn.Module):
    """Takes any number of samples in Python only: the trace of one number is wrong for another."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x) * (2.0 if x.shape[0] > 1 else 1.0)


class Branching(nn.Module):
    """Looks at a value to decide what to do, which no trace can hold."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x) if x.sum() > 0 else -self.fc(x)


def seeded(kind: type[nn.Module], seed: int = 0) -> Any:
    """A network whose weights, and batch-norm statistics, are drawn from ``seed``; in evaluation mode."""
    torch.manual_seed(seed)
    net = kind()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
        if isinstance(module, nn.BatchNorm2d | nn.LayerNorm):  # equal weights would be stored once by the exporter
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    return net.eval()


def cnn() -> nn.Module:
    """What a spec's ``code:`` names."""
    return Cnn()


def broken() -> nn.Module:
    raise RuntimeError("no such layer")


def nothing() -> None:
    return None
