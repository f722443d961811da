"""What is shipped: the source distribution is whole, and without a compiler or without PyTorch an installation says what is
missing."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(*command, **options):
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, **options)


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    """Made in a copy of the tracked files, so that nothing is built or left in this tree."""
    copy = tmp_path_factory.mktemp("sdist") / "source"
    tracked = run("git", "ls-files", "-z", cwd=ROOT)
    if tracked.returncode:
        pytest.skip("not a git checkout")
    for name in filter(None, tracked.stdout.split("\0")):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, copy / name)
    done = run(sys.executable, "setup.py", "-q", "sdist", cwd=copy)
    assert done.returncode == 0, done.stderr
    (archive,) = (copy / "dist").glob("*.tar.gz")
    return archive


def test_the_source_distribution_is_whole(sdist):
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    tracked = run("git", "ls-files", "-z", cwd=ROOT).stdout.split("\0")
    needed = ("csrc/", "gconv_ext/", "bench/", "docs/", "examples/", "python_tests/")
    wanted = {name for name in tracked if name.startswith(needed) and not name.startswith("bench/results/")}
    wanted |= {"setup.py", "pyproject.toml", "CMakeLists.txt", "Makefile", "README.md", "ARCHITECTURE.md", "LICENSE", "mkdocs.yml"}
    assert wanted - inside == set()


def test_without_a_compiler_the_reference_path_is_installed(sdist, tmp_path):
    nothing = tmp_path / "bin"
    nothing.mkdir()
    environment = {name: value for name, value in os.environ.items() if name not in ("CXX", "CC", "PYTHONPATH")}
    built = run(
        sys.executable, "-m", "pip", "wheel", "-q", "--no-build-isolation", "--no-deps", "--no-index", "-w", tmp_path, sdist,
        env=environment | {"PATH": str(nothing)},
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        tracked = run("git", "ls-files", "gconv_ext", cwd=ROOT).stdout.split()
        assert set(tracked) <= set(archive.namelist())
        archive.extractall(tmp_path / "installed")
    code = (
        "import torch, gconv_ext; from gconv_ext.nn import GroupConv2d; from gconv_ext import ops;"
        "print(gconv_ext.__file__, GroupConv2d(2, 3, 3)(torch.randn(1, 2, 4, 5, 5)).shape, ops.missing_reason())"
    )
    used = run(sys.executable, "-c", code, cwd=tmp_path, env=environment | {"PYTHONPATH": str(tmp_path / "installed")})
    assert used.returncode == 0, used.stderr
    assert str(tmp_path) in used.stdout and "[1, 3, 4, 3, 3]" in used.stdout
    assert "no C++ compiler was found" in used.stdout and "install g++" in used.stdout


def test_without_pytorch_the_build_says_what_to_type(sdist, tmp_path):
    """As in an isolated build, which does not see the installed PyTorch."""
    (tmp_path / "torch.py").write_text("raise ImportError(\"No module named 'torch'\")\n")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path / "source", filter="data")
    (source,) = (tmp_path / "source").iterdir()
    done = run(sys.executable, "setup.py", "bdist_wheel", cwd=source, env=os.environ | {"PYTHONPATH": str(tmp_path)})
    assert done.returncode != 0
    assert "pip install --no-build-isolation ." in done.stderr and "No module named 'torch'" in done.stderr


def test_the_compiled_library_carries_no_debugging_symbols():
    """They would be nine tenths of it, and Python's own compiler flags ask for them."""
    libraries = list((ROOT / "gconv_ext").glob("_C*.so"))
    if not libraries:
        pytest.skip("the compiled ops were not built")
    assert [b".debug_info" in library.read_bytes() for library in libraries] == [False]
