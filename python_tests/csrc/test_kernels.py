"""Builds the torch-free kernels with CMake, under AddressSanitizer and UndefinedBehaviorSanitizer, and runs their C++ tests."""

import shutil
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).parents[2]


def tool(name):
    """From the environment that runs the tests (the wheels of cmake and ninja), else from the system."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    assert found, f"{name} is needed to build the C++ tests; pip install {name}"
    return found


def test_kernels_under_sanitizers(tmp_path):
    def run(*command):
        result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert result.returncode == 0, result.stdout
        return result.stdout

    run(tool("cmake"), "-S", SOURCE, "-B", tmp_path, "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={tool('ninja')}", "-DGCONV_SANITIZE=ON")
    run(tool("cmake"), "--build", tmp_path)
    output = run(tool("ctest"), "--test-dir", tmp_path, "--output-on-failure", "--verbose")
    assert "0 failures" in output and "100% tests passed" in output
