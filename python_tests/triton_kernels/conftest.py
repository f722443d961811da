import numpy as np
import pytest
import torch


def _dot(self, a, b, d, *precision):
    """tl.dot in float32, every element's products added in the same order.

    NumPy's matmul is OpenBLAS's, some of whose kernels (which, depends on the processor) round a row's sums by where it lies, so
    that no kernel would be equivariant to the bit."""
    from triton.runtime.interpreter import TensorHandle

    products = np.multiply(a.data[..., :, :, None], b.data[..., None, :, :], dtype=d.data.dtype)
    return TensorHandle(products.sum(axis=-2) + d.data, d.dtype.scalar)


@pytest.fixture(autouse=True)
def _every_row_rounds_alike(monkeypatch):
    if not torch.cuda.is_available():
        from triton.runtime.interpreter import InterpreterBuilder

        monkeypatch.setattr(InterpreterBuilder, "create_dot", _dot)
