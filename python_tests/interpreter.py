"""Triton's interpreter, which runs the Triton kernels where there is no GPU."""

from importlib.metadata import PackageNotFoundError, version

import pytest
import torch


def _version(package):
    """(major, minor), or None where it is not installed."""
    try:
        return tuple(map(int, version(package).split(".")[:2]))
    except PackageNotFoundError:
        return None


_triton = _version("triton")
needs_interpreter = pytest.mark.skipif(
    not torch.cuda.is_available() and _triton is not None and _triton < (3, 7) and _version("numpy") >= (2, 4),
    reason="Triton 3.6's interpreter fails with NumPy 2.4 and newer; install numpy<2.4",
)
