"""Compiles the Triton kernels as the package launches them, in each tile of its tables, for a GPU that need not be there, and
prints what each needs as JSON:  python compile_all.py 90 [TEXT that the call must contain]"""

import json
import os
import re
import subprocess
import sys
import tempfile

import torch
import triton.backends.nvidia
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver
from triton.runtime.jit import JITFunction

from gconv_ext import PointGroup
from gconv_ext.triton_kernels import contract, expand_filter, fused, irrep_fprop, irrep_wgrad

CUOBJDUMP = os.path.join(os.path.dirname(triton.backends.nvidia.__file__), "bin", "cuobjdump")
COLUMNS = ["call", "kernel", "arch", "registers", "stack", "shared", "hgmma", "hmma"]


class NoGPU:
    """The driver of a GPU of that architecture, as far as compiling asks it."""

    def __init__(self, arch):
        self.target = GPUTarget("cuda", arch, 32)

    def get_current_target(self):
        return self.target

    def get_current_device(self):
        return 0

    def get_current_stream(self, device):
        return 0


def compile_instead_of_launching(arch):
    """Every launch compiles its kernel and appends it to the list that is returned."""
    driver.set_active(NoGPU(arch))
    irrep_fprop.is_hopper = lambda tensor: arch >= 90
    kernels, run = [], JITFunction.run

    def compile(self, *args, grid, warmup, **options):
        kernels.append(run(self, *args, grid=grid, warmup=True, **options))

    JITFunction.run = compile
    return kernels


