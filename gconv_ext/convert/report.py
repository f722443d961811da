"""What became of each module."""

from __future__ import annotations

from typing import NamedTuple

from torch import nn


class NotConverted(Exception):
    """The reason for which a module is kept."""


class ModuleReport(NamedTuple):
    """One row of a report.

    Attributes:
        path: in the module tree; "" is the network itself.
        was: the class of the given module.
        layer: the layer of this package that took over; None where the module is kept.
        note: why it is kept, or what is worth knowing about the conversion.
    """

    path: str
    was: type
    layer: nn.Module | None
    note: str

    @property
    def converted(self) -> bool:
        return self.layer is not None


class ConversionReport(NamedTuple):
    """The report of `convert`; str() is a table.

    Attributes:
        rows: a ModuleReport for each module without children and each that was converted, in the tree's order.
    """

    rows: tuple[ModuleReport, ...]

    @property
    def converted(self) -> tuple[ModuleReport, ...]:
        return tuple(row for row in self.rows if row.converted)

    @property
    def kept(self) -> tuple[ModuleReport, ...]:
        return tuple(row for row in self.rows if not row.converted)

    def __str__(self) -> str:
        table = [("module", "was", "now", "")]
        table += [
            (row.path or "(network)", row.was.__name__, str(row.layer) if row.converted else "kept", row.note)
            for row in self.rows
        ]
        widths = [max(map(len, column)) for column in zip(*table)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in table]
        return "\n".join([*lines, f"{len(self.converted)} of {len(self.rows)} modules converted"])
