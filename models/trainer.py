"""The one training loop, for the reducers and for the DLRM: a stack of members at once, a single run being one member.

Members that are done leave the stack, so that the others do not pay for them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models import stacked
from models.losses import ClassWeights, unshift, weighted_log_loss
from models.metrics import auc
from models.selection import SELECTIONS, Selection

PREDICTION_BATCH = 8192  # rows times members
Floats = NDArray[np.float64]


class Diverged(ArithmeticError):
    """A network's output is no longer a number."""


@dataclass(frozen=True)
class Member:
    """What tells one network of a stack from another."""

    seed: int
    dropout: float
    class_weights: ClassWeights = "none"


@dataclass(frozen=True)
class Rows:
    """Named inputs, each (N, ·) or, where members see different ones, (M, N, ·); and labels (N,) of 0 and 1."""

    inputs: Mapping[str, Tensor]
    labels: NDArray[np.int8]

    def only(self, rows: NDArray[np.bool_]) -> "Rows":
        """Those where `rows` (N,) is true."""
        kept = torch.from_numpy(np.flatnonzero(rows))
        inputs = {name: tensor.index_select(tensor.ndim - 2, kept) for name, tensor in self.inputs.items()}
        return Rows(inputs, self.labels[rows])

    def members(self, members: Tensor) -> "Rows":
        """As `members` (K,) see them."""
        inputs = {name: tensor[members] if tensor.ndim == 3 else tensor for name, tensor in self.inputs.items()}
        return Rows(inputs, self.labels)

    def batch(self, rows: Tensor) -> dict[str, Tensor]:
        """The inputs of `rows` (M, B), or of (1, B) where all members take the same: (M, B, ·) or (1, B, ·) each."""
        return {name: batch_of(tensor, rows) for name, tensor in self.inputs.items()}


def batch_of(tensor: Tensor, rows: Tensor) -> Tensor:
    """(N, ·) or (M, N, ·) at `rows` (M, B) or (1, B)."""
    if tensor.ndim == 2:
        return tensor.index_select(0, rows.flatten()).view(*rows.shape, -1)
    if len(rows) == 1:
        return tensor.index_select(1, rows[0])
    return tensor.gather(1, rows.unsqueeze(2).expand(-1, -1, tensor.shape[2]))


@dataclass(frozen=True)
class Schedule:
    """How long and how fast. It stops after `patience` epochs without a better one, the first `least_epochs` not
    counted, or after `epochs`."""

    learning_rate: float
    weight_decay: float
    epochs: int
    patience: int
    batch_size: int
    least_epochs: int = 0


@dataclass(frozen=True)
class Figures:
    """Of one split after an epoch, each (K,), without dropout.

    log_loss: mean cross-entropy of the calibrated probabilities; loss: of the network's own, weighted, as it is
    trained; accuracy and fpr: at 0.5 of the network's own output, as the paper reads it; auc: None where not asked
    for, NaN where a class is missing.
    """

    log_loss: Floats
    loss: Floats
    accuracy: Floats
    fpr: Floats
    auc: Floats | None


@dataclass(frozen=True)
class Epoch:
    """How the members that still train stand after an epoch."""

    number: int
    members: NDArray[np.int64]  # (K,)
    figures: Mapping[str, Figures]  # split ->


@dataclass
class Best:
    """Each member at its best epoch by one selection."""

    epochs: NDArray[np.int64]  # (M,)
    scores: Floats  # (M,)
    state: dict[str, Tensor] = field(default_factory=dict)  # parameter -> (M, ...)


@dataclass(frozen=True)
class Fitted:
    """What training came to. `last`: the epoch in which each member stopped, (M,)."""

    epochs: list[Epoch]
    best: Mapping[Selection, Best]
    last: NDArray[np.int64]


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Torch's random numbers from `seed` within the block; outside, as if it had not been."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


