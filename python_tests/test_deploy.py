"""to_conv2d: a copy of a network that is made of PyTorch's own layers."""

import copy
import subprocess
import sys

import pytest
import torch
from randomised import randomise_norms

from gconv_ext import create_model, deploy, nn, to_conv2d

STRIDED = dict(stride=2, padding=1, dilation=2, groups=2)
TRANSPOSED = dict(stride=2, padding=1, output_padding=1, dilation=2, groups=2)

# name: (layer of 4 fields over C4, shape of what it takes after the batch)
LAYERS = {
    "lifting": (lambda: nn.LiftingConv2d(4, 6, 3, **STRIDED), (4, 9, 8)),
    "group": (lambda: nn.GroupConv2d(4, 6, 3, **STRIDED, activation="relu"), (4, 4, 9, 8)),
    "group circular": (lambda: nn.GroupConv2d(4, 6, 4, padding=2, padding_mode="circular", bias=False), (4, 4, 9, 8)),
    "group D2": (lambda: nn.GroupConv2d(4, 2, 3, "D2", stride=(1, 2), padding=(0, 1)), (4, 4, 9, 8)),
    "group C1": (lambda: nn.GroupConv2d(4, 2, 3, "C1", padding_mode="reflect", padding=1), (4, 1, 9, 8)),
    "group D4": (lambda: nn.GroupConv2d(4, 2, 3, "D4", padding_mode="replicate", padding=1), (4, 8, 9, 8)),
    "relaxed lifting": (lambda: nn.RelaxedLiftingConv2d(4, 6, 3, **STRIDED, num_filter_banks=3), (4, 9, 8)),
    "relaxed output": (lambda: nn.RelaxedGroupConv2d(4, 6, 3, groups=2, num_filter_banks=3), (4, 4, 9, 8)),
    "relaxed input": (lambda: nn.RelaxedGroupConv2d(4, 6, 3, num_filter_banks=3, relax_on="input"), (4, 4, 9, 8)),
    "transposed": (lambda: nn.GroupConvTranspose2d(4, 6, 3, **TRANSPOSED), (4, 4, 5, 4)),
    "separable": (lambda: nn.SeparableGroupConv2d(4, 6, 3, stride=2, activation="relu"), (4, 4, 9, 8)),
    "translation": (
        lambda: nn.RelaxedTranslationConv2d(4, 6, 3, (5, 4), stride=2, padding=1, groups=2, num_filter_banks=3),
        (4, 9, 8)),
    "translation lifting": (
        lambda: nn.RelaxedTranslationLiftingConv2d(4, 6, 3, 7, num_filter_banks=2, activation="relu"), (4, 9, 9)),
    "translation group": (
        lambda: nn.RelaxedTranslationGroupConv2d(4, 6, 3, 7, groups=2, bias=False, num_filter_banks=2), (4, 4, 9, 9)),
    "nonstationary lifting": (
        lambda: nn.NonstationaryLiftingConv2d(4, 3, 3, elements=6, stride=2, padding=1), (4, 9, 8)),
    "nonstationary strict": (lambda: nn.NonstationaryGroupConv2d(4, 3, 3, elements=8, soft=None), (4, 8, 9, 8)),
    "nonstationary soft": (lambda: nn.NonstationaryGroupConv2d(4, 3, 3, padding=1, bias=False), (4, 4, 9, 8)),
    "nonstationary T2": (lambda: nn.NonstationaryGroupConv2d(4, 3, 3, "T2", soft=None), (4, 1, 9, 8)),
    "batch norm": (lambda: nn.GroupBatchNorm2d(4), (4, 4, 9, 8)),
    "batch norm relu": (lambda: nn.GroupBatchNorm2d(4, activation="relu"), (4, 4, 9, 8)),
    "batch norm bare": (lambda: nn.GroupBatchNorm2d(4, affine=False, track_running_stats=False), (4, 4, 9, 8)),
    "layer norm": (lambda: nn.GroupLayerNorm2d(4, eps=0.1), (4, 4, 9, 8)),
    "instance norm": (lambda: nn.GroupInstanceNorm2d(4, affine=True), (4, 4, 9, 8)),
    "instance norm bare": (lambda: nn.GroupInstanceNorm2d(4, eps=0.1), (4, 1, 1, 1)),
    "dropout": (lambda: nn.GroupDropout2d(), (4, 4, 9, 8)),
    "coset max": (lambda: nn.GroupPool("max"), (4, 4, 9, 8)),
    "coset mean": (lambda: nn.GroupPool("mean"), (4, 4, 9, 8)),
    "global max": (lambda: nn.GroupGlobalPool("max"), (4, 4, 9, 8)),
    "global mean": (lambda: nn.GroupGlobalPool("mean"), (4, 4, 9, 8)),
    "spatial max": (lambda: nn.SpatialGlobalPool2d("max"), (4, 4, 9, 8)),
    "spatial mean": (lambda: nn.SpatialGlobalPool2d("mean"), (4, 4, 9, 8)),
    "max pool": (lambda: nn.SpatialMaxPool2d(3, 2, 1), (4, 4, 9, 8)),
    "average pool": (lambda: nn.SpatialAvgPool2d(3, 2, 1), (4, 4, 9, 8)),
    "blur 1": (lambda: nn.SpatialBlurPool2d(1), (4, 4, 9, 8)),
    "blur 3": (lambda: nn.SpatialBlurPool2d(), (4, 4, 9, 8)),
    "blur 4": (lambda: nn.SpatialBlurPool2d(4, 3), (4, 4, 9, 8)),
    "filter": (lambda: nn.SpatialFilterPool2d([[1, 2, 1], [2, -3, 2], [1, 2, 1]], 2, 1), (4, 4, 9, 8)),
    "max blur": (lambda: nn.SpatialMaxBlurPool2d(3, 2, 5), (4, 4, 9, 8)),
    "nearest": (lambda: nn.SpatialUpsample2d(3), (4, 4, 9, 8)),
    "bilinear": (lambda: nn.SpatialUpsample2d(3, "bilinear"), (4, 4, 9, 8)),
    "residual": (lambda: nn.GroupResidualBlock2d(4, 6, stride=2), (4, 4, 9, 8)),
    "residual identity": (lambda: nn.GroupResidualBlock2d(4, 4, "D4"), (4, 8, 9, 8)),
    "residual plain": (lambda: nn.ResidualBlock2d(4, 6, 2), (4, 9, 8)),
}  # fmt: skip
MODELS = {
    "noise_p4_cnn": 12, "noise_relaxed_p4m_cnn": 12, "noise_relaxed_translation_cnn": 28, "noise_plain_cnn": 12,
    "p4cnn": 20, "p4m_resnet18": 17, "z2_resnet18": 17,
}  # fmt: skip


