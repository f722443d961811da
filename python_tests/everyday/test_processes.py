"""Training by two processes: distributed data parallel, and parameters in shards (FSDP2)."""

import os

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
from networks import small_network
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

ALGORITHMS = ("irrep", "dense")


def images():
    generator = torch.Generator().manual_seed(2)
    return torch.randn(4, 1, 10, 10, generator=generator), torch.randn(4, 3, generator=generator)


def train(network, x, y):
    """Two steps of SGD."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        (network(x) - y).square().mean().backward()
        optimizer.step()


def whole(value):
    return value.full_tensor() if isinstance(value, DTensor) else value


def sharded(network):
    mesh = init_device_mesh("cpu", (2,))
    for layer in network:
        if list(layer.parameters()):
            fully_shard(layer, mesh=mesh)
    return fully_shard(network, mesh=mesh)


WAYS = {"DDP": DistributedDataParallel, "FSDP2": sharded}


def work(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    x, y = (values[rank::2] for values in images())
    for way in WAYS:
        for algorithm in ALGORITHMS:
            network = WAYS[way](small_network(algorithm, norm=False))
            train(network, x, y)
            assert way == "DDP" or all(isinstance(p, DTensor) for p in network.parameters())
            state = {name.removeprefix("module."): whole(value) for name, value in network.state_dict().items()}
            with torch.no_grad():  # what is kept of the weights must not outlive their shards
                results = network.eval()(images()[0]), network(images()[0])
            if rank == 0:
                torch.save((state, *results), f"{folder}/{way} {algorithm}")
    dist.barrier()
    dist.destroy_process_group()
    os._exit(0)  # PyTorch's threads may still run, and abort a process that takes its leave of them


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    torch.multiprocessing.spawn(work, (str(folder),), nprocs=2)
    return folder


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("way", WAYS)
def test_two_processes_train_as_one_does(trained, way, algorithm):
    network = small_network(algorithm, norm=False)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    train(network, *images())
    state, *results = torch.load(trained / f"{way} {algorithm}")
    assert list(state) == list(before)
    for name, value in network.state_dict().items():
        assert not torch.equal(value, before[name]), name
        assert torch.allclose(state[name], value, rtol=1e-4, atol=1e-6), name
    for result in results:
        assert torch.allclose(result, network(images()[0]), rtol=1e-4, atol=1e-5)
