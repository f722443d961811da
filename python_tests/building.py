"""Building the C++ tests with CMake."""

import shutil
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).parents[1]


def tool(name):
    """From the environment that runs the tests (the wheels of cmake and ninja), else from the system."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    assert found, f"{name} is needed to build the C++ tests; pip install {name}"
    return found


def run(*command, environment=None):
    """What the command prints; it must succeed."""
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    assert result.returncode == 0, result.stdout
    return result.stdout


def configure(folder, *options):
    run(tool("cmake"), "-S", SOURCE, "-B", folder, "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={tool('ninja')}", *options)