def resources(kernel):
    """What ptxas noted, the stack with the registers that it spilled; and the products that it was given, which become as
    many instructions. Disassembly would take a third of the time."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as cubin:
        cubin.write(kernel.asm["cubin"])
        cubin.flush()
        usage = subprocess.run([CUOBJDUMP, "-res-usage", cubin.name], capture_output=True, text=True, check=True).stdout
    registers, stack = map(int, re.search(r"REG:(\d+) STACK:(\d+)", usage).groups())
    ptx = kernel.asm["ptx"]
    return [registers, stack, kernel.metadata.shared, ptx.count("wgmma.mma_async"), ptx.count("mma.sync")]


def launches(dtype):
    """(name, a function that launches one kernel): every tile of the tables, and each form of the kernels once."""

    def maps(group, fields, last=True):
        x = torch.empty(2, fields, group.order, 32, 32, dtype=dtype)
        return x.to(memory_format=torch.channels_last_3d) if last else x

    def bank(group, fields, banks=(), lifting=False):
        return torch.empty(*banks, fields, 1 if lifting else fields, *(() if lifting else (group.order,)), 3, 3, dtype=dtype)

    planar = ([1, 1], [1, 1], [1, 1], 1)
    # float32 has one tile for all fields.
    half = dtype.itemsize == 2
    fields_of = {"C4": (10, 16, 32, 64), "D4": (10, 16, 32), "C2": (64,)} if half else {"C4": (10, 32), "D4": (32,)}
    for name, several in fields_of.items():
        group = PointGroup(name)
        for fields in several:
            x, weight = maps(group, fields), bank(group, fields)
            transformed = weight.new_empty(weight.numel())
            of = f"{name} {fields}"
            yield f"irrep_fprop {of}", lambda: irrep_fprop.irrep_fprop(x, weight, None, None, None, name, "output", *planar, False)
            yield f"irrep_fprop {of} transformed", lambda: irrep_fprop.irrep_fprop(x, weight, None, None, transformed, name, "output", *planar, False)
            yield f"irrep_dgrad {of} masked", lambda: irrep_fprop.irrep_dgrad(x, weight, None, x, name, "output", [32, 32], *planar)
            yield f"irrep_wgrad {of} masked", lambda: irrep_wgrad.irrep_wgrad(x, x, None, x, name, "output", 3, *planar)
            yield f"fused_fprop {of}", lambda: fused.fused_fprop(x, weight, None, None, None, name, "output", *planar, False)
            yield f"fused_wgrad {of}", lambda: fused.fused_wgrad(x, x, None, None, name, "output", 3, *planar)
    for name, fields in (("C4", 6), ("C4", 32), ("D4", 8), ("D4", 32)) if half else (("C4", 6), ("D4", 32)):
        group, of = PointGroup(name), f"{name} {fields}"
        x, banks, relaxed_weight = maps(group, fields, last=False), bank(group, fields, (3,)), torch.empty(3, group.order, dtype=dtype)
        for relax_on in ("input", "output"):
            relaxed = (relaxed_weight, torch.empty(fields, dtype=dtype), None, name, relax_on, *planar, True)
            yield f"irrep_fprop {of} relaxed {relax_on} rows relu", lambda: irrep_fprop.irrep_fprop(x, banks, *relaxed)
            yield f"fused_fprop {of} relaxed {relax_on} rows relu", lambda: fused.fused_fprop(x, banks, *relaxed)
            yield f"fused_wgrad {of} relaxed {relax_on} rows", lambda: fused.fused_wgrad(x, x, relaxed_weight, None, name, relax_on, 3, *planar)
        image = torch.empty(2, 1, 32, 32, dtype=dtype)
        yield f"irrep_fprop {of} lifting", lambda: irrep_fprop.irrep_fprop(image, bank(group, fields, (), True), None, None, None, name, "output", *planar, False)
        strided = ([2, 2], [1, 1], [1, 1], 1)
        dy = maps(group, fields)[..., ::2, ::2].contiguous(memory_format=torch.channels_last_3d)
        yield f"irrep_dgrad {of} strided wide", lambda: irrep_fprop.irrep_dgrad(dy, bank(group, fields), None, None, name, "output", [32, 32], *strided)
        yield f"irrep_wgrad {of} wide", lambda: irrep_wgrad.irrep_wgrad(x, x, None, None, name, "output", 3, *planar)
        yield f"fused_fprop {of} wide", lambda: fused.fused_fprop(x, bank(group, fields), None, None, None, name, "output", *planar, False)
        yield f"fused_wgrad {of} wide", lambda: fused.fused_wgrad(x, x, None, None, name, "output", 3, *planar)
        yield f"irrep_dgrad {of} strided", lambda: irrep_fprop.irrep_dgrad(dy, bank(group, fields), None, None, name, "output", [32, 32], *strided)
        yield f"fused_dgrad {of} strided", lambda: fused.fused_dgrad(dy, bank(group, fields), None, None, name, "output", [32, 32], *strided)
        yield f"expand_filter {of} relaxed", lambda: expand_filter.expand_filter(banks, relaxed_weight, name, "input")
        grad = torch.empty(fields * group.order, fields * group.order, 3, 3, dtype=dtype)
        yield f"expand_filter_backward {of} relaxed", lambda: expand_filter.expand_filter_backward(grad, banks, relaxed_weight, name, "input", [True, True])
    for fields, elements in ((32, 1), (16, 4)):
        x, weight = torch.empty(2, fields, elements, 8, 8, dtype=dtype), torch.empty(fields, fields, 32, dtype=dtype)
        hidden = torch.empty(8, 8, elements, elements, 9, 32, dtype=dtype)
        yield f"contract_fprop {elements} {fields}", lambda: contract.contract_fprop(x, hidden, weight, 1, 1)
        yield f"contract_backward {elements} {fields}", lambda: contract.contract_backward(x, x, hidden, weight, 1, 1, [True] * 3)


def main(arch, text=""):
    kernels, seen = compile_instead_of_launching(arch), set()
    for dtype in (torch.bfloat16, torch.float32):
        for name, launch in launches(dtype):
            name = f"{name} {str(dtype).removeprefix('torch.')}"
            if text not in name:
                continue
            kernels.clear()
            for module in (fused, irrep_fprop, irrep_wgrad):  # as of maps past 2³¹ numbers
                module.is_wide = lambda *maps: "wide" in name
            launch()
            for kernel in kernels:
                if kernel.hash not in seen:  # other fields, the same tile
                    seen.add(kernel.hash)
                    print(json.dumps(dict(zip(COLUMNS, [name, kernel.name, arch, *resources(kernel)]))), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
