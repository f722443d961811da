"""Smoke that rises: a relaxed network leaves the symmetry of a flow where buoyancy breaks it.

    python examples/flow.py [--buoyancy 0 1] [--size 32] [--states 48] [--steps 600]

Relaxed group convolutions were made for flows whose symmetry an outer field breaks (Wang, Walters & Yu 2022; paper 1).
The flow here is simulated: vorticity ω and smoke s in a periodic box of side 2π, by the Boussinesq equations in their
vorticity–streamfunction form, x along the columns and y up, against the rows:

    ∂ω/∂t + u·∇ω = ν∇²ω + b ∂s/∂x        ∇²ψ = −ω,  u = (∂ψ/∂y, −∂ψ/∂x)
    ∂s/∂t + u·∇s = ν∇²s

Turns move both fields as scalars (a mirror changes the sign of ω as well), so that p4 acts on them as on the channels
of an image.  Without buoyancy, b = 0, the equations are the same in every direction; with it they know which way is up.

A plain, a strict p4 and a relaxed p4 network of equal size learn the next frame from the one before, which determines
it.  Printed for each: the error of the predicted change on flows that it has not seen (1 is to predict no change), the
equivariance error, and for the relaxed one the spread of its weights over the elements (paper 1, Eq. 7).
"""

import argparse
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

import gconv_ext
from gconv_ext import nn as gnn


