"""What a partial network saves where its layers learned small subsets (paper 4, Sec. 6): time and memory of a step.

    python examples/subset_cost.py [--width 32] [--elements 8] [--batch 16] [--rounds 5]

Sets θ in every layer of the CKResNet, and prints the elements of the layers, the processor time of a step (median of
interleaved rounds), and the bytes that autograd keeps for the backward pass.
"""

import argparse
import statistics
import time

import torch

from gconv_ext import create_model
from gconv_ext.nn import PartialGroupConv2d

formatter = argparse.ArgumentDefaultsHelpFormatter
parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], formatter_class=formatter)
parser.add_argument("--width", type=int, default=32)
parser.add_argument("--elements", type=int, default=8)
parser.add_argument("--batch", type=int, default=16)
parser.add_argument("--rounds", type=int, default=5)
options = parser.parse_args()

torch.manual_seed(0)
network = create_model("partial_ckresnet", width=options.width, elements=options.elements)
convolutions = [module for module in network.modules() if isinstance(module, PartialGroupConv2d)]
images = torch.randn(options.batch, 1, 28, 28)
extents = [1.0, 0.75, 0.5, 0.25, 0.125]


def step(theta):
    """(seconds of processor time, kept bytes, elements of the results) of one training step."""
    for convolution in convolutions:
        convolution.distribution.theta.data.fill_(theta)
    counts, kept = [], {}
    count = lambda convolution, args, result: counts.append(result.features.shape[2])
    hooks = [convolution.register_forward_hook(count) for convolution in convolutions]

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    start = time.process_time()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = network(images).square().mean()
    loss.backward()
    seconds = time.process_time() - start
    for hook in hooks:
        hook.remove()
    return seconds, sum(kept.values()), counts


rounds = [[step(theta) for theta in extents] for _ in range(options.rounds + 1)][1:]  # the first warms up
print("| θ | elements of the five layers | s a step | of θ = 1 | kept MB | of θ = 1 |\n|---|---|---|---|---|---|")
full_seconds = statistics.median(r[0][0] for r in rounds)
for i, theta in enumerate(extents):
    seconds, (_, kept, counts) = statistics.median(r[i][0] for r in rounds), rounds[0][i]
    print(
        f"| {theta:g} | {', '.join(map(str, counts))} | {seconds:.2f} | {seconds / full_seconds:.2f} "
        f"| {kept / 1e6:.0f} | {kept / rounds[0][0][1]:.2f} |"
    )
