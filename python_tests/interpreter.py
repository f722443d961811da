"""Triton's interpreter, which runs the Triton kernels where there is no GPU."""

import numpy
import pytest
import torch
import triton

_versions = [tuple(map(int, module.__version__.split(".")[:2])) for module in (triton, numpy)]
needs_interpreter = pytest.mark.skipif(
    not torch.cuda.is_available() and _versions[0] < (3, 7) and _versions[1] >= (2, 5),
    reason="Triton 3.6's interpreter fails with NumPy 2.5 and newer; install numpy<2.5",
)
