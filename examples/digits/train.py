#!/usr/bin/env python3
"""Train the example's CNN and export it as model.onnx. Needs the extra ``torch``; takes well under a minute.

The committed model.onnx was made by ``python examples/digits/train.py`` with the versions of constraints.txt.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from data import FOLDER
from data import main as make_data
from torch import nn

EPOCHS = 30
BATCH = 64
PEAK_LEARNING_RATE = 3e-3


class DigitsNet(nn.Module):
    """float32 [n, 1, 8, 8] with values 0..1 -> logits float32 [n, 10].

    All convolutions work on the full 8x8 image: the model is small on disk (185,000 parameters) and
    yet busy enough that what a technique does to its arithmetic shows in its latency.
    """

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(*_block(1, 64), *_block(64, 128), *_block(128, 96))
        self.head = nn.Linear(96, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.features(image).mean(dim=(2, 3)))
        return logits


def _block(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]


def load_split(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Images as float32 in 0..1, labels as int64."""
    with np.load(FOLDER / f"{name}.npz") as arrays:
        return torch.from_numpy(arrays["image"]).float() / 16, torch.from_numpy(arrays["label"]).long()


def train(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> None:
    """Fit ``model`` in place: AdamW, one cycle, images shifted by up to one pixel."""
    steps = len(images) // BATCH
    optimizer = torch.optim.AdamW(model.parameters(), PEAK_LEARNING_RATE, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LEARNING_RATE, EPOCHS * steps)
    for _ in range(EPOCHS):
        for chosen in torch.randperm(len(images))[: steps * BATCH].split(BATCH):
            rows, columns = torch.randint(-1, 2, (2,)).tolist()
            moved = torch.roll(images[chosen], (rows, columns), (2, 3))
            loss = nn.functional.cross_entropy(model(moved), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


def export(model: nn.Module, image: torch.Tensor, path: Path) -> None:
    """Write ``model`` as ONNX with a free batch size, without the source paths that the exporter notes."""
    torch.onnx.export(
        model,
        (image,),
        str(path),
        dynamo=True,
        opset_version=18,
        external_data=False,
        input_names=["image"],
        output_names=["logits"],
        dynamic_shapes={"image": {0: torch.export.Dim("batch")}},
        verbose=False,
    )
    written = onnx.load(path)
    graph = written.graph
    for part in (written, graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""
    onnx.save(written, path)


def main() -> None:
    """Train, say how good it is, export."""
    make_data()
    torch.manual_seed(0)
    model = DigitsNet()
    train(model, *load_split("train"))
    model.eval()
    with torch.no_grad():
        for name in ("train", "valid", "test"):
            images, labels = load_split(name)
            print(f"{name}: accuracy {(model(images).argmax(1) == labels).float().mean().item():.4f} of {len(labels)}")
    export(model, load_split("train")[0][:2], FOLDER / "model.onnx")
    print(f"model.onnx: {(FOLDER / 'model.onnx').stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
