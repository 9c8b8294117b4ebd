"""Records of changed modules: what a structural step left is rebuilt from the code, without pickle."""

from __future__ import annotations

from pathlib import Path

import pytest

from autopilot.errors import ModelError
from autopilot.torch_model import records

torch = pytest.importorskip("torch")
nn = torch.nn


def network(blocks: int = 4) -> torch.nn.Module:
    torch.manual_seed(0)
    body = [nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU()) for _ in range(blocks)]
    return nn.Sequential(nn.Conv2d(1, 6, 3), *body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3)).eval()


def narrowed() -> torch.nn.Module:
    """Fewer channels between two convolutions, and a block less."""
    module = network(3)
    first, second = module[1], module[2][0]
    first[0].weight, first[0].bias, first[0].out_channels = (
        nn.Parameter(first[0].weight[:4]),
        nn.Parameter(first[0].bias[:4]),
        4,
    )
    first[1] = nn.BatchNorm2d(4)
    second.weight, second.in_channels = nn.Parameter(second.weight[:, :4]), 4
    return module.eval()


def test_rebuild_gives_a_module_that_answers_alike(tmp_path: Path) -> None:
    """Narrower layers and lost blocks come back on the module that the code builds."""
    changed, images = narrowed(), torch.rand(2, 1, 8, 8)

    records.keep(changed, tmp_path / "record")
    rebuilt = records.rebuild(network(), tmp_path / "record")

    assert rebuilt is not None
    assert torch.equal(rebuilt(images), changed(images))
    assert rebuilt[1][1].num_features == 4
    assert len(rebuilt) == len(changed)


def test_rebuild_is_none_where_nothing_was_kept(tmp_path: Path) -> None:
    """A file that no step of ours wrote has no record."""
    assert records.rebuild(network(), tmp_path / "record") is None


def test_rebuild_refuses_a_record_of_another_network(tmp_path: Path) -> None:
    """A record never turns a module into something that only looks like it."""
    records.keep(nn.Sequential(nn.Conv1d(1, 1, 1)), tmp_path / "record")

    with pytest.raises(ModelError, match="record"):
        records.rebuild(network(), tmp_path / "record")


def test_rebuild_refuses_a_damaged_record(tmp_path: Path) -> None:
    """Half a file is not taken for weights."""
    path = tmp_path / "record"
    records.keep(network(), path)
    path.write_bytes(path.read_bytes()[:-8])

    with pytest.raises(ModelError, match="record"):
        records.rebuild(network(), path)