def make(name, dtype=torch.float64):
    """The layer with random parameters, and a batch of its input."""
    layer, shape = LAYERS[name][0]().to(dtype), LAYERS[name][1]
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    layer = layer.eval() if "bare" in name else randomise_norms(layer)
    return layer, torch.randn(2, *shape, dtype=dtype)


def is_plain(module):
    parts = list(module.modules())
    return all(isinstance(part, torch.fx.GraphModule) or type(part).__module__.startswith("torch.") for part in parts)


@pytest.mark.parametrize("name", LAYERS)
def test_a_copy_computes_the_same(name):
    layer, x = make(name)
    plain = to_conv2d(layer.train()).to(torch.float64)
    want, got = layer.eval()(x), plain(x)
    assert got.shape == want.shape and (got - want).abs().max() <= 1e-12 * want.abs().max()
    assert is_plain(plain) and not any(module.training for module in plain.modules())
    single = to_conv2d(layer.float())
    want, got = layer(x.float()), single(x.float())
    assert (got - want).abs().max() <= 1e-5 * want.abs().max() and got.dtype == torch.float32


@pytest.mark.parametrize("name", MODELS)
def test_networks(name):
    options = {"width": 2} if "resnet" in name else {}
    network, size = randomise_norms(create_model(name, **options)), MODELS[name]
    plain, x = to_conv2d(network), torch.randn(3, network.in_channels, size, size)
    want, got = network(x), plain(x)
    assert want.std() > 1e-4 and (got - want).abs().max() <= 1e-5 * want.abs().max()
    assert is_plain(plain) and not any(parameter.requires_grad for parameter in plain.parameters())


