"""Compiles the CUDA kernels with nvcc, which needs no GPU, and reads ptxas's report on them."""

import os
import shutil

import pytest
from building import configure, run, tool

from gconv_ext.bench import resources


@pytest.mark.skipif(not shutil.which(os.environ.get("CUDACXX", "nvcc")), reason="nvcc was not found on PATH or in CUDACXX")
def test_no_kernel_spills_registers(tmp_path):
    configure(tmp_path, "-DCMAKE_CUDA_ARCHITECTURES=80;90a")
    report = run(tool("cmake"), "--build", tmp_path, "--target", "gconv_cuda")
    kernels = resources.parse(report)
    print(resources.table(kernels))
    assert {kernel.arch for kernel in kernels} == {"sm_80", "sm_90a"}
    assert {"expand_filter_kernel<float>", "grad_weight_kernel<double>"} <= {kernel.name for kernel in kernels}
    # On sm_80 they are empty. ptxas warns where it makes products wait for each other.
    wgmma = {kernel.registers > 100 for kernel in kernels if "wgmma" in kernel.name.lower() and kernel.arch == "sm_90a"}
    assert wgmma == {True} and "serialized" not in report
    spilling = [str(kernel) for kernel in kernels if kernel.stack_bytes or kernel.spill_bytes]
    assert not spilling, "\n".join(spilling)
