"""One-hot labels: a row of zeros with a single 1 for each sample, where metrics take the class's number."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from autopilot.data.sources import Header, Source


def is_one_hot(source: Source, header: Header) -> bool:
    """Whether every row of the last axis holds exactly one 1 and zeros."""
    if header.dtype.kind not in "biuf" or len(header.shape) < 2 or header.shape[-1] < 2 or not header.shape[0]:
        return False
    return all(
        bool(((rows == 0) | (rows == 1)).all() and (rows.sum(axis=-1, dtype=float) == 1).all())
        for rows in source.chunks(header.name)
    )


def convert_text(source: Source, header: Header) -> str:
    """What is to be done with such labels: no metric takes them, and a spec has no mapping for labels."""
    name, path = header.name, str(source.path)
    what = f"the labels {name!r} in {path} are one-hot ({header.text}), and metrics take the class's number: "
    if not path.lower().endswith(".npz"):
        return f"{what}store the index of the 1"
    return (
        f'{what}store {name}.argmax(-1), for example with: python -c "import numpy as np; '
        f'd = dict(np.load({path!r})); d[{name!r}] = d[{name!r}].argmax(-1); np.savez({path!r}, **d)"'
    )
