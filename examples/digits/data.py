#!/usr/bin/env python3
"""Write train.npz, valid.npz and test.npz from scikit-learn's handwritten digits (1,797 scans, no download).

Each holds ``image`` (uint8, 0..16, shape [n, 1, 8, 8]) and ``label`` (uint8, shape [n]). Which split
a scan goes to follows from the hash of its pixels, so equal scans always share a split and the
files are the same on every machine. Running it again changes nothing.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

FOLDER = Path(__file__).resolve().parent
# Upper end of each split's share of the hash range: 40 % train, 30 % validation, 30 % test.
SHARES = {"train": 0.40, "valid": 0.70, "test": 1.0}


def split_of(image: npt.NDArray[np.uint8]) -> str:
    """The split that one scan belongs to, from the first four bytes of its sha256."""
    place = int.from_bytes(hashlib.sha256(image.tobytes()).digest()[:4], "big") / 2**32
    return next(name for name, upto in SHARES.items() if place < upto)


def write_splits(folder: Path) -> dict[str, int]:
    """Write the three files into ``folder``; returns how many samples each has."""
    # Here and not above: scikit-learn takes a second to load, which a second call needn't wait for.
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = digits.images.astype(np.uint8)[:, None]
    labels = digits.target.astype(np.uint8)
    homes = np.array([split_of(image) for image in images])
    for name in SHARES:
        chosen = homes == name
        part = folder / f".{name}.part.npz"
        np.savez_compressed(part, image=images[chosen], label=labels[chosen])
        part.replace(folder / f"{name}.npz")
    return {name: int((homes == name).sum()) for name in SHARES}


def main() -> None:
    """Make the files that aren't there yet and say so."""
    if all((FOLDER / f"{name}.npz").is_file() for name in SHARES):
        return
    counts = write_splits(FOLDER)
    print("digits data written: " + ", ".join(f"{name}.npz ({n} samples)" for name, n in counts.items()))


if __name__ == "__main__":
    main()