def test_every_layer_is_copied_or_refused():
    named = {getattr(nn, name) for name in nn.__all__ if isinstance(getattr(nn, name), type)}
    layers = {kind for kind in named if issubclass(kind, torch.nn.Module)}
    # These two are parts of partial layers.
    known = {kind for kind in deploy._RULES if kind.__module__.startswith("gconv_ext.nn.")}
    assert layers - {nn.ElementDistribution, nn.KernelNetwork} == known
    tested = {type(make()) for make, _ in LAYERS.values()}
    assert tested == {kind for kind in layers if callable(deploy._RULES.get(kind))}


class Own(nn.GroupConv2d):
    def forward(self, x):
        return super().forward(x).relu()


class Same(nn.GroupConv2d):
    pass


def hooked():
    layer = nn.GroupConv2d(1, 1, 3)
    layer.register_forward_hook(lambda module, inputs, result: result)
    return layer


@pytest.mark.parametrize("make, why", [
    (lambda: nn.PartialLiftingConv2d(1, 1, 3), "PartialLiftingConv2d): its elements are sampled at each call"),
    (lambda: nn.PartialGroupConv2d(1, 1, 3), "PartialGroupConv2d): its elements are sampled"),
    (lambda: nn.PartialPointwiseConv2d(1, 1), "PartialPointwiseConv2d): its elements are sampled"),
    (lambda: nn.Augerino(torch.nn.Identity()), "Augerino): it moves its input by sampled elements"),
    (lambda: nn.NonstationaryLiftingConv2d(1, 1, 3, soft="both"), "with soft='both' its filter differs at every pixel"),
    (lambda: nn.ElementDistribution(), "ElementDistribution): it has no form as planar convolutions"),
    (lambda: Own(1, 1, 3), "Own): its class has a forward other than GroupConv2d's"),
    (hooked, "GroupConv2d): it has forward hooks, which the copy would not run"),
])  # fmt: skip
def test_what_cannot_be_copied(make, why):
    model = torch.nn.Sequential(torch.nn.Identity(), torch.nn.ModuleDict({"inner": make()}))
    with pytest.raises(ValueError) as error:
        to_conv2d(model)
    assert str(error.value).startswith("model has a layer that cannot be copied: 1.inner (") and why in str(error.value)
    with pytest.raises(ValueError, match="cannot be copied: model"):
        to_conv2d(model[1]["inner"])
    with pytest.raises(TypeError, match="model must be a torch.nn.Module, got function"):
        to_conv2d(make)


class Network(torch.nn.Module):
    """One layer twice, under two names and in two places, and one that is no module."""

    def __init__(self):
        super().__init__()
        self.lift, self.missing = nn.LiftingConv2d(1, 2, 3, padding=1), None
        self.conv = Same(2, 2, 3, padding=1)
        self.again = self.conv
        self.deep = torch.nn.Sequential(self.conv, torch.nn.utils.parametrizations.weight_norm(nn.GroupConv2d(2, 2, 3)))

    def forward(self, x):
        y = self.again(self.conv(self.lift(x)).relu())
        return self.deep(y).mean((-2, -1)).amax(2)


def test_the_network_itself_stays_as_it_was():
    network, x = Network(), torch.randn(2, 1, 8, 8)
    state, training, before = copy.deepcopy(network.state_dict()), network.training, torch.get_rng_state()
    plain = to_conv2d(network)
    assert torch.equal(torch.get_rng_state(), before)
    assert plain.conv is plain.again is plain.deep[0] and isinstance(plain, Network) and plain.missing is None
    assert isinstance(network.conv, Same) and network.training == training
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert (plain(x) - network.eval()(x)).abs().max() <= 1e-5 * network(x).abs().max()
    with torch.no_grad():
        network.conv.weight.zero_()
    assert not torch.allclose(plain(x), network(x))


WITHOUT_PACKAGE = """
import sys, torch
sys.modules["gconv_ext"] = None  # importing it fails
for network, x, y in torch.load(sys.argv[1], weights_only=False):
    assert torch.equal(network(x), y)
"""


def test_a_pickle_needs_no_package(tmp_path):
    """Each layer's, and a network's."""
    networks = [(to_conv2d(layer), x) for layer, x in (make(name, torch.float32) for name in LAYERS)]
    networks.append((to_conv2d(randomise_norms(create_model("p4m_resnet18", width=2))), torch.randn(1, 3, 9, 9)))
    torch.save([(network, x, network(x)) for network, x in networks], tmp_path / "networks.pt")
    command = [sys.executable, "-c", WITHOUT_PACKAGE, str(tmp_path / "networks.pt")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
