"""What each CUDA kernel takes of the machine, read from the report of `nvcc -Xptxas -v`."""

import re
import shutil
import subprocess
from dataclasses import dataclass


@dataclass
class Kernel:
    name: str
    arch: str
    registers: int = 0
    shared_bytes: int = 0  # static; dynamic shared memory is the launcher's affair
    stack_bytes: int = 0
    spill_bytes: int = 0  # stores and loads

    def __str__(self) -> str:
        return (
            f"{self.name} ({self.arch}): {self.registers} registers, {self.shared_bytes} bytes of shared memory, "
            f"{self.stack_bytes} bytes of stack frame, {self.spill_bytes} bytes spilled"
        )


def parse(report: str) -> list[Kernel]:
    """The kernels of a report, in its order.  Stack and spills include those of functions that were not inlined."""
    kernels = []
    for line in report.splitlines():
        if found := re.search(r"Compiling entry function '(\w+)' for '(\w+)'", line):
            kernels.append(Kernel(*found.groups()))
        elif found := re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", line):
            stack, stores, loads = map(int, found.groups())
            kernels[-1].stack_bytes += stack
            kernels[-1].spill_bytes += stores + loads
        elif found := re.search(r"Used (\d+) registers", line):
            kernels[-1].registers = int(found[1])
            if shared := re.search(r"(\d+)(?:\+\d+)? bytes smem", line):
                kernels[-1].shared_bytes = int(shared[1])
    for kernel, name in zip(kernels, _readable([kernel.name for kernel in kernels])):
        kernel.name = name
    return kernels


def _readable(names: list[str]) -> list[str]:
    """kernel<type> for mangled names, where there is c++filt; else as they are."""
    if not names or not shutil.which("c++filt"):
        return names
    done = subprocess.run(["c++filt", "-p"], input="\n".join(names), capture_output=True, text=True, check=True)
    return [re.sub(r"^void |\(anonymous namespace\)::|\w+::", "", name) for name in done.stdout.splitlines()]


def table(kernels: list[Kernel]) -> str:
    """As Markdown."""
    lines = ["| kernel | architecture | registers | shared memory | stack frame | spills |", "|---|---|---:|---:|---:|---:|"]
    for k in kernels:
        lines.append(f"| {k.name} | {k.arch} | {k.registers} | {k.shared_bytes} | {k.stack_bytes} | {k.spill_bytes} |")
    return "\n".join(lines)
