"""Builds the compiled extension.  Everything else about the package is in pyproject.toml.

Two modules come out: `_C`, the ops (loaded through torch.ops, no Python module of its own), and `_build_info`,
a small pybind11 module.  Without a C++ compiler the package installs without them, and says so.
"""

import os
import shutil
import sys
from pathlib import Path

from setuptools import Extension, setup

CSRC = Path("csrc")
NEEDS_TORCH = """
gconv_ext compiles against the PyTorch that it will run with, so PyTorch must be installed first, and the build must see it:

    pip install "torch>=2.10" setuptools wheel ninja pybind11 numpy
    pip install --no-build-isolation .
"""


def sources() -> list[str]:
    """The files listed in csrc/sources.txt."""
    lines = (line.split() for line in (CSRC / "sources.txt").read_text().splitlines())
    return [str(CSRC / fields[1]) for fields in lines if fields and not fields[0].startswith("#")]


def compiler() -> str | None:
    return shutil.which(os.environ.get("CXX", "").split(" ")[0] or "c++") or shutil.which("g++") or shutil.which("clang++")


def extensions() -> dict:
    try:
        import pybind11
        import torch
        from torch.utils.cpp_extension import BuildExtension, CppExtension
    except ImportError as error:
        sys.exit(f"{error}\n{NEEDS_TORCH}")
    if compiler() is None:
        print("gconv_ext: no C++ compiler found; installing without the compiled ops (reference path only)", file=sys.stderr)
        return {}
    # One compiler a gigabyte of memory, unless the user has said otherwise.
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    os.environ.setdefault("MAX_JOBS", str(max(1, min(os.cpu_count() or 1, int(memory_gib)))))
    headers = [str(path) for path in CSRC.rglob("*.h")]
    # Exact equivariance needs every pixel's sums contracted alike, so the rule is stated, and never -ffast-math.
    flags = ["-O3", "-fopenmp", "-Wall", "-fvisibility=hidden", "-ffp-contract=fast"]
    return {
        "ext_modules": [
            CppExtension("gconv_ext._C", sources(), depends=headers, extra_compile_args=flags, extra_link_args=["-fopenmp"]),
            Extension("gconv_ext._build_info", [str(CSRC / "build_info.cpp")], depends=headers, language="c++",
                      include_dirs=[pybind11.get_include()], extra_compile_args=["-std=c++17", *flags],
                      define_macros=[("GCONV_TORCH_VERSION", f'"{torch.__version__}"')]),
        ],
        "cmdclass": {"build_ext": BuildExtension},
    }


# `sdist`, `egg_info` and the like need no compiler and no torch.
BUILDS = {"build", "build_ext", "bdist_wheel", "editable_wheel", "develop", "install"}
setup(**(extensions() if BUILDS & set(sys.argv) else {}))
