import os

if "PYTEST_XDIST_WORKER" in os.environ:
    # Before anything starts OpenMP's threads: those of one process must not spin on the cores of the others.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import pytest
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # before anything imports Triton

from gconv_ext import PointGroup
from gconv_ext import ops

GROUPS = ["C1", "C2", "C4", "D1", "D2", "D4"]


def pytest_collectstart(collector):
    if isinstance(collector, pytest.Module):  # the data that a module draws while it is imported
        torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(params=GROUPS)
def group(request):
    return PointGroup(request.param)


@pytest.fixture(params=["lifting", "group", "relaxed lifting", "relaxed output", "relaxed input"])
def kind(request):
    """The five kinds of convolution."""
    return request.param


@pytest.fixture(autouse=True, scope="session")
def _compiled_ops_are_there():
    # The suite tests the compiled ops; where they are missing it must fail, not skip.
    assert ops.missing_reason() is None, ops.missing_reason()
