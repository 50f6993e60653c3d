"""The one training loop, for the reducers and for the DLRM."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.losses import unshift, weighted_log_loss
from models.metrics import auc, log_loss

PREDICTION_BATCH = 8192


class Diverged(ArithmeticError):
    """The loss is no longer a number."""


@dataclass(frozen=True)
class Rows:
    """Named inputs, each (N, ·), and labels (N,) of 0 and 1."""

    inputs: Mapping[str, Tensor]
    labels: NDArray[np.int8]

    def only(self, rows: NDArray[np.bool_]) -> "Rows":
        """Those where `rows` (N,) is true."""
        kept = torch.from_numpy(np.flatnonzero(rows))
        return Rows({name: tensor[kept] for name, tensor in self.inputs.items()}, self.labels[rows])


@dataclass(frozen=True)
class Schedule:
    """How long and how fast. `patience`: epochs without a better validation log loss before it stops."""

    learning_rate: float
    weight_decay: float
    epochs: int
    patience: int
    batch_size: int


@dataclass(frozen=True)
class Epoch:
    """What an epoch came to, without dropout, unweighted and unshifted. AUC is None where a class is missing."""

    number: int
    train_log_loss: float
    validation_log_loss: float
    train_auc: float | None
    validation_auc: float | None


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Torch's random numbers from `seed` within the block; outside, as if it had not been."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


@torch.no_grad()
def predict(network: nn.Module, inputs: Mapping[str, Tensor], weights: tuple[float, float]) -> NDArray[np.float64]:
    """Calibrated probabilities (N,): dropout off, the class weights' shift taken off."""
    network.eval()
    count = len(next(iter(inputs.values())))
    parts = [
        network({name: tensor[start : start + PREDICTION_BATCH] for name, tensor in inputs.items()})
        for start in range(0, count, PREDICTION_BATCH)
    ]
    logits = torch.cat(parts) if parts else torch.empty(0)
    return torch.sigmoid(unshift(logits.double(), weights)).numpy()


def fit(
    network: nn.Module,
    train: Rows,
    validation: Rows,
    weights: tuple[float, float],
    schedule: Schedule,
    seed: int,
    on_epoch: Callable[[Epoch], None],
) -> list[Epoch]:
    """Train `network` by Adam, leave it at its epoch of least validation log loss, return every epoch.

    The same seed, rows and number of threads give the same bits. Raises Diverged.
    """
    labels = torch.from_numpy(train.labels.astype(np.float32))
    optimizer = torch.optim.Adam(network.parameters(), lr=schedule.learning_rate, weight_decay=schedule.weight_decay)
    epochs: list[Epoch] = []
    best_state = deepcopy(network.state_dict())
    with seeded(seed):
        for number in range(1, schedule.epochs + 1):
            network.train()
            for batch in torch.randperm(len(labels)).split(schedule.batch_size):
                logits = network({name: tensor[batch] for name, tensor in train.inputs.items()})
                optimizer.zero_grad()
                weighted_log_loss(logits, labels[batch], weights).backward()
                optimizer.step()
            epoch = judge(network, train, validation, weights, number)
            epochs.append(epoch)
            on_epoch(epoch)
            best = best_epoch(epochs)
            if best is epoch:
                best_state = deepcopy(network.state_dict())
            if number - best.number >= schedule.patience:
                break
    network.load_state_dict(best_state)
    network.eval()
    return epochs


def judge(network: nn.Module, train: Rows, validation: Rows, weights: tuple[float, float], number: int) -> Epoch:
    """The network as it stands after epoch `number`."""
    losses: list[float] = []
    aucs: list[float | None] = []
    for rows in (train, validation):
        probabilities = predict(network, rows.inputs, weights)
        if not np.isfinite(probabilities).all():
            raise Diverged(f"epoch {number}: the network's output is no longer a number")
        loss = log_loss(rows.labels, probabilities)
        assert loss is not None, "fit needs train and validation rows"
        losses.append(loss)
        aucs.append(auc(rows.labels, probabilities))
    return Epoch(number, losses[0], losses[1], aucs[0], aucs[1])


def best_epoch(epochs: list[Epoch]) -> Epoch:
    """The first of least validation log loss."""
    return min(epochs, key=lambda epoch: epoch.validation_log_loss)
