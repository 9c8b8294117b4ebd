"""A network of repeated blocks and a student for it, as a user's own ``code:`` file. Needs torch."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Block(nn.Module):
    """What a residual network repeats."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.body(x))


class Deep(nn.Module):
    """image float32 [N,1,8,8] -> logits [N,4]: a stem, like blocks, a head."""

    def __init__(self, width: int = 16, blocks: int = 4) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, width, 3, stride=2, padding=1), nn.BatchNorm2d(width), nn.ReLU())
        self.blocks = nn.Sequential(*(Block(width) for _ in range(blocks)))
        self.head = nn.Linear(width, 4)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(image)).mean((2, 3)))


def deep() -> nn.Module:
    """What ``model.code`` names."""
    return Deep()


def small() -> nn.Module:
    """What ``model.student`` names."""
    return Deep(8, 1)


def other() -> nn.Module:
    """A student that answers in another shape."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
