"""Trains fast p4 layers with torchrun, on one machine or several, on the digits that ship with gconv_ext.

torchrun --standalone --nproc-per-node 4 examples/train_distributed.py [--epochs 3] [--batch-size 256]
torchrun --nnodes 2 --nproc-per-node 4 --rdzv-backend c10d --rdzv-endpoint HOST:29500 examples/train_distributed.py
"""

import argparse
import os

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from gconv_ext import nn as gnn
from gconv_ext.data import load_digits


def digits(split: str) -> TensorDataset:
    images, labels = map(torch.tensor, load_digits().splits[split])
    return TensorDataset(images.unsqueeze(1) / 255, labels.long())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=256, help="of all processes together")
    options = parser.parse_args()
    on_gpu = torch.cuda.is_available()
    dist.init_process_group("nccl" if on_gpu else "gloo")
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if on_gpu else torch.device("cpu")
    torch.manual_seed(0)  # every process starts from the same weights
    c4 = dict(kernel_size=3, padding=1, group="C4", activation="relu")
    network = torch.nn.Sequential(
        gnn.LiftingConv2d(1, 8, **c4), gnn.SpatialMaxPool2d(2), gnn.GroupConv2d(8, 16, **c4), gnn.SpatialMaxPool2d(2),
        gnn.GroupConv2d(16, 16, **c4), gnn.GroupGlobalPool("max"), torch.nn.Linear(16, 10),
    ).to(device)  # fmt: skip
    model = DistributedDataParallel(network)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    train = digits("train")
    sampler = DistributedSampler(train)  # each process has its share of every epoch
    loader = DataLoader(train, options.batch_size // dist.get_world_size(), sampler=sampler, drop_last=True)
    for epoch in range(options.epochs):
        sampler.set_epoch(epoch)
        for x, y in loader:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x.to(device)), y.to(device))
            loss.backward()
            optimizer.step()
        mean = loss.detach() / dist.get_world_size()
        dist.all_reduce(mean)
        if dist.get_rank() == 0:
            print(f"epoch {epoch + 1}: loss {mean.item():.3f}")
    if dist.get_rank() == 0:
        x, y = digits("test").tensors
        right = (network.eval()(x.to(device)).argmax(1) == y.to(device)).float().mean().item()
        print(f"{dist.get_world_size()} processes, test accuracy {right:.1%}")
    dist.barrier()  # none leaves while another still computes
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
