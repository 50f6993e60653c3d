"""Layers of a stack: M networks of one shape side by side, each with its own weights, dropout and random numbers.

Sixty runs of one small network are one batched network, and a single run is a stack of one: there is no other code.
Every parameter has the members first, (M, ...); inputs are (M, B, ·), or (1, B, ·) where all members see the same.
No number of one member ever meets another's, so a member is what it would be alone, up to the order in which the
hardware adds (a stack of another size may take another kernel).
"""

import math
from collections.abc import Iterable, Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)

BIT_STEPS = 2**16  # of dropout's uniform numbers: a rate is met to 1/65,536


def stream_seed(seed: int, purpose: int) -> int:
    """Of a stream that has nothing to do with those of other seeds or purposes. torch's generator reads 32 bits of it:
    what differs above them would be the same stream."""
    return int(np.random.SeedSequence([seed, purpose]).generate_state(1)[0])


class RandomBits:
    """The random numbers of training, streams of a distinct seed's own: members of one seed draw the same numbers.

    Batches have a stream, and so has each layer of dropout (`purpose`): one that drops nothing draws nothing, and no
    other may notice.
    """

    def __init__(self, seeds: Sequence[int], purpose: int = 0) -> None:
        self.seeds = tuple(dict.fromkeys(seeds))
        self.streams = [torch.Generator().manual_seed(stream_seed(seed, purpose)) for seed in self.seeds]
        self.owners = torch.tensor([self.seeds.index(seed) for seed in seeds])  # (M,) member -> stream

    def uniform(self, rows: int, width: int) -> Tensor:
        """Whole numbers below `BIT_STEPS`, less half of it: int16 (M, rows, width), or (1, ...) where all share one."""
        words = -(-rows * width // 4)
        drawn = torch.empty(len(self.streams), words, dtype=torch.int64)
        for row, stream in zip(drawn, self.streams, strict=True):
            row.random_(-(2**63), None, generator=stream)
        bits = drawn.view(torch.int16)[:, : rows * width].view(-1, rows, width)
        return bits if len(self.streams) == 1 else bits[self.owners]

    def permutations(self, count: int) -> Tensor:
        """An order of `count` rows for each member, (M, count), or (1, count) where all share one."""
        orders = torch.stack([torch.randperm(count, generator=stream) for stream in self.streams])
        return orders if len(self.streams) == 1 else orders[self.owners]

    def keep(self, members: Tensor) -> None:
        """Go on with `members` (K,) alone. Streams that nobody draws from any more still run: cheap, and simple."""
        self.owners = self.owners[members]


class Linear(nn.Module):
    """(M, B, inputs) -> (M, B, outputs), drawn as the reference DLRM draws it: weights N(0, sqrt(2/(m+n))), biases
    N(0, sqrt(1/m)). Drawn for one member; `stack` makes more."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(1, outputs, inputs).normal_(0.0, math.sqrt(2 / (inputs + outputs))))
        self.bias = nn.Parameter(torch.empty(1, outputs).normal_(0.0, math.sqrt(1 / outputs)))

    def forward(self, x: Tensor) -> Tensor:
        members = len(self.weight)
        return torch.baddbmm(self.bias.unsqueeze(1), x.expand(members, -1, -1), self.weight.transpose(1, 2))


class Dropout(nn.Module):
    """Dropout at a rate of each member's own."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rates = torch.tensor([rate], dtype=torch.float64)  # (M,)
        self.bits = RandomBits([0])

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.rates.any():
            return x
        dropped = (self.rates * BIT_STEPS).round().clamp(max=BIT_STEPS - 1)
        scale = (BIT_STEPS / (BIT_STEPS - dropped)).to(x.dtype)
        least = (dropped - BIT_STEPS // 2).to(torch.int16)
        kept = self.bits.uniform(x.shape[1], x.shape[2]) >= least[:, None, None]
        return x * (kept * scale[:, None, None])


def hidden_layers(inputs: int, widths: Sequence[int], dropout: float) -> nn.Sequential:
    """(M, B, inputs) -> (M, B, widths[-1]): linear, ReLU and dropout per width."""
    steps: list[nn.Module] = []
    for before, after in zip([inputs, *widths], widths, strict=False):
        steps += [Linear(before, after), nn.ReLU(), Dropout(dropout)]
    return nn.Sequential(*steps)


def stack(networks: Sequence[Network]) -> Network:
    """The first of `networks` (all of one shape) with the members of all, in order."""
    first, *others = networks
    for name, parameter in first.named_parameters():
        parameter.data = torch.cat([parameter.data, *(other.get_parameter(name).data for other in others)])
    for name, layer in dropouts(first):
        rates = [layer.rates, *(dict(dropouts(other))[name].rates for other in others)]
        layer.rates = torch.cat(rates)
    return first


def dropouts(network: nn.Module) -> Iterable[tuple[str, Dropout]]:
    return ((name, layer) for name, layer in network.named_modules() if isinstance(layer, Dropout))


def draw_by(network: nn.Module, seeds: Sequence[int]) -> None:
    """Give each layer of dropout its random numbers, by the members' `seeds` (M)."""
    for purpose, (_, layer) in enumerate(dropouts(network), start=1):
        layer.bits = RandomBits(seeds, purpose)


def keep(network: nn.Module, members: Tensor) -> None:
    """Leave the stack only `members` (K,), in place."""
    for parameter in network.parameters():
        parameter.data = parameter.data[members]
        parameter.grad = None
    for _, layer in dropouts(network):
        layer.rates = layer.rates[members]
        layer.bits.keep(members)


def rates_of(network: nn.Module) -> list[Tensor]:
    """Of each layer of dropout, (M,)."""
    return [layer.rates for _, layer in dropouts(network)]


def set_rates(network: nn.Module, rates: Sequence[Tensor]) -> None:
    for (_, layer), its in zip(dropouts(network), rates, strict=True):
        layer.rates = its


def size(network: nn.Module) -> int:
    """M."""
    return len(next(iter(network.parameters())))


class Bags(torch.autograd.Function):
    """Sums of a table's rows: tables (M, rows, D) and lists (M or 1, B, L) of indices -> (M, B, D).

    The last row is padding: it holds zeros, adds nothing and learns nothing. torch's own `embedding_bag` takes one
    padding index, and a stack has one a member.
    """

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, tables: Tensor, lists: Tensor) -> Tensor:
        members, rows, width = tables.shape
        starts = torch.arange(members)[:, None, None] * rows
        flat = (lists + starts).view(-1, lists.shape[2])
        ctx.save_for_backward(lists)
        ctx.shape = tables.shape  # type: ignore[attr-defined]
        return nn.functional.embedding_bag(flat, tables.reshape(-1, width), mode="sum").view(members, -1, width)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *grads: Tensor) -> tuple[Tensor, None]:
        (lists,) = ctx.saved_tensors  # type: ignore[attr-defined]
        members, rows, _ = ctx.shape  # type: ignore[attr-defined]
        # How often each index stands in each list, and one product of matrices: adding row by row took five times that.
        counts = torch.zeros(*lists.shape[:2], rows, dtype=grads[0].dtype)
        counts.scatter_add_(2, lists, torch.ones(1, dtype=counts.dtype).expand_as(lists))
        gradient = torch.bmm(counts.transpose(1, 2).expand(members, -1, -1), grads[0])
        gradient[:, -1] = 0.0
        return gradient, None


class PairwiseDots(torch.autograd.Function):
    """Fields (N, F, D) -> dots of all pairs (N, F (F - 1) / 2): the strict lower triangle of Z Z^T, row by row.

    The forward is the reference's. torch's own backward of picking the triangle scatters number by number; written
    out it is (G + G^T) Z, one product of matrices.
    """

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, fields: Tensor) -> Tensor:
        ctx.save_for_backward(fields)
        count = fields.shape[1]
        return torch.bmm(fields, fields.transpose(1, 2)).flatten(1).index_select(1, lower_triangle(count))

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *grads: Tensor) -> Tensor:
        (fields,) = ctx.saved_tensors  # type: ignore[attr-defined]
        count = fields.shape[1]
        dots = torch.zeros(len(fields), count * count, dtype=fields.dtype)
        dots.index_copy_(1, lower_triangle(count), grads[0])
        square = dots.view(-1, count, count)
        return torch.bmm(square + square.transpose(1, 2), fields)


def lower_triangle(count: int) -> Tensor:
    """Places of (1,0), (2,0), (2,1), ... in a flattened square of `count`."""
    rows, columns = torch.tril_indices(count, count, offset=-1)
    return rows * count + columns
