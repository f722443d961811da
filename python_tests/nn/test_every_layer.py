"""What every layer beside the convolutions promises: equivariance, derivatives, precisions, state, copies, compilation,
and training by several processes."""

import copy
import io
import os
import pickle

import pytest
import torch
import torch.distributed
import torch.multiprocessing
from torch.autograd import gradcheck

from gconv_ext import PointGroup, equivariance_error, nn

C4 = PointGroup("C4")

# A layer of 4 fields, and a size of map for which it is equivariant.
LAYERS = {
    "batch norm": (lambda group: nn.GroupBatchNorm2d(4).eval(), 6),
    "layer norm": (lambda group: nn.GroupLayerNorm2d(4), 6),
    "instance norm": (lambda group: nn.GroupInstanceNorm2d(4, affine=True), 6),
    "coset mean": (lambda group: nn.GroupPool("mean"), 6),
    "coset max": (lambda group: nn.GroupPool("max"), 6),
    "global mean": (lambda group: nn.GroupGlobalPool("mean"), 7),
    "global max": (lambda group: nn.GroupGlobalPool("max"), 7),
    "spatial mean": (lambda group: nn.SpatialGlobalPool2d("mean"), 7),
    "spatial max": (lambda group: nn.SpatialGlobalPool2d("max"), 7),
    "average 2": (lambda group: nn.SpatialAvgPool2d(2), 6),
    "average 3": (lambda group: nn.SpatialAvgPool2d(3, 2, 1), 7),
    "average 5": (lambda group: nn.SpatialAvgPool2d(5, 1, 2), 6),
    "max 3": (lambda group: nn.SpatialMaxPool2d(3, 2, 1), 7),
    "blur 3": (lambda group: nn.SpatialBlurPool2d(3), 7),
    "gaussian": (lambda group: nn.SpatialFilterPool2d.gaussian(0.66, 2), 7),
    "blur 4": (lambda group: nn.SpatialBlurPool2d(4), 6),
    "max blur": (lambda group: nn.SpatialMaxBlurPool2d(), 6),
    "nearest": (lambda group: nn.SpatialUpsample2d(3), 5),
    "bilinear 2": (lambda group: nn.SpatialUpsample2d(2, "bilinear"), 5),
    "bilinear 3": (lambda group: nn.SpatialUpsample2d(3, "bilinear"), 5),
    "transposed": (lambda group: nn.GroupConvTranspose2d(4, 6, 3, group, 2, 1, groups=2, algorithm="irrep"), 5),
    "transposed even": (lambda group: nn.GroupConvTranspose2d(4, 2, 4, group, 2, 1, algorithm="irrep"), 5),
    "separable": (lambda group: nn.SeparableGroupConv2d(4, 6, 3, group, 2, 1, algorithm="irrep"), 7),
    "residual": (lambda group: nn.GroupResidualBlock2d(4, 6, group, 2, algorithm="irrep").eval(), 7),
}  # fmt: skip
NORMS = ("batch norm", "layer norm", "instance norm")
LEARNED = (*NORMS, "transposed", "separable", "residual")


def make(name, group=C4, dtype=torch.float32, batch=2):
    """The layer with random parameters, and a map."""
    layer, size = LAYERS[name][0](group).to(dtype), LAYERS[name][1]
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    return layer, torch.randn(batch, 4, group.order, size, size).to(dtype)


