"""Many calls, many threads, child processes, and interrupts."""

import gc
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from networks import small_network
from torch.utils.data import DataLoader, Dataset

from gconv_ext import functional, nn

ALGORITHMS = ["irrep", "dense"]


def resident():
    """Bytes of this process in memory."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read where Linux tells it")
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_many_calls_leave_memory_flat(algorithm):
    """3,400 times three calls: with gradients, without (where results are kept with the weights), and with weights of
    its own, which must take what is kept of them along.  A map leaked each time would be 210 MiB, a filter 31 MiB."""
    layer, x = nn.GroupConv2d(4, 4, 3, padding=1, algorithm=algorithm), torch.randn(1, 4, 4, 32, 32)

    def call():
        layer(x.requires_grad_()).sum().backward()
        layer.zero_grad(set_to_none=True)
        x.grad = None
        with torch.no_grad():
            layer(x)
            functional.group_conv2d(x, torch.randn_like(layer.weight), group="C4", padding=1, algorithm=algorithm)

    def grown(calls):
        before = resident()
        for _ in range(calls):
            call()
        return resident() - before

    grown(300)
    assert grown(3400) < 4 << 20


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_many_threads(algorithm):
    """The same layers called by eight threads at once, with and without gradients, while another changes the weights of
    one of them to and fro."""
    network, x = small_network(algorithm).eval(), torch.randn(2, 1, 10, 10)
    other = nn.GroupConv2d(2, 2, 3, algorithm=algorithm).requires_grad_(False)
    y = torch.randn(1, 2, 4, 6, 6)
    want = network(x)
    gradient = torch.autograd.grad(want.square().sum(), network[4].weight)[0]
    other.bias.zero_()
    either = [other(y), 2 * other(y)]
    weights, done = [other.weight.clone(), 2 * other.weight], threading.Event()

    def change():
        while not done.is_set():
            for weight in weights:
                other.weight = torch.nn.Parameter(weight, requires_grad=False)

    def call(number):
        for _ in range(20):
            with torch.no_grad():
                assert torch.equal(network(x), want)
                result = other(y)
                assert any(torch.allclose(result, one, rtol=1e-5, atol=1e-6) for one in either)
            got = torch.autograd.grad(network(x).square().sum(), network[4].weight)[0]
            assert torch.allclose(got, gradient, rtol=1e-5, atol=1e-6)
        return number

    changer = threading.Thread(target=change)
    changer.start()
    try:
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(call, range(8))) == list(range(8))
    finally:
        done.set()
        changer.join()


class Mapped(Dataset):
    """Maps that workers compute with a layer."""

    def __init__(self, layer):
        self.layer, self.x = layer, torch.randn(4, 2, 4, 8, 8)

    def __len__(self):
        return len(self.x)

    @torch.no_grad()
    def __getitem__(self, index):
        return self.layer(self.x[index : index + 1])[0]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers(start):
    """Of a data loader, after the parent has computed on several threads and kept what it made of the weights."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for algorithm in ALGORITHMS if start == "fork" else ["irrep"]:
            layer = nn.GroupConv2d(2, 2, 3, algorithm=algorithm)
            maps = Mapped(layer)
            with torch.no_grad():
                want = layer(maps.x)
            workers = 2 if start == "fork" else 1
            loader = DataLoader(maps, 2, num_workers=workers, multiprocessing_context=start, timeout=60)
            assert torch.allclose(torch.cat(list(loader)), want, rtol=1e-5, atol=1e-6)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_interrupts(algorithm, request):
    """Ctrl-C at 60 moments: KeyboardInterrupt comes out, and the next call is right."""
    if request.config.pluginmanager.hasplugin("_cov"):
        pytest.skip("an interrupt while coverage holds a lock of its own would stop it for ever")
    network, x = small_network(algorithm).eval(), torch.randn(2, 1, 10, 10)
    with torch.no_grad():
        want = network(x)
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        for moment in range(60):
            weight = network[4].weight
            with torch.no_grad(), pytest.raises(KeyboardInterrupt):
                # Python prints and drops an exception of a weak reference's callback; so if the first comes there, another follows.
                signal.setitimer(signal.ITIMER_REAL, 1e-4 + 3e-5 * moment, 1)
                end = time.monotonic() + 10
                while time.monotonic() < end:
                    weight.copy_(weight.clone())
                    network(x)
                    network[4].weight = torch.nn.Parameter(weight.clone())  # so that nothing is kept of it yet
            signal.setitimer(signal.ITIMER_REAL, 0)
            with torch.no_grad():
                assert torch.equal(network(x), want)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