@torch.no_grad()
def logits_of(network: nn.Module, rows: Mapping[str, Tensor]) -> Tensor:
    """(M, N): the networks' own logits, dropout off. `rows`: inputs (N, ·) or (M, N, ·)."""
    network.eval()
    members = stacked.size(network)
    size = max(PREDICTION_BATCH // members, 1)
    count = next(iter(rows.values())).shape[-2]
    parts = [
        network({name: slice_of(tensor, start, start + size) for name, tensor in rows.items()})
        for start in range(0, count, size)
    ]
    return torch.cat(parts, dim=1) if parts else torch.empty(members, 0)


def slice_of(tensor: Tensor, start: int, stop: int) -> Tensor:
    return tensor[start:stop].unsqueeze(0) if tensor.ndim == 2 else tensor[:, start:stop]


def predict(network: nn.Module, inputs: Mapping[str, Tensor], weights: Tensor) -> Floats:
    """Calibrated probabilities (M, N): dropout off, the class weights' shift (M, 2) taken off."""
    return torch.sigmoid(unshift(logits_of(network, inputs).double(), weights.double())).numpy()


def fit(
    network: nn.Module,
    watched: Mapping[str, Rows],
    weights: Tensor,
    schedule: Schedule,
    seeds: Sequence[int],
    on_epoch: Callable[[Epoch], None],
    selections: Sequence[Selection] = ("validation",),
    with_auc: bool = True,
) -> Fitted:
    """Train the members of `network` on `watched["train"]` by Adam, each as if it were alone.

    After each epoch every split of `watched` is judged. Training stops by the first of `selections`; the network is
    left, whole again, at each member's best epoch by it. `weights` (M, 2): of labels; `seeds` (M): of batches and
    dropout. The same seeds, rows, stack and number of threads give the same bits. Raises Diverged.
    """
    orders = stacked.RandomBits(seeds)
    stacked.draw_by(network, seeds)
    rates = stacked.rates_of(network)
    optimizer = torch.optim.Adam(
        network.parameters(), lr=schedule.learning_rate, weight_decay=schedule.weight_decay, fused=True
    )
    members = torch.arange(len(seeds))
    best = {name: Best(np.zeros(len(seeds), np.int64), np.full(len(seeds), np.inf)) for name in selections}
    for one in best.values():
        one.state = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    last = np.zeros(len(seeds), np.int64)
    epochs: list[Epoch] = []
    for number in range(1, schedule.epochs + 1):
        train_epoch(network, watched["train"], weights, optimizer, orders, schedule.batch_size)
        epoch = judge(network, watched, weights, members.numpy().copy(), number, with_auc)
        epochs.append(epoch)
        on_epoch(epoch)
        for name, one in best.items():
            keep_better(one, SELECTIONS[name](epoch.figures), network, members, number)
        last[members.numpy()] = number
        waited = number - np.maximum(best[selections[0]].epochs[members.numpy()], schedule.least_epochs)
        going = torch.from_numpy(np.flatnonzero(waited < schedule.patience))
        if not len(going):
            break
        if len(going) < len(members):
            members, weights = members[going], weights[going]
            watched = {split: rows.members(going) for split, rows in watched.items()}
            stacked.keep(network, going)
            orders.keep(going)
            for state in optimizer.state.values():
                state |= {name: state[name][going] for name in ("exp_avg", "exp_avg_sq")}
    stacked.set_rates(network, rates)
    restore(network, best[selections[0]])
    return Fitted(epochs, best, last)


def restore(network: nn.Module, best: Best) -> None:
    """Leave the network, whole again, as its members were at their best epochs."""
    for name, parameter in network.named_parameters():
        parameter.data = best.state[name].clone()
    network.eval()


def train_epoch(
    network: nn.Module,
    rows: Rows,
    weights: Tensor,
    optimizer: torch.optim.Optimizer,
    orders: stacked.RandomBits,
    batch_size: int,
) -> None:
    """One pass over `rows`, each member in an order of its own seed's."""
    labels = torch.from_numpy(rows.labels.astype(np.float32))
    network.train()
    for batch in orders.permutations(len(labels)).split(batch_size, dim=1):
        logits = network(rows.batch(batch))
        optimizer.zero_grad()
        weighted_log_loss(logits, labels[batch], weights).sum().backward()
        optimizer.step()


def keep_better(best: Best, scores: Floats, network: nn.Module, members: Tensor, number: int) -> None:
    """Note which of `members` (K,) are better than ever by `scores` (K,; the less the better), and their parameters."""
    better = np.flatnonzero(scores < best.scores[members.numpy()])
    if not len(better):
        return
    whose = members.numpy()[better]
    best.scores[whose] = scores[better]
    best.epochs[whose] = number
    for name, parameter in network.named_parameters():
        best.state[name][whose] = parameter.detach()[better]


def judge(
    network: nn.Module,
    watched: Mapping[str, Rows],
    weights: Tensor,
    members: NDArray[np.int64],
    number: int,
    with_auc: bool,
) -> Epoch:
    """The network as it stands after epoch `number`."""
    figures = {}
    for split, rows in watched.items():
        logits = logits_of(network, rows.inputs)
        if not logits.isfinite().all():
            raise Diverged(f"epoch {number}: the network's output is no longer a number")
        figures[split] = figures_of(logits, rows.labels, weights, with_auc)
    return Epoch(number, members, figures)


def figures_of(logits: Tensor, labels: NDArray[np.int8], weights: Tensor, with_auc: bool) -> Figures:
    """Of own logits (K, N)."""
    truth = torch.from_numpy(labels.astype(np.float32)).unsqueeze(0)
    equal = torch.full_like(weights, 0.5)
    said_liked = logits >= 0
    bad = torch.from_numpy(labels == 0)
    ranked = None
    if with_auc:
        aucs = [auc(labels, row) for row in logits.numpy()]
        ranked = np.array([np.nan if value is None else value for value in aucs])
    return Figures(
        log_loss=weighted_log_loss(unshift(logits, weights), truth, equal).double().numpy(),
        loss=weighted_log_loss(logits, truth, weights).double().numpy(),
        accuracy=(said_liked == (truth > 0.5)).double().mean(dim=1).numpy(),
        fpr=said_liked[:, bad].double().mean(dim=1).numpy(),
        auc=ranked,
    )
