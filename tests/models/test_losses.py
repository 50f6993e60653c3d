import numpy as np
import pytest
import torch

from models.losses import ClassWeights, class_weights, unshift, weighted_log_loss

PAPER = {0: 6537, 1: 50468}  # section 3.2


@pytest.mark.parametrize(
    ("kind", "negative", "positive"), [("basic", 0.8853, 0.1147), ("sqrt", 0.7354, 0.2646), ("none", 0.5, 0.5)]
)
def test_the_papers_weights(kind: ClassWeights, negative: float, positive: float) -> None:
    weights = class_weights(PAPER, kind)
    # A unit of the fourth digit is free: the counts give 0.73535 and 0.26465, which may round either way.
    assert weights == pytest.approx((negative, positive), abs=1e-4)
    assert sum(weights) == pytest.approx(1)


def test_weights_of_one_class_are_refused() -> None:
    with pytest.raises(ValueError, match="class weights `basic` need rows of both labels; there are 0 of 0 and 7 of 1"):
        class_weights({0: 0, 1: 7}, "basic")
    assert class_weights({0: 0, 1: 7}, "none") == (0.5, 0.5)


def test_loss_by_hand_member_by_member() -> None:
    logits = torch.tensor([[0.0, np.log(3.0)], [0.0, 0.0]])
    weights = torch.tensor([[0.8, 0.2], [0.5, 0.5]])
    expected = [(0.8 * np.log(2) + 0.2 * np.log(4 / 3)) / (0.8 + 0.2), np.log(2)]
    assert weighted_log_loss(logits, torch.tensor([[0.0, 1.0]]), weights).tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("kind", ["basic", "sqrt", "none"])
def test_unshift_recovers_the_share_that_the_weighted_loss_hides(kind: ClassWeights) -> None:
    """The constant at which the weighted loss is least, shifted back, is the data's own share of likes."""
    labels = torch.tensor([[1.0] * 90 + [0.0] * 10], dtype=torch.float64)
    weights = torch.tensor([class_weights({0: 10, 1: 90}, kind)], dtype=torch.float64)
    constants = torch.linspace(-4, 4, 801, dtype=torch.float64)
    losses = weighted_log_loss(constants[:, None].expand(-1, 100), labels, weights.expand(801, 2))
    best = constants[losses.argmin()].view(1, 1)
    assert torch.sigmoid(unshift(best, weights)).item() == pytest.approx(0.9, abs=1e-3)
