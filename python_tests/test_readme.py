"""What the README shows is run, and what it and ARCHITECTURE.md name is there."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_python_blocks_of_the_readme():
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert blocks
    for block in blocks:
        exec(block, {})


def test_the_first_two_commands():
    blocks = re.findall(r"```\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert [block.strip() for block in blocks[:2]] == ["make demo", "make test"]


def test_named_files_exist():
    named = re.findall(r"\]\(([^)]+)\)", (ROOT / "README.md").read_text())
    assert named and all((ROOT / name).exists() for name in named)


def test_files_named_in_architecture():
    """Of the names in backquotes, those with a slash are paths."""
    named = re.findall(r"`(\w+/[\w./]*)`", (ROOT / "ARCHITECTURE.md").read_text())
    assert len(named) > 30 and [name for name in named if not (ROOT / name).exists()] == []


def test_example():
    done = subprocess.run([sys.executable, ROOT / "examples" / "train_digits.py", "--steps", "2"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "test accuracy" in done.stdout
