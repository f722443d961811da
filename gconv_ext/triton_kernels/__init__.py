"""The same ops in Triton, for GPUs: a family of its own (triton_irrep, triton_fused, triton_contract), and the filter expansion wherever it was
not compiled for CUDA.

Importing this defines the ops; Triton itself is imported by the first call.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os

import torch

from ..ops import register_rules

_TENSORS = "Tensor weight, Tensor? relaxed_weight"
_OPTIONS = "int[] stride, int[] padding, int[] dilation, int groups"
_PASSES = {
    "fprop": f"Tensor x, {_TENSORS}, Tensor? bias, Tensor? transformed_weight, str group, str relax_on, {_OPTIONS}, bool relu",
    "dgrad": f"Tensor dy, {_TENSORS}, Tensor? activated, str group, str relax_on, SymInt[] input_size, {_OPTIONS}",
    "wgrad": f"Tensor x, Tensor dy, Tensor? relaxed_weight, Tensor? activated, str group, str relax_on, int kernel_size, {_OPTIONS}",
}
# Name of the op -> (schema, module and function that launches the kernel).
OPS = {
    "triton_irrep_fprop": (f"{_PASSES['fprop']}) -> Tensor", "irrep_fprop", "irrep_fprop"),
    "triton_irrep_dgrad": (f"{_PASSES['dgrad']}) -> Tensor", "irrep_fprop", "irrep_dgrad"),
    "triton_irrep_wgrad": (f"{_PASSES['wgrad']}) -> Tensor", "irrep_wgrad", "irrep_wgrad"),
    "triton_irrep_transform_weight": (f"{_TENSORS}, str group, str relax_on, int groups) -> Tensor", "irrep_fprop", "irrep_transform_weight"),
    "triton_fused_fprop": (f"{_PASSES['fprop']}) -> Tensor", "fused", "fused_fprop"),
    "triton_fused_dgrad": (f"{_PASSES['dgrad']}) -> Tensor", "fused", "fused_dgrad"),
    "triton_fused_wgrad": (f"{_PASSES['wgrad']}) -> Tensor", "fused", "fused_wgrad"),
    "triton_contract_fprop": ("Tensor x, Tensor hidden, Tensor weight, int stride, int padding) -> Tensor", "contract", "contract_fprop"),
    "triton_contract_backward": (
        "Tensor dy, Tensor x, Tensor hidden, Tensor weight, int stride, int padding, bool[3] output_mask) "
        "-> (Tensor grad_x, Tensor grad_hidden, Tensor grad_weight)",
        "contract", "contract_backward",
    ),
    "expand_filter": (f"{_TENSORS}, str group, str relax_on) -> Tensor", "expand_filter", "expand_filter"),
    "expand_filter_backward": (
        f"Tensor grad_filter, {_TENSORS}, str group, str relax_on, bool[2] output_mask) -> (Tensor grad_weight, Tensor grad_relaxed_weight)",
        "expand_filter", "expand_filter_backward",
    ),
}  # fmt: skip

# Triton's interpreter, which runs kernels on the CPU for their tests; it must be chosen before Triton is imported.
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


@functools.cache
def missing_reason() -> str | None:
    """Why the Triton kernels cannot run, or None when they can."""
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed; pip install triton"
    if INTERPRETED:
        return None
    if not torch.cuda.is_available():
        return "PyTorch sees no GPU"
    major, minor = torch.cuda.get_device_capability()
    if torch.version.hip is None and major < 8:
        return f"they need compute capability 8.0 or newer, got {major}.{minor}"
    return None


def runs_on(device: torch.device) -> bool:
    return device.type == "cuda" or (INTERPRETED and device.type == "cpu")


def _define() -> torch.library.Library:
    library = torch.library.Library("gconv_ext", "FRAGMENT")
    has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key
    for name, (schema, module, function) in OPS.items():

        def launch(*args, module=module, function=function):
            return getattr(importlib.import_module(f".{module}", __name__), function)(*args)

        if not hasattr(torch.ops.gconv_ext, name):
            library.define(f"{name}({schema}")
            register_rules(name)
        keys = ["CUDA", "CPU"] if INTERPRETED else ["CUDA"]
        for key in keys:
            if not has_kernel(f"gconv_ext::{name}", key):
                library.impl(name, launch, key)
    return library


_library = _define()  # the ops live as long as this does
