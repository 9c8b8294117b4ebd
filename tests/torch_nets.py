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


class Patches(nn.Module):
    """image float32 [N,1,8,8] -> logits [N,4]: patches, a class token, q, k and v from one layer, GELU by tanh."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, 16, 2, 2)
        self.first, self.places = nn.Parameter(torch.randn(1, 1, 16)), nn.Parameter(torch.randn(1, 17, 16) * 0.1)
        self.norm1, self.norm2 = nn.LayerNorm(16), nn.LayerNorm(16)
        self.qkv, self.out = nn.Linear(16, 48), nn.Linear(16, 16)
        self.up, self.down = nn.Linear(16, 64), nn.Linear(64, 16)
        self.head = nn.Linear(16, 4)

    def forward(self, image: Tensor) -> Tensor:
        x = self.patches(image).flatten(2).transpose(1, 2)
        x = torch.cat([self.first.expand(x.shape[0], -1, -1), x], 1) + self.places
        n, length, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(n, length, 3, 4, 4).permute(2, 0, 3, 1, 4).unbind(0)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, length, width))
        x = x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))
        return self.head(x[:, 0])


class Layers(nn.Module):
    """x float32 [N,6,5] -> logits [N,3]: two of torch's own encoder layers, which begin with equal weights."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(5, 16)
        layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, activation="gelu", dropout=0.0)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(self.enter(x))[:, 0])


class Attending(nn.Module):
    """x float32 [N,6,5] -> logits [N,3]: nn.MultiheadAttention with a mask of its own for each sample."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.norm, self.head = nn.Linear(5, 16), nn.LayerNorm(16), nn.Linear(16, 3)
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        absent = x[..., 0] > 1.5
        x = self.enter(x)
        attended, _ = self.attention(x, x, x, key_padding_mask=absent)
        return self.head(self.norm(x + attended).mean(1))


class AnyLength(nn.Module):
    """ids int64 [N,L] -> logits [N,3]: shapes read while running, as transformers' models do; a gated feed-forward."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.norm = nn.Embedding(40, 16), nn.LayerNorm(16)
        self.query, self.key, self.value, self.out = (nn.Linear(16, 16) for _ in range(4))
        self.gate, self.up, self.down = nn.Linear(16, 32), nn.Linear(16, 32), nn.Linear(32, 16)
        self.head = nn.Linear(16, 3)

    def _heads(self, x: Tensor) -> Tensor:
        return x.view(*x.size()[:-1], 4, 4).permute(0, 2, 1, 3)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.tokens(ids)
        q, k, v = (self._heads(f(x)) for f in (self.query, self.key, self.value))
        attended = ((q @ k.transpose(-1, -2) / 2.0).softmax(-1) @ v).permute(0, 2, 1, 3).contiguous()
        x = self.norm(x + self.out(attended.view(*attended.size()[:-2], 16)))
        x = x + self.down(F.silu(self.gate(x)) * self.up(x))
        return self.head(x[:, 0])


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
