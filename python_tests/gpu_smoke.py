"""Runs each op that was compiled for CUDA at a small size, in every form: for compute-sanitizer, which makes them slow.

    compute-sanitizer --tool racecheck python python_tests/gpu_smoke.py
"""

import sys

import cases
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from gconv_ext import PointGroup, algorithms, ops

KINDS = ["lifting", "group", "relaxed lifting", "relaxed output", "relaxed input"]
COMPILED = {"dense": "expand_filter", "irrep": "irrep_fprop", "fused": "fused_fprop"}  # what each algorithm begins with


class Seen(TorchDispatchMode):
    """The names of our ops that ran."""

    names: set[str] = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.namespace == "gconv_ext":
            self.names.add(function.name().removeprefix("gconv_ext::"))
        return function(*args, **(kwargs or {}))


def main(device="cuda"):
    there = torch.device(device)
    for algorithm, op in COMPILED.items():
        if not ops.is_compiled(op, there):
            print(f"{algorithm}: {op} is not compiled for {device}")
            continue
        for dtype in (torch.float32, torch.bfloat16):
            for group in (PointGroup("C4"), PointGroup("D4")):
                for kind in KINDS:
                    run(algorithm, kind, group, dtype, there)
    if ops.is_compiled("irrep_fprop", there):  # Hopper GPUs have a kernel of their own for these
        run("irrep", "group", PointGroup("C4"), torch.bfloat16, there, in_fields=32, out_fields=40)
        run("irrep", "group", PointGroup("D4"), torch.bfloat16, there, in_fields=32, out_fields=24)
    every = {name for name, where in ops._compiled if where == there.type}
    print(f"ran: {', '.join(sorted(Seen.names))}")
    if not every or every - Seen.names:
        sys.exit(f"compiled for {device}, but not run: {', '.join(sorted(every - Seen.names)) or 'there is none'}")


def run(algorithm, kind, group, dtype, device, *, in_fields=5, out_fields=6):
    """One call without gradients, one with those of all arguments, and the transform of the weights alone."""
    made = cases.make(kind, group, in_fields=in_fields, out_fields=out_fields, size=(9, 10), dtype=dtype)
    inputs = [tensor.to(device) for tensor in made]
    if in_fields % 8 == 0:
        inputs[0] = inputs[0].contiguous(memory_format=torch.channels_last_3d)
    inputs = [tensor.requires_grad_() for tensor in inputs]
    if algorithms.support(algorithm, inputs[1]).why_not:
        return
    with torch.no_grad(), Seen():
        cases.call(kind, inputs, group, algorithm=algorithm, padding=1)
    with Seen():
        y = cases.call(kind, inputs, group, algorithm=algorithm, padding=1)
        torch.autograd.grad(y, inputs, torch.ones_like(y))
        if ops.is_compiled(f"{algorithm}_transform_weight", device):
            relaxed_weight = inputs[2] if "relaxed" in kind else None
            ops.transform_weight(algorithm, inputs[1], relaxed_weight, group.name, cases.relax_on(kind), 1)


if __name__ == "__main__":
    main(*sys.argv[1:])
