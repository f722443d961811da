"""Makes digits.npz from the idx files of MNIST:  python -m gconv_ext.data.make_digits IDX_DIR OUT.npz"""

from __future__ import annotations

import sys

import numpy as np

from .digits import load_digits

PER_CLASS = {"train": 500, "validation": 100, "test": 200}


def main(idx_dir: str, out: str) -> None:
    digits = load_digits(idx_dir)
    rng = np.random.default_rng(0)
    arrays = {}
    for split, count in PER_CLASS.items():
        images, labels = digits.splits[split]
        chosen = np.concatenate([rng.permutation(np.flatnonzero(labels == label))[:count] for label in range(10)])
        chosen = rng.permutation(chosen)
        arrays[f"{split}_images"], arrays[f"{split}_labels"] = images[chosen], labels[chosen]
    np.savez_compressed(out, **arrays)


if __name__ == "__main__":
    main(*sys.argv[1:])
