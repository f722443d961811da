"""Networks as training leaves them: normalisation that is not the identity."""

import torch


def randomise_norms(network):
    """Random statistics, scales and shifts for every batch norm; returns the network in eval mode."""
    for module in network.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            torch.nn.init.normal_(module.running_mean, std=0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, std=0.1)
    return network.eval()
