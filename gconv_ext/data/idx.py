"""The idx files of MNIST and Fashion-MNIST."""

from __future__ import annotations

import gzip
import zlib
from math import prod
from pathlib import Path

import numpy as np

from ..errors import InputError


def read_idx(path: Path | str) -> np.ndarray:
    """Reads an idx file of unsigned bytes, plain or .gz.

    Args:
        path: the file; whether it is compressed is told by its name.

    Returns:
        uint8 array, its shape as the file's header says.

    Raises:
        OSError: the file cannot be opened.
        InputError: not an idx file of unsigned bytes, or shorter or longer than its header says.
    """
    path = Path(path)
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path}: not a whole gzip file ({error})") from error
    if len(data) < 4 or data[:3] != b"\0\0\x08" or not 1 <= data[3] <= 3 or len(data) < 4 + 4 * data[3]:
        raise InputError(f"{path}: not an idx file of unsigned bytes (starts with {data[:4].hex(' ') or 'nothing'})")
    shape = tuple(int.from_bytes(data[4 + 4 * i : 8 + 4 * i], "big") for i in range(data[3]))
    start = 4 + 4 * data[3]
    if len(data) - start != prod(shape):
        raise InputError(f"{path}: holds {len(data) - start} bytes of data, and its header says {prod(shape)} {list(shape)}")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)
