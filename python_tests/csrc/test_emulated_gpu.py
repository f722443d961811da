"""The tests that need a GPU, on one that python_tests/emulation plays: from Python through csrc/cuda's bindings to its kernels."""

import os
import sys
from pathlib import Path

import pytest
import torch
from building import SOURCE, configure, run, tool

EMULATION = SOURCE / "python_tests" / "emulation"


@pytest.mark.skipif(torch.version.cuda is not None, reason="this PyTorch has CUDA itself")
def test_what_needs_a_gpu(tmp_path):
    """Of the many cases of ops a sample, all of them take a quarter of an hour."""
    configure(tmp_path, f"-DGCONV_TORCH={Path(torch.__file__).parent}", "-DCMAKE_CXX_FLAGS_RELEASE=-O1")
    run(tool("cmake"), "--build", tmp_path, "--target", "gconv_emulated_gpu")
    environment = os.environ | {"GCONV_EMULATED_GPU": f"{tmp_path}/libgconv_emulated_gpu.so", "PYTHONPATH": str(EMULATION)}
    tests = SOURCE / "python_tests"
    pytest_there = (sys.executable, "-m", "pytest", "-q", "-p", "emulated_gpu", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:cov")
    for arguments in (
        ("--every=11", tests / "test_cuda_ops.py"),
        (tests / "test_cuda_ops.py", "-k", "relaxed_layers or wgmma or devices"),
        (tests / "test_memory_format.py", tests / "test_cuda_networks.py", "-k", "networks"),
    ):
        print(run(*pytest_there, *arguments, environment=environment))
