"""Class weights (paper, section 5.1), the loss they weigh, and the way back to calibrated probabilities."""

import math
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

ClassWeights = Literal["basic", "sqrt", "none"]


def class_weights(counts: Mapping[int, int], kind: ClassWeights) -> tuple[float, float]:
    """Weights of labels 0 and 1 that sum to 1. `counts`: label -> train rows.

    basic: 1 - n_label / n; sqrt: its square root; none: a half each. ValueError where a label has no rows, since its
    weight would then be the only one.
    """
    if kind == "none":
        return 0.5, 0.5
    total = counts[0] + counts[1]
    if not counts[0] or not counts[1]:
        raise ValueError(
            f"class weights `{kind}` need rows of both labels; there are {counts[0]} of 0 and {counts[1]} of 1"
        )
    raw = [1 - counts[label] / total for label in (0, 1)]
    if kind == "sqrt":
        raw = [math.sqrt(weight) for weight in raw]
    return raw[0] / sum(raw), raw[1] / sum(raw)


def weighted_log_loss(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """(M,): each member's mean cross-entropy of logits (M, B), each row counted by its label's weight, over their sum.

    labels (M or 1, B), weights (M, 2) of labels 0 and 1.
    """
    of_row = torch.where(labels > 0.5, weights[:, 1:], weights[:, :1])
    losses = binary_cross_entropy_with_logits(logits, labels.expand_as(logits), reduction="none")
    return (losses * of_row).sum(dim=1) / of_row.sum(dim=1)


def unshift(logits: Tensor, weights: Tensor) -> Tensor:
    """Logits (M, B) of the data from those of the weighted data.

    A loss that weighs labels is least where the odds are w1 / w0 times the true ones; so their log is taken off again,
    and log loss, calibration and serving see probabilities whatever the weights (M, 2).
    """
    return logits - torch.log(weights[:, 1:] / weights[:, :1])
