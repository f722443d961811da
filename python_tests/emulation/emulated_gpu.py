"""A plugin of pytest, `-p emulated_gpu`: in a PyTorch without CUDA, device "cuda" is there, by gpu.cpp, and gconv_ext has its CUDA
ops for it.  GCONV_EMULATED_GPU names the library that CMake made of these."""

import ctypes
import os
import sys
from types import SimpleNamespace

# Before PyTorch asks, once and for all, whether there is CUDA.
assert "torch" not in sys.modules, "emulated_gpu must come before whatever imports torch"
ctypes.CDLL(os.environ["GCONV_EMULATED_GPU"], mode=ctypes.RTLD_GLOBAL)

import pytest  # noqa: E402
import torch  # noqa: E402

torch.cuda._lazy_init = lambda: None
torch.cuda.is_available = lambda: True
torch.cuda.device_count, torch.cuda.current_device = lambda: 1, lambda: 0
torch.cuda.get_device_properties = lambda *device: SimpleNamespace(major=9, minor=0)
torch.cuda.get_rng_state, torch.cuda.set_rng_state = torch.get_rng_state, lambda state, *device: None
torch.cuda.is_bf16_supported = lambda *including: True
torch.cuda.get_device_capability = lambda *device: (9, 0)

from gconv_ext import ops, triton_kernels  # noqa: E402

_info = ops.build_info() | {"cuda": "built for the emulator"}
ops.build_info = lambda: _info
triton_kernels.missing_reason = lambda: "the emulator runs CUDA alone"

NOT_EMULATED = {"test_tf32": "PyTorch's settings", "test_the_current_stream_is_used": "streams"}


def pytest_addoption(parser):
    parser.addoption("--every", type=int, default=1, help="run the first of so many tests in a row")


def pytest_collection_modifyitems(config, items):
    for item in items:
        if why := NOT_EMULATED.get(item.originalname):
            item.add_marker(pytest.mark.skip(reason=f"not emulated: {why}"))
    items[:] = items[:: config.getoption("--every")]