def simulate(
    state: Tensor, buoyancy: float, frames: int = 8, viscosity: float = 2e-3, interval: float = 0.2, substeps: int = 4
) -> Tensor:  # fmt: skip
    """Frames [B, frames, 2, N, N], `interval` apart, of the flow that starts with ω and s = state [B, 2, N, N].

    Pseudo-spectral: derivatives of Fourier modes, products on the grid, without aliasing by the 2/3 rule; `substeps`
    fourth-order Runge-Kutta steps from frame to frame.
    """
    size, dt = state.shape[-1], interval / substeps
    kx = torch.arange(size // 2 + 1, dtype=state.dtype, device=state.device)
    ky = -size * torch.fft.fftfreq(size, dtype=state.dtype, device=state.device)[:, None]
    square, kept = kx**2 + ky**2, (kx < size / 3) & (ky.abs() < size / 3)
    on_grid = partial(torch.fft.irfft2, s=(size, size))

    def rate(modes: Tensor) -> Tensor:
        along_x, along_y = 1j * kx * modes, 1j * ky * modes
        u, v = (on_grid(d[:, :1] / square.clamp(min=1)) for d in (along_y, -along_x))  # a mode of ψ is one of ω / k²
        carried = torch.fft.rfft2(u * on_grid(along_x) + v * on_grid(along_y))
        lifted = torch.cat([buoyancy * along_x[:, 1:], torch.zeros_like(modes[:, 1:])], 1)
        return kept * (lifted - carried) - viscosity * square * modes

    modes = kept * torch.fft.rfft2(state)
    seen = [on_grid(modes)]
    for _ in range(frames - 1):
        for _ in range(substeps):
            k1 = rate(modes)
            k2 = rate(modes + dt / 2 * k1)
            k3 = rate(modes + dt / 2 * k2)
            modes = modes + dt / 6 * (k1 + 2 * k2 + 2 * k3 + rate(modes + dt * k3))
        seen.append(on_grid(modes))
    return torch.stack(seen, 1)


def random_states(count: int, size: int, seed: int) -> Tensor:
    """States [count, 2, size, size], all directions alike: eddies, about three to a side, and three puffs of smoke."""
    generator = torch.Generator().manual_seed(seed)
    kx, ky = torch.arange(size // 2 + 1), size * torch.fft.fftfreq(size)[:, None]
    square = kx**2 + ky**2
    noise = torch.randn(count, size, size, generator=generator, dtype=torch.float64)
    eddies = torch.fft.irfft2(torch.fft.rfft2(noise) * square * torch.exp(-square / 8), s=(size, size))
    eddies = eddies / eddies.square().mean((1, 2), keepdim=True).sqrt()
    at = torch.arange(size) * (2 * torch.pi / size)
    x, y = 2 * torch.pi * torch.rand(2, count, 3, 1, 1, generator=generator, dtype=torch.float64)
    puffs = torch.exp(4 * (torch.cos(at - x) + torch.cos(at[:, None] - y) - 2)).sum(1)
    return torch.stack([eddies, puffs], 1)


def examples(flows: Tensor) -> tuple[Tensor, Tensor]:
    """Frames of flows [B, T, 2, N, N], and the change from each to the next, both [n, 2, N, N]."""
    return flows[:, :-1].flatten(0, 1), flows.diff(dim=1).flatten(0, 1)


def network(kind: str) -> torch.nn.Module:
    """Four periodic convolutions, [B, 2, N, N] -> the same, with about 8,000 parameters for every kind."""
    options = dict(kernel_size=3, padding=1, padding_mode="circular")
    if kind == "plain":
        lift, conv, width, pool = torch.nn.Conv2d, torch.nn.Conv2d, 20, torch.nn.Identity()
    elif kind == "strict":
        lift, conv, width, pool = gnn.LiftingConv2d, gnn.GroupConv2d, 10, gnn.GroupPool("mean")
    else:
        options.update(num_filter_banks=2)
        lift, conv, width, pool = gnn.RelaxedLiftingConv2d, gnn.RelaxedGroupConv2d, 7, gnn.GroupPool("mean")
    hidden = [layer for _ in range(2) for layer in (conv(width, width, **options), torch.nn.GELU())]
    return torch.nn.Sequential(lift(2, width, **options), torch.nn.GELU(), *hidden, conv(width, 2, **options), pool)


def penalty(model: torch.nn.Module) -> Tensor:
    """The relaxed layers' Σ_l Σ_{g,h} |w_l(g) − w_l(h)|; 0 for a network without any."""
    relaxed = (gnn.RelaxedLiftingConv2d, gnn.RelaxedGroupConv2d)
    return sum((layer.equivariance_penalty() for layer in model if isinstance(layer, relaxed)), torch.zeros(()))


def train(model: torch.nn.Module, frames: Tensor, change: Tensor, steps: int, alpha: float) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=steps + 1)
    for _ in range(steps):
        batch = torch.randint(len(frames), (4,))
        loss = F.mse_loss(model(frames[batch]), change[batch]) + alpha * penalty(model)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--buoyancy", type=float, nargs="+", default=[0, 1], help="values of b")
    parser.add_argument("--size", type=int, default=32, help="pixels of a side")
    parser.add_argument("--states", type=int, default=48, help="simulated flows to train on; half as many for the test")
    parser.add_argument("--steps", type=int, default=600, help="of training")
    parser.add_argument("--alpha", type=float, default=3e-3, help="times the relaxed network's penalty, in its loss")
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"

    for buoyancy in options.buoyancy:
        states = [random_states(n, options.size, seed) for seed, n in enumerate((options.states, options.states // 2))]
        sets = [examples(simulate(state, buoyancy)) for state in states]  # to train on, and to test
        units = [x.square().mean((0, 2, 3), keepdim=True).sqrt() for x in sets[0]]  # the size of every field
        (frames, change), (test_frames, test_change) = (
            [(x / unit).float().to(device) for x, unit in zip(pair, units)] for pair in sets
        )
        print(f"buoyancy {buoyancy:g}: {len(frames)} examples to train on, {len(test_frames)} to test")
        for kind in ("plain", "strict", "relaxed"):
            torch.manual_seed(0)
            model = network(kind).to(device)
            train(model, frames, change, options.steps, options.alpha)
            with torch.no_grad():
                error = (F.mse_loss(model(test_frames), test_change) / test_change.square().mean()).sqrt().item()
                turned = gconv_ext.equivariance_error(model, test_frames[:16], "C4").worst
                spread = f", spread of its weights {penalty(model).item():.3f}" if kind == "relaxed" else ""
            size = sum(p.numel() for p in model.parameters())
            print(f"  {kind:<8}{size} parameters, error {error:.3f}, equivariance error {turned:.1e}{spread}")


if __name__ == "__main__":
    main()
