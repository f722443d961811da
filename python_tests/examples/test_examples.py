"""The scripts that users copy, each run at a tiny size; and flow.py's simulation, against what is known of flows."""

import importlib.util
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

import gconv_ext

EXAMPLES = Path(__file__).parents[2] / "examples"


def load(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


flow = load("flow")


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs an example with these arguments; the words that it prints."""

    def run(name, *arguments):
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        load(name).main()
        return capsys.readouterr().out.replace(",", "").split()

    return run


def after(word, words, count=1):
    """The numbers that come after a word, each time."""
    return [float(words[i + count].strip("%")) for i, found in enumerate(words) if found == word]


def test_train_images(run, tmp_path):
    """Stripes of either direction against discs are told apart, and a turned picture gets the same answer."""
    rows, columns = torch.meshgrid(torch.arange(20), torch.arange(20), indexing="ij")
    for i in range(20):
        shift = torch.randint(0, 8, (2,))
        stripes = ((rows if i % 2 else columns) + shift[0]) % 4 < 2
        disc = (rows - 6 - shift[0]) ** 2 + (columns - 6 - shift[1]) ** 2 < 25
        for name, mask in (("stripes", stripes), ("disc", disc)):
            (tmp_path / name).mkdir(exist_ok=True)
            Image.fromarray((255 * mask).byte().numpy()).save(tmp_path / name / f"{i:02d}.png")
    words = run("train_images", "--data-dir", tmp_path, "--size", 18, "--epochs", 8)
    assert after("accuracy", words)[-1] == 100 and words.count("validation") == 8
    assert words[words.index("at") + 1] == words[words.index("x") + 1] == "24"  # not 18, where pooling breaks it
    assert after("error", words)[0] < 1e-5


def test_train_images_is_short():
    assert len((EXAMPLES / "train_images.py").read_text("utf-8").splitlines()) < 60


def test_unet(run, capsys):
    words = run("unet", "--size", 32, "--steps", 60)
    assert after("seen:", words)[0] > 0.4
    assert after("mask:", words)[0] < 1e-5
    with pytest.raises(SystemExit):
        run("unet", "--size", 22)
    assert "--size must be exact under turns, such as (20, 24), got 22" in capsys.readouterr().err


def test_unet_is_exact_where_its_encoder_is():
    model = load("unet").UNet((2, 3, 4))
    assert gconv_ext.exactness(model, 24).exact
    assert gconv_ext.exactness(model.encoder, 22).nearest_sizes == (20, 24)


def test_unet_pictures_hide_their_blobs():
    """Neither brightness nor contrast gives the blobs away."""
    images, masks = load("unet").pictures(64, 48, torch.Generator().manual_seed(0))
    inside, outside = images[masks > 0], images[masks == 0]
    assert images.shape == masks.shape == (64, 1, 48, 48) and 0.1 < masks.mean() < 0.4
    assert abs(inside.mean() - outside.mean()) < 0.05 and abs(inside.var() - outside.var()) < 0.05


def test_flow(run):
    """Without buoyancy the relaxed network stays near the symmetry; with it it leaves it, and beats the strict one."""
    words = run("flow", "--buoyancy", 0, 1, "--size", 16, "--states", 12, "--steps", 100)
    sizes = after("plain", words) + after("strict", words) + after("relaxed", words)
    assert len(sizes) == 6 and max(sizes) < 1.05 * min(sizes)
    errors, turned = after("error", words)[::2], after("error", words)[1::2]  # of plain, strict, relaxed, twice
    assert max(errors) < 1 and errors[5] < errors[4]
    assert max(turned[1::3]) < 1e-5 < min(turned[::3] + turned[2::3])
    still, moving = after("spread", words, 4)
    assert moving > 3 * still


@pytest.fixture(scope="module")
def states():
    return flow.random_states(3, 24, seed=0)


def turned(fields):
    return torch.rot90(fields, 1, (-2, -1))


def mirrored(fields):
    """Left and right exchanged: vorticity, the component 0, changes its sign."""
    return torch.stack([-fields.select(-3, 0), fields.select(-3, 1)], -3).flip(-1)


def test_flow_without_buoyancy_commutes_with_turns(states):
    frames = flow.simulate(states, 0.0, frames=4)
    assert (frames[:, 3] - frames[:, 0]).abs().max() > 0.5
    torch.testing.assert_close(flow.simulate(turned(states), 0.0, frames=4), turned(frames), rtol=0, atol=1e-12)


def test_buoyancy_leaves_the_mirror_alone(states):
    frames = flow.simulate(states, 2.0, frames=3)
    torch.testing.assert_close(flow.simulate(mirrored(states), 2.0, frames=3), mirrored(frames), rtol=0, atol=1e-12)
    assert (flow.simulate(turned(states), 2.0, frames=3) - turned(frames)).abs().max() > 0.1


def energy(vorticity):
    """Mean of |u|² / 2 = mean of ψω / 2 for fields [..., N, N]."""
    size = vorticity.shape[-1]
    k = size * torch.fft.fftfreq(size, dtype=torch.float64)
    modes = torch.fft.fft2(vorticity) / size**2
    square = (k**2 + k[:, None] ** 2).clamp(min=1)
    return (modes.abs().square() / square).sum((-2, -1)) / 2


@pytest.mark.parametrize("viscosity", [0.0, 0.05])
def test_energy_decays_by_viscosity_alone(states, viscosity):
    """Without a force, dE/dt = −2ν·(mean of ω² / 2); the products neither make nor lose energy, enstrophy or smoke²."""
    interval, frames = 0.05, 21
    vorticity, smoke = flow.simulate(states, 0.0, frames, viscosity, interval, substeps=2).unbind(2)
    found, rate = energy(vorticity), -viscosity * vorticity.square().mean((-2, -1))
    lost = interval * (rate[:, :1] / 2 + rate[:, 1:-1].sum(1, keepdim=True) + rate[:, -1:] / 2)  # the trapezoidal rule
    torch.testing.assert_close(found[:, -1:] - found[:, :1], lost, rtol=2e-3, atol=1e-7)
    torch.testing.assert_close(smoke.mean((-2, -1)), smoke[:, :1].mean((-2, -1)).expand(-1, frames), rtol=0, atol=1e-14)
    if viscosity == 0:
        for squares in (vorticity.square().mean((-2, -1)), smoke.square().mean((-2, -1))):
            torch.testing.assert_close(squares[:, -1], squares[:, 0], rtol=1e-5, atol=0)


def axes(size):
    x = torch.arange(size, dtype=torch.float64) * (2 * math.pi / size)
    return x, -x[:, None]


def test_smoke_in_a_shear_flow():
    """u = sin y: s(x, y, t) = s(x − t·sin y, y, 0), exactly."""
    x, y = axes(32)
    state = torch.stack([-torch.cos(y) + 0 * x, torch.cos(x) + 0 * y])[None]
    found = flow.simulate(state, 0.0, frames=2, viscosity=0.0, interval=1.0, substeps=40)[0, 1]
    torch.testing.assert_close(found, torch.stack([state[0, 0], torch.cos(x - torch.sin(y))]), rtol=0, atol=1e-6)


def test_smoke_rises():
    """A column s = cos x starts to move by ∂ω/∂t = b ∂s/∂x = −b sin x, and ν takes both away at the rate k² = 1."""
    x, y = axes(24)
    state = torch.stack([0 * x + 0 * y, torch.cos(x) + 0 * y])[None]
    found = flow.simulate(state, 2.0, frames=2, viscosity=0.1, interval=0.5)[0, 1]
    decay = math.exp(-0.1 * 0.5)
    expected = torch.stack([-2.0 * 0.5 * decay * torch.sin(x) + 0 * y, decay * torch.cos(x) + 0 * y])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-8)


def test_train_distributed():
    """Two processes, as torchrun starts them."""
    script = [EXAMPLES / "train_distributed.py", "--epochs", "1", "--batch-size", "500"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run([*torchrun, *script], capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    words = done.stdout.replace(",", "").split()
    assert math.isfinite(float(words[words.index("loss") + 1])) and "2 processes" in done.stdout
    assert 5 < float(words[-1].rstrip("%")) <= 100