@pytest.mark.parametrize("group", [C4, PointGroup("D2"), PointGroup("D4")], ids=["C4", "D2", "D4"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", LAYERS)
def test_exactly_equivariant(name, group, dtype):
    """layer(g·x) and g·layer(x) are the same bits, on squares and on rectangles; batch norm in eval mode, the others in
    training too."""
    layer, x = make(name, group, dtype)
    for map in (x, torch.cat([x, x.flip(1)[..., x.shape[-1] % 2 :]], -1)):
        error = equivariance_error(layer, map, group)
        assert error.worst == 0 and layer(map).dtype == dtype
    y = layer(x)
    assert y.dim() == 2 or y.shape[-1] == 1 or (y[..., :1, :1] - y).abs().max() > 0.01  # not constant


@pytest.mark.parametrize("name", LAYERS)
def test_gradcheck(name):
    layer, x = make(name, dtype=torch.float64, batch=1)
    x = x[..., :4, :4] if LAYERS[name][1] % 2 == 0 else x[..., :3, :3]
    parameters = [x.clone().requires_grad_(), *(p.detach().clone().requires_grad_() for p in layer.parameters())]
    names = [name for name, _ in layer.named_parameters()]
    run = lambda x, *values: torch.func.functional_call(layer, dict(zip(names, values)), (x,))  # noqa: E731
    assert gradcheck(run, parameters, fast_mode=True)


@pytest.mark.parametrize("name", LAYERS)
def test_bfloat16_and_autocast(name):
    """Within what rounding to bfloat16 does; under autocast convolutions compute in it, with gradients to float32."""
    layer, x = make(name)
    x.requires_grad_()
    want = layer(x)
    low = copy.deepcopy(layer).bfloat16()(x.bfloat16())
    with torch.autocast("cpu", torch.bfloat16):
        cast = layer(x)
    convolves = name in ("transposed", "transposed even", "separable", "residual")
    assert cast.dtype == (torch.bfloat16 if convolves else torch.float32)
    for got in (low, cast):
        assert (got.float() - want).abs().max() <= 0.05 * want.abs().max()
    cast.float().sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in (x, *layer.parameters()))


@pytest.mark.parametrize("name", LAYERS)
def test_maps_with_their_fields_last_keep_them_so(name):
    layer, x = make(name)
    y = layer(x.clone(memory_format=torch.channels_last_3d))
    assert torch.allclose(y, layer(x), rtol=1e-5, atol=1e-6)
    if y.dim() == 5 and y[0, 0, 0].numel() > 1:
        assert y.is_contiguous(memory_format=torch.channels_last_3d)


@pytest.mark.parametrize("name", LAYERS)
def test_state_and_copies(name):
    layer, x = make(name)
    want, state = layer(x), copy.deepcopy(layer.state_dict())
    assert bool(state) == (name.split()[0] in " ".join(LEARNED))
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(other(x), want) and repr(other) == repr(layer)
    layer.eval()
    assert torch.equal(layer(x), want)
    layer.train()
    assert list(layer.state_dict()) == list(state)
    assert all(torch.equal(value, state[key]) for key, value in layer.state_dict().items())
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    other = LAYERS[name][0](C4)
    other.load_state_dict(torch.load(file))
    assert torch.equal(other(x), want)


@pytest.mark.parametrize("name", LAYERS)
def test_what_is_no_feature_map_is_refused(name):
    layer, x = make(name)
    with pytest.raises(ValueError, match="x must have 5 dimensions"):
        layer(x[:, :, 0])
    with pytest.raises(TypeError, match="x must have a real floating-point dtype"):
        layer(x.long())


def autoencoder():
    """A small network of these layers: an image in, an image of the same size out."""
    torch.manual_seed(1)
    return torch.nn.Sequential(
        nn.LiftingConv2d(1, 2, 3, padding=1), nn.GroupLayerNorm2d(2), torch.nn.ReLU(), nn.SpatialMaxBlurPool2d(),
        nn.SeparableGroupConv2d(2, 2, 3, activation="relu"), nn.GroupConvTranspose2d(2, 2, 3, bias=False),
        nn.GroupInstanceNorm2d(2), nn.SpatialUpsample2d(2, "bilinear"), nn.GroupPool("mean"),
    )  # fmt: skip


def whole():
    return autoencoder(), torch.randn(2, 1, 12, 12)


def part():
    layers = torch.nn.Sequential(nn.GroupLayerNorm2d(2), nn.SpatialBlurPool2d(), nn.GroupGlobalPool("mean"))
    return layers, torch.randn(2, 2, 4, 5, 5).contiguous(memory_format=torch.channels_last_3d)


@pytest.mark.parametrize("network_and_map, backend", [(whole, "aot_eager"), (part, "inductor")])
def test_compile_fullgraph(network_and_map, backend):
    """Forward and backward: the whole network captured in one graph, and a part of it, which is quicker, compiled."""
    network, x = network_and_map()
    torch._dynamo.reset()
    other = copy.deepcopy(network)
    want, got = network(x), torch.compile(other, fullgraph=True, backend=backend)(x)
    assert torch.allclose(got, want, atol=1e-5)
    want.square().sum().backward(), got.square().sum().backward()
    for (name, p), q in zip(network.named_parameters(), other.parameters()):
        assert torch.allclose(p.grad, q.grad, atol=1e-4, rtol=1e-3), name


def _train_on_a_share(rank, processes, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=processes)
    network = torch.nn.parallel.DistributedDataParallel(autoencoder())
    network(images()[rank::processes]).square().mean().backward()
    if rank == 0:
        torch.save({name: p.grad for name, p in network.module.named_parameters()}, f"{folder}/gradients")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
    os._exit(0)  # PyTorch's threads may still run, and abort a process that takes its leave of them


def images():
    return torch.randn(4, 1, 12, 12, generator=torch.Generator().manual_seed(2))


def test_two_processes_have_the_gradients_of_one(tmp_path):
    torch.multiprocessing.spawn(_train_on_a_share, (2, str(tmp_path)), nprocs=2)
    network = autoencoder()
    network(images()).square().mean().backward()
    gradients = torch.load(tmp_path / "gradients")
    for name, p in network.named_parameters():
        assert torch.allclose(gradients[name], p.grad, rtol=1e-4, atol=1e-7), name
