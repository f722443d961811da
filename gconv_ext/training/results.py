"""Results files: JSON lines, one row a run, each with what it takes to make it again."""

from __future__ import annotations

import json
import platform
import subprocess
from importlib import metadata
from pathlib import Path

import torch

from ..errors import InputError


def versions() -> dict:
    """Versions and device of this process, and the commit when this is a checkout."""
    from .. import __version__

    return {
        "gconv_ext": __version__,
        "commit": commit(),
        "torch": torch.__version__,
        "pytorch_lightning": metadata.version("pytorch-lightning"),
        "python": platform.python_version(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else _processor(),
        "threads": torch.get_num_threads(),
    }


def _processor() -> str:
    """The processor's own name, with what PyTorch uses of it."""
    names = [line.split(":")[1].strip() for line in _lines(Path("/proc/cpuinfo")) if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()} ({torch.backends.cpu.get_cpu_capability()})"


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def commit() -> str | None:
    """The checkout's commit, with "+" when files other than results differ from it; None outside a checkout."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    try:
        git = ["git", "-C", str(root)]
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        status = [*git, "status", "--porcelain", "-uno", "--", ".", ":!results"]
        changed = subprocess.run(status, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return head + "+" * bool(changed.strip())


def append_row(path: Path, row: dict) -> None:
    """Adds one line; earlier lines stay."""
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")


def read_rows(path: Path) -> list[dict]:
    """All rows; an empty list when there is no file.

    Raises:
        InputError: a line that is not JSON.
    """
    rows = []
    for number, line in enumerate(_lines(path), 1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise InputError(f"{path}, line {number}: not JSON ({error})") from error
    return rows


def check_same(wanted: dict, found: dict, where: Path) -> None:
    """Refuses to go on with the results of another configuration.

    Raises:
        InputError: `found`, the configuration in the file `where`, differs from `wanted`.
    """
    different = [key for key in wanted if wanted[key] != found.get(key)]
    if different:
        listed = ", ".join(f"{key} = {found.get(key)!r} there and {wanted[key]!r} here" for key in different)
        raise InputError(f"{where} is of another configuration: {listed}; give the same options, or another --out")
