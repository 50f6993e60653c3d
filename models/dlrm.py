"""DLRM (Naumov et al., 2019): dense numbers, pooled lists and named vector fields, met in pairwise dot products.

Letters used throughout: M members of the stack (see `models.stacked`), B rows in a batch, D width of a field, F fields
that meet (the dense one and the named ones).
Names follow torchrec's `models/dlrm.py`; the order of the columns follows the reference implementation.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.stacked import Bags, Linear, PairwiseDots, hidden_layers, size

Inputs = Mapping[str, Tensor]
"""What a network of ours is called with: a tensor of B rows per name, `dense` and one per field, members first."""


class Shape(NamedTuple):
    """Of an input, (M, B, width)."""

    width: int
    dtype: torch.dtype = torch.float32


class Bag(NamedTuple):
    """A list field: indices below `rows`, `length` of them, those that are `rows - 1` being padding."""

    rows: int
    length: int


class DenseArch(nn.Module):
    """The bottom MLP: dense numbers (M, B, K) to a field (M, B, D)."""

    def __init__(self, inputs: int, widths: Sequence[int], dropout: float) -> None:
        super().__init__()
        self.layers = hidden_layers(inputs, widths, dropout)

    def forward(self, dense: Tensor) -> Tensor:
        return self.layers(dense)


class SparseArch(nn.Module):
    """The embedding tables: of each named list of indices (M, B, L) the sum of its rows, a field (M, B, D).

    Tables (M, rows, D) are drawn as the reference draws them, U(+-sqrt(1/n)); the last row is padding and stays 0.
    """

    def __init__(self, bags: Mapping[str, Bag], width: int) -> None:
        super().__init__()
        self.tables = nn.ParameterDict()
        for name, (rows, _) in bags.items():
            drawn = torch.empty(1, rows, width).uniform_(-math.sqrt(1 / rows), math.sqrt(1 / rows))
            drawn[:, -1] = 0.0
            self.tables[name] = nn.Parameter(drawn)

    def forward(self, lists: Inputs) -> list[Tensor]:
        return [Bags.apply(table, lists[name]) for name, table in self.tables.items()]


class InteractionArch(nn.Module):
    """Dots of every pair of F fields, behind the dense one: (M, B, F, D) -> (M, B, D + F (F - 1) / 2).

    The pairs are the strict lower triangle row by row, (1,0), (2,0), (2,1), ..., as in the reference.
    """

    def forward(self, fields: Tensor) -> Tensor:
        members, rows = fields.shape[:2]
        dots = PairwiseDots.apply(fields.flatten(0, 1))
        return torch.cat([fields[:, :, 0], dots.view(members, rows, -1)], dim=2)


class OverArch(nn.Module):
    """The top MLP: dense field and dots (M, B, ·) to a logit (M, B)."""

    def __init__(self, inputs: int, widths: Sequence[int], dropout: float) -> None:
        super().__init__()
        self.layers = hidden_layers(inputs, widths, dropout)
        self.logit = Linear(widths[-1], 1)

    def forward(self, met: Tensor) -> Tensor:
        return self.logit(self.layers(met)).squeeze(2)


class DLRM(nn.Module):
    """Logits (M, B) of `dense` (M, B, K), each bag's list (M, B, L) and each named field (M, B, D), D being the last
    of `bottom`; an input that all M members share may come as (1, B, ·). Drawn for one member; `stack` makes more.

    Fields meet in the reference's order: dense, bags, vectors. `wide` adds a linear path from the dense numbers to the
    logit, begun at zero: what a logistic regression says is then not lost on its way through two MLPs.
    """

    def __init__(
        self,
        dense: int,
        bags: Mapping[str, Bag],
        fields: Sequence[str],
        bottom: Sequence[int],
        top: Sequence[int],
        dropout: float,
        wide: bool,
    ) -> None:
        super().__init__()
        width = bottom[-1]
        self.fields = tuple(fields)
        self.shapes = {"dense": Shape(dense)}
        self.shapes |= {name: Shape(bag.length, torch.int64) for name, bag in bags.items()}
        self.shapes |= {name: Shape(width) for name in fields}
        count = len(self.shapes)
        self.dense_arch = DenseArch(dense, bottom, dropout)
        self.sparse_arch = SparseArch(bags, width)
        self.interaction_arch = InteractionArch()
        self.over_arch = OverArch(width + count * (count - 1) // 2, top, dropout)
        self.wide = nn.Parameter(torch.zeros(1, dense, 1)) if wide else None

    def forward(self, inputs: Inputs) -> Tensor:
        """(M, B) logits. ValueError names the input that is missing, unknown or of another shape."""
        check_shapes(inputs, self.shapes, size(self))
        dense = self.dense_arch(inputs["dense"])
        shared = [*self.sparse_arch(inputs), *(inputs[name] for name in self.fields)]
        fields = [dense, *(field.expand_as(dense) for field in shared)]
        logits = self.over_arch(self.interaction_arch(torch.stack(fields, dim=2)))
        return logits if self.wide is None else logits + torch.matmul(inputs["dense"], self.wide).squeeze(2)


def check_shapes(inputs: Inputs, shapes: Mapping[str, Shape], members: int) -> None:
    """ValueError unless `inputs` holds exactly the names of `shapes`, each (members or 1, B, width) with one B, and of
    that type."""
    if set(inputs) != set(shapes):
        raise ValueError(f"inputs are {sorted(inputs)}, the network wants {sorted(shapes)}")
    first = next(iter(inputs.values()))
    rows = first.shape[1] if first.ndim > 1 else 0
    for name, (width, dtype) in shapes.items():
        tensor = inputs[name]
        if tensor.shape not in ((members, rows, width), (1, rows, width)):
            raise ValueError(
                f"`{name}` has shape {tuple(tensor.shape)}, the network wants ({members} or 1, {rows}, {width})"
            )
        if tensor.dtype != dtype:
            raise ValueError(f"`{name}` is {tensor.dtype}, the network wants {dtype}")
