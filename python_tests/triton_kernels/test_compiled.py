"""What the Triton kernels compile to, for GPUs that need not be there."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SHARED = {80: 163 << 10, 90: 227 << 10}  # bytes that one program may have


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """What every kernel needs on each architecture; the two are compiled side by side."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}

    def compile(arch):
        cache = {"TRITON_CACHE_DIR": str(tmp_path_factory.mktemp(f"sm_{arch}"))}
        command = [sys.executable, str(Path(__file__).with_name("compile_all.py")), str(arch)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment | cache)

    running = [compile(arch) for arch in SHARED]
    outputs = [process.communicate()[0] for process in running]
    assert all(process.returncode == 0 for process in running)
    return [json.loads(line) for output in outputs for line in output.splitlines()]


def test_nothing_spills(rows):
    assert {row["arch"] for row in rows} == set(SHARED) and len(rows) > 150
    spilling = [row for row in rows if row["stack"]]  # where registers are spilled to
    assert not spilling, spilling


def test_shared_memory_suffices(rows):
    too_much = [row for row in rows if row["shared"] > SHARED[row["arch"]]]
    assert not too_much, too_much


MULTIPLIES = (
    "irrep_fprop_kernel", "irrep_wgrad_kernel", "fused_fprop_kernel", "fused_wgrad_kernel",
    "contract_fprop_kernel", "contract_hgrad_kernel", "contract_wgrad_kernel",
)  # fmt: skip


def test_16_bit_products_are_on_the_tensor_cores_and_exact_ones_are_not(rows):
    assert {row["kernel"] for row in rows} > set(MULTIPLIES)
    for row in rows:
        if row["kernel"] in MULTIPLIES:
            assert bool(row["hmma"] + row["hgmma"]) == ("bfloat16" in row["call"]), row


def test_hopper_has_its_own_instruction(rows):
    chosen = [row for row in rows if row["arch"] == 90 and row["kernel"] == "irrep_fprop_kernel" and "bfloat16" in row["call"]]
    # With 64-bit offsets the registers do not hold the larger tile that it takes.
    chosen = [row for row in chosen if "wide" not in row["call"]]
    assert chosen and all(row["hgmma"] for row in chosen)
