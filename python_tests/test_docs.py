"""The documentation: every Python block runs, every page is in the navigation, the pictures can be drawn again, the site builds."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_python_blocks(page):
    """One after the other, as a reader would type them."""
    names = {}
    for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
        exec(block, names)


def test_navigation():
    named = re.findall(r": (\w+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert sorted(named) == [page.name for page in PAGES]


def test_pictures(tmp_path):
    script = runpy.run_path(str(ROOT / "docs" / "make_pictures.py"))
    script["main"].__globals__["PICTURES"] = tmp_path
    script["main"]()
    drawn = {path.name for path in tmp_path.iterdir()}
    shown = set(re.findall(r"\(pictures/(\S+)\)", "".join(page.read_text() for page in PAGES)))
    assert drawn == shown == {path.name for path in (ROOT / "docs" / "pictures").iterdir()}


def test_site(tmp_path):
    """Without a warning: no link leads nowhere, every name of the reference is found."""
    pytest.importorskip("mkdocs", reason="pip install 'gconv_ext[docs]'")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    reference = (tmp_path / "reference.html").read_text()
    assert all(f'id="gconv_ext.{name}"' in reference for name in ("nn.GroupConv2d", "functional.group_conv2d"))
