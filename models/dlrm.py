"""DLRM (Naumov et al., 2019): dense numbers, pooled lists and named vector fields, met in pairwise dot products.

Letters used throughout: B rows in a batch, D width of a field, F fields that meet (the dense one and the named ones).
Names follow torchrec's `models/dlrm.py`; the order of the columns follows the reference implementation.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

Inputs = Mapping[str, Tensor]
"""What a network of ours is called with: a tensor of B rows per name, `dense` and one per field."""


class Shape(NamedTuple):
    """Of an input, (B, width)."""

    width: int
    dtype: torch.dtype = torch.float32


class Bag(NamedTuple):
    """A list field: indices below `rows`, `length` of them, those that are `rows - 1` being padding."""

    rows: int
    length: int


def linear(inputs: int, outputs: int) -> nn.Linear:
    """A linear layer drawn as the reference draws it: weights N(0, sqrt(2/(m+n))), biases N(0, sqrt(1/m))."""
    layer = nn.Linear(inputs, outputs)
    nn.init.normal_(layer.weight, 0.0, math.sqrt(2 / (inputs + outputs)))
    nn.init.normal_(layer.bias, 0.0, math.sqrt(1 / outputs))
    return layer


def hidden_layers(inputs: int, widths: Sequence[int], dropout: float) -> nn.Sequential:
    """(B, inputs) -> (B, widths[-1]): linear, ReLU and dropout per width."""
    steps: list[nn.Module] = []
    for before, after in zip([inputs, *widths], widths, strict=False):
        steps += [linear(before, after), nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*steps)


class DenseArch(nn.Module):
    """The bottom MLP: dense numbers (B, K) to a field (B, D)."""

    def __init__(self, inputs: int, widths: Sequence[int], dropout: float) -> None:
        super().__init__()
        self.layers = hidden_layers(inputs, widths, dropout)

    def forward(self, dense: Tensor) -> Tensor:
        return self.layers(dense)


class SparseArch(nn.Module):
    """The embedding tables: of each named list of indices (B, L) the sum of its rows, a field (B, D); padding adds 0.

    Tables are drawn as the reference draws them, U(+-sqrt(1/n)).
    """

    def __init__(self, bags: Mapping[str, Bag], width: int) -> None:
        super().__init__()
        self.tables = nn.ModuleDict()
        for name, (rows, _) in bags.items():
            table = nn.EmbeddingBag(rows, width, mode="sum", padding_idx=rows - 1)
            nn.init.uniform_(table.weight, -math.sqrt(1 / rows), math.sqrt(1 / rows))
            with torch.no_grad():
                table.weight[rows - 1] = 0.0
            self.tables[name] = table

    def forward(self, lists: Inputs) -> list[Tensor]:
        return [table(lists[name]) for name, table in self.tables.items()]


class InteractionArch(nn.Module):
    """Dots of every pair of F fields, behind the dense one: (B, F, D) -> (B, D + F (F - 1) / 2).

    The pairs are the strict lower triangle row by row, (1,0), (2,0), (2,1), ..., as in the reference.
    """

    def __init__(self, fields: int) -> None:
        super().__init__()
        self.rows: Tensor
        self.columns: Tensor
        rows, columns = torch.tril_indices(fields, fields, offset=-1)
        self.register_buffer("rows", rows, persistent=False)
        self.register_buffer("columns", columns, persistent=False)

    def forward(self, fields: Tensor) -> Tensor:
        dots = torch.bmm(fields, fields.transpose(1, 2))
        return torch.cat([fields[:, 0], dots[:, self.rows, self.columns]], dim=1)


class OverArch(nn.Module):
    """The top MLP: dense field and dots (B, ·) to a logit (B,)."""

    def __init__(self, inputs: int, widths: Sequence[int], dropout: float) -> None:
        super().__init__()
        self.layers = hidden_layers(inputs, widths, dropout)
        self.logit = linear(widths[-1], 1)

    def forward(self, met: Tensor) -> Tensor:
        return self.logit(self.layers(met)).squeeze(1)


class DLRM(nn.Module):
    """Logits (B,) of `dense` (B, K), each bag's list (B, L) and each named field (B, D), D being the last of `bottom`.

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
        self.interaction_arch = InteractionArch(count)
        self.over_arch = OverArch(width + count * (count - 1) // 2, top, dropout)
        self.wide = nn.Linear(dense, 1, bias=False) if wide else None
        if self.wide is not None:
            nn.init.zeros_(self.wide.weight)

    def forward(self, inputs: Inputs) -> Tensor:
        """(B,) logits. ValueError names the input that is missing, unknown or of another shape."""
        check_shapes(inputs, self.shapes)
        dense = self.dense_arch(inputs["dense"])
        fields = [dense, *self.sparse_arch(inputs), *(inputs[name] for name in self.fields)]
        logits = self.over_arch(self.interaction_arch(torch.stack(fields, dim=1)))
        return logits if self.wide is None else logits + self.wide(inputs["dense"]).squeeze(1)


def check_shapes(inputs: Inputs, shapes: Mapping[str, Shape]) -> None:
    """ValueError unless `inputs` holds exactly the names of `shapes`, each so wide and of that type, with one B."""
    if set(inputs) != set(shapes):
        raise ValueError(f"inputs are {sorted(inputs)}, the network wants {sorted(shapes)}")
    rows = len(inputs["dense"]) if "dense" in inputs else len(next(iter(inputs.values())))
    for name, (width, dtype) in shapes.items():
        tensor = inputs[name]
        if tuple(tensor.shape) != (rows, width):
            raise ValueError(f"`{name}` has shape {tuple(tensor.shape)}, the network wants ({rows}, {width})")
        if tensor.dtype != dtype:
            raise ValueError(f"`{name}` is {tensor.dtype}, the network wants {dtype}")
