"""Networks built with escnn, e2cnn or GrouPy's layers, with this package's layers in place of theirs."""

from __future__ import annotations

import copy
from collections import Counter
from itertools import pairwise

from torch import Tensor, nn

from . import escnn, groupy
from .report import ConversionReport, ModuleReport, NotConverted

__all__ = ["ConversionReport", "ModuleReport", "convert"]


def convert(model: nn.Module) -> tuple[nn.Module, ConversionReport]:
    """A copy of a network in which this package's layers stand wherever they can take over, and a report of each module.

        model, report = gconv_ext.convert(model)
        print(report)

    Weights, statistics, devices, dtypes, requires_grad and the mode (train or eval) are carried over, and the given
    network is left as it is.  What cannot be converted is copied unchanged and works beside what is: a converted escnn
    or e2cnn module takes and returns GeometricTensor as before.  Modules are recognised by their class, a subclass with
    code of its own not; nothing of the other package is imported.

    | what | converted |
    |---|---|
    | escnn, e2cnn `R2Conv` | from trivial or regular fields to regular ones, of C_N and D_N |
    | `InnerBatchNorm`, `GroupPooling` | where all fields have one size |
    | `ReLU`, `PointwiseMaxPool`, `PointwiseAvgPool`, adaptive pooling to one pixel | |
    | `PointwiseAvgPoolAntialiased` | |
    | GrouPy's `P4ConvZ2`, `P4ConvP4`, `P4MConvZ2`, `P4MConvP4M`, `PlaneGroupSpatialMaxPool` | all |

    A group with more elements than the grid has symmetries converts through its largest subgroup among C1, C2, C4, D1,
    D2 and D4: a regular field of C8 is two of C4.  escnn and e2cnn interpolate their filters, and only nearly as
    symmetrical ones result; the converted layer has the nearest filters that are exactly symmetrical, and the report
    says how far the others are from them, relative to the largest tap.  It also has all their taps as parameters, where
    R2Conv has the coefficients of a band-limited basis: the same outputs, and more freedom in later training.

    Where a ReLU follows a batch norm in a SequentialModule or torch.nn.Sequential, and nothing else uses either, the batch
    norm applies it in the same pass, and nothing is left to do in its place.

    Hooks of replaced modules, and weights that two of them share, are not carried over.

    Args:
        model: any torch.nn.Module.

    Returns:
        (the converted copy, its ConversionReport).

    Raises:
        TypeError: model is no torch.nn.Module.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    rows: list[ModuleReport] = []
    memo: dict[int, object] = {}  # what deepcopy takes for an object in place of a copy
    seen = set()

    def visit(module: nn.Module, path: str) -> None:
        if module in seen:
            return
        seen.add(module)
        converter = escnn.converter(module) or groupy.converter(module)
        children = list(module.named_children())
        if converter:
            try:
                replacement, note = converter(module)
            except NotConverted as reason:
                rows.append(ModuleReport(path, type(module), None, str(reason)))
            else:
                memo[id(module)] = replacement.train(module.training)
                rows.append(ModuleReport(path, type(module), getattr(replacement, "layer", replacement), note))
                return
        elif not children:
            rows.append(ModuleReport(path, type(module), None, _why_kept(module)))
        memo.update(_shared(module))
        for name, child in () if converter else children:
            visit(child, f"{path}.{name}" if path else name)

    visit(model, "")
    _join_activations(model, memo, rows)
    return copy.deepcopy(model, memo), ConversionReport(tuple(rows))


def _join_activations(model: nn.Module, memo: dict[int, object], rows: list[ModuleReport]) -> None:
    """Has batch norms apply the ReLUs that follow them."""
    uses = Counter(child for module in model.modules() for child in module._modules.values())
    for path, sequence in model.named_modules():
        if not (type(sequence) is nn.Sequential or escnn.is_sequence(sequence)):
            continue
        for (_, norm), (name, relu) in pairwise(sequence._modules.items()):
            if uses[norm] == uses[relu] == 1 and escnn.join_activation(memo.get(id(norm)), memo.get(id(relu))):
                where = f"{path}.{name}" if path else name
                row = next(row for row in rows if row.path == where)
                rows[rows.index(row)] = row._replace(layer=nn.Identity(), note="in the pass of the batch norm before it")


def _why_kept(module: nn.Module) -> str:
    package = type(module).__module__.split(".")[0]
    if package == "torch":
        return "a layer of PyTorch"
    return "a layer of this package" if package == __package__.split(".")[0] else "no layer that this package has"


def _shared(module: nn.Module) -> dict[int, object]:
    """What of a module that is kept is not copied as deepcopy would: field types, which nobody changes, and filters
    that eval() has expanded with a graph behind them, which deepcopy refuses."""
    memo = {id(value): value for value in vars(module).values() if escnn.is_type(value)}
    for submodule in module.modules() if escnn.converter(module) else [module]:
        for value in submodule._buffers.values():
            if isinstance(value, Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach().clone()
    return memo
