"""Builds the compiled extension.  Everything else about the package is in pyproject.toml.

Two modules come out: `_C`, the ops (loaded through torch.ops, no Python module of its own), and `_build_info`,
a small pybind11 module.  Without a C++ compiler the package installs without them, and says so.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup

CSRC = Path("csrc")
NEEDS_TORCH = """
gconv_ext compiles against the PyTorch that it will run with, so PyTorch must be installed first, and the build must see it:

    pip install "torch>=2.10" setuptools wheel ninja pybind11 numpy
    pip install --no-build-isolation .
"""


def sources(*kinds: str) -> list[str]:
    """The files of these kinds that csrc/sources.txt lists."""
    lines = (line.split() for line in (CSRC / "sources.txt").read_text().splitlines())
    return [str(CSRC / fields[1]) for fields in lines if fields and fields[0] in kinds]


def compiler() -> str | None:
    return shutil.which(os.environ.get("CXX", "").split(" ")[0] or "c++") or shutil.which("g++") or shutil.which("clang++")


def nvcc() -> tuple[str | None, str]:
    """The CUDA compiler, or None and why the CUDA kernels are not built.  That torch and the compiler have CUDA decides, not
    whether a GPU is there now."""
    import torch
    from torch.utils.cpp_extension import CUDA_HOME

    forced = os.environ.get("FORCE_CUDA") == "1"
    if torch.__version__ < (2, 11):  # torch.__version__ compares as a version
        if forced:
            sys.exit(f"FORCE_CUDA=1 asks for the CUDA kernels, which need torch 2.11 or newer; this is {torch.__version__}")
        return None, f"not built: they need torch 2.11 or newer, this is {torch.__version__}"
    if torch.version.cuda is None and not forced:
        return None, f"not built: torch {torch.__version__} is built without CUDA (FORCE_CUDA=1 builds them all the same)"
    home = os.environ.get("CUDA_HOME") or CUDA_HOME  # which torch looks for only where it has CUDA
    found = shutil.which("nvcc", path=f"{home}/bin" if home else None)
    if forced and found is None:
        sys.exit("FORCE_CUDA=1 asks for the CUDA kernels, but nvcc was not found; put it on PATH, or set CUDA_HOME")
    return found, "" if found else "not built: nvcc was not found; put it on PATH, or set CUDA_HOME, and install again"


class Cuda:
    """The CUDA kernels: plain nvcc without torch's headers, and the CUDA runtime linked into the extension."""

    def __init__(self, nvcc: str):
        from torch.utils.cpp_extension import _get_cuda_arch_flags

        self.nvcc = nvcc
        # Code for A100 and its like and for Hopper, and PTX from which drivers compile for all that is newer.
        named = re.split("[ ;]+", os.environ.get("TORCH_CUDA_ARCH_LIST", "8.0+PTX;9.0a"))
        supported = [name for name in named if not re.match(r"[1-7]\.", name)]
        if supported != named:
            print(f"gconv_ext: the CUDA kernels need 8.0 or newer; of TORCH_CUDA_ARCH_LIST only {supported} is built", file=sys.stderr)
        if not supported:
            sys.exit(f"TORCH_CUDA_ARCH_LIST names {' '.join(named)}, and the CUDA kernels need 8.0 or newer")
        self.architectures = os.environ["TORCH_CUDA_ARCH_LIST"] = ";".join(supported)
        self.flags = ["-O3", "--expt-relaxed-constexpr", "-Xcompiler=-fPIC,-fvisibility=hidden", *_get_cuda_arch_flags()]
        if any(name.startswith("9.0a") for name in supported):
            self.flags.append("-DGCONV_SM90A")  # the code that Hopper alone has is there
        plan = subprocess.run([nvcc, "--dryrun", "-x", "cu", "-c", os.devnull], capture_output=True, text=True, check=True).stderr
        includes, libraries = (shlex.split(re.search(rf"^#\$ {name}=(.*)$", plan, re.M)[1]) for name in ("INCLUDES", "LIBRARIES"))
        self.cxx_flags = includes
        # The runtime's symbols stay inside: torch brings a runtime of its own.
        self.link_flags = [*libraries, "-lcudart_static", "-ldl", "-lrt", "-lpthread", "-Wl,--exclude-libs,libcudart_static.a"]

    def __str__(self) -> str:
        import torch

        said = subprocess.run([self.nvcc, "--version"], capture_output=True, text=True, check=True).stdout
        version = re.search(r"V([0-9.]+)", said)[1]
        built = f"built with nvcc {version} for {self.architectures.replace(';', ' ')}"
        if torch.version.cuda and torch.version.cuda.split(".")[0] != version.split(".")[0]:
            # The runtime inside may ask for a newer driver than torch's does.
            built += f"; torch has CUDA {torch.version.cuda}, an nvcc of the same major version is the safer choice"
        return built

    def compile(self, source: str, headers: list[str], folder: Path) -> str:
        """The object file of a .cu file, made anew where something is newer."""
        target = folder / self.architectures.replace(";", "_") / Path(source).with_suffix(".cu.o")
        if target.exists() and target.stat().st_mtime > max(Path(file).stat().st_mtime for file in [source, *headers]):
            return str(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        command = [self.nvcc, *self.flags, "-c", source, "-o", str(target)]
        print(shlex.join(command), flush=True)
        subprocess.run(command, check=True)
        return str(target)


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
    # Python's own flags ask for debugging symbols, which would be nine tenths of the extension: -g0.
    flags = ["-O3", "-g0", "-fopenmp", "-Wall", "-fvisibility=hidden", "-ffp-contract=fast"]
    found, why_not = nvcc()
    cuda = Cuda(found) if found else None

    class Build(BuildExtension):
        def build_extensions(self):
            self.force = True  # setuptools looks at dates alone; ninja also sees other flags, such as those of CUDA
            if cuda:
                with ThreadPoolExecutor(int(os.environ["MAX_JOBS"])) as pool:
                    objects = pool.map(lambda file: cuda.compile(file, headers, Path(self.build_temp)), sources("cuda"))
                    self.extensions[0].extra_objects += objects
            super().build_extensions()

    return {
        "ext_modules": [
            CppExtension("gconv_ext._C", sources("binding", "kernel", *["cuda_binding"] * bool(cuda)),
                         depends=headers, extra_compile_args=flags + (cuda.cxx_flags if cuda else []),
                         extra_link_args=["-fopenmp"] + (cuda.link_flags if cuda else [])),
            Extension("gconv_ext._build_info", [str(CSRC / "build_info.cpp")], depends=headers, language="c++",
                      include_dirs=[pybind11.get_include()], extra_compile_args=["-std=c++17", *flags],
                      define_macros=[("GCONV_TORCH_VERSION", f'"{torch.__version__}"'),
                                     ("GCONV_CUDA_INFO", f'"{cuda or why_not}"')]),
        ],
        "cmdclass": {"build_ext": Build},
    }


# `sdist`, `egg_info` and the like need no compiler and no torch.
BUILDS = {"build", "build_ext", "bdist_wheel", "editable_wheel", "develop", "install"}
setup(**(extensions() if BUILDS & set(sys.argv) else {}))
