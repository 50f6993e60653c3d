"""A threshold under which bad recommendations are rarer than promised, with stated confidence.

Tong, Feng and Li (2018), "Neyman-Pearson classification algorithms and NP receiver operating characteristics",
proposition 1 and algorithm 1: an order statistic of the disliked rows of calibration data, chosen by a binomial tail.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from models.metrics import Labels

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Promise:
    """Recommend what is *above* `threshold`, not at it. None where there are fewer than `needed` `negatives`."""

    threshold: float | None
    negatives: int
    needed: int

    def recommended(self, probabilities: Floats) -> NDArray[np.bool_] | None:
        return None if self.threshold is None else probabilities > self.threshold


def promise(labels: Labels, probabilities: Floats, alpha: float, delta: float) -> Promise:
    """The lowest threshold that holds FPR <= `alpha` with probability >= 1 - `delta`, from calibration rows (N,).

    It assumes that the disliked rows here and those to come are independent draws of one distribution, and that the
    model has not been fitted on the rows here. By time the first need not hold: later users and places are others. And
    several rows of one user count for less than as many of several. The promise is over calibration sets: of many
    made so, a share `delta` may break it. Equal probabilities are counted as kept out, which errs on the safe side.
    """
    disliked = np.sort(probabilities[labels == 0])
    needed = negatives_needed(alpha, delta)
    if len(disliked) < needed:
        return Promise(None, len(disliked), needed)
    return Promise(float(disliked[order_statistic(len(disliked), alpha, delta) - 1]), len(disliked), needed)


def negatives_needed(alpha: float, delta: float) -> int:
    """The least n with (1 - alpha)^n <= delta: under so many not even the highest of them is high enough."""
    n = max(math.ceil(math.log(delta) / math.log1p(-alpha)) - 1, 1)  # the quotient's last bits may be wrong
    while violation(n, n, alpha) > delta:
        n += 1
    return n


def order_statistic(negatives: int, alpha: float, delta: float) -> int:
    """The least k, from 1, for which `violation` is at most delta. ValueError where there are too few negatives."""
    chances = violation(np.arange(1, negatives + 1), negatives, alpha)
    if chances[-1] > delta:
        raise ValueError(f"{negatives} negatives cannot promise {alpha} at {delta}: {chances[-1]:.3g} may violate it")
    return int(np.argmax(chances <= delta)) + 1


def violation(k: int | NDArray[np.int64], negatives: int, alpha: float) -> Floats:
    """The chance that FPR is above alpha where the threshold is the k-th lowest of n negatives, at most:

    sum over j = k..n of C(n, j) (1 - alpha)^j alpha^(n - j).
    """
    return np.asarray(binom.sf(np.asarray(k) - 1, negatives, 1 - alpha), np.float64)
