"""Vectors of reviews: a text's, or those of the photos that came with it."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from pipelines.core.visibility import Ints


@dataclass(frozen=True)
class Vectors:
    """M vectors of N reviews: a review has one, none, or (photos) several."""

    values: npt.NDArray[np.int32]  # (M, D) quantised
    owner: Ints  # (M,) which review each belongs to, ascending

    @classmethod
    def one_each(cls, values: npt.NDArray[np.int32], known: npt.NDArray[np.bool_]) -> Self:
        """From a row per review (N, D); a review has a vector where `known` (N,) says so."""
        return cls(values[known], np.flatnonzero(known))

    def taken(self, reviews: Ints) -> Self:
        """The vectors of `reviews` (n,), as those of a table that holds just them, in their order."""
        first = np.searchsorted(self.owner, reviews, "left")
        counts = np.searchsorted(self.owner, reviews, "right") - first
        of = np.repeat(np.arange(len(reviews)), counts)
        at = np.arange(len(of)) + np.repeat(first - np.cumsum(counts) + counts, counts)
        return type(self)(self.values[at], of)

    def sums(self, reviews: Ints) -> tuple[Ints, Ints]:
        """Sums (n, D) and counts (n, 1) of the vectors that each of `reviews` (n,) has."""
        some = self.taken(reviews)
        counts = np.bincount(some.owner, minlength=len(reviews)).astype(np.int64)
        sums = np.zeros((len(reviews), self.values.shape[1]), np.int64)
        if counts.max(initial=0) <= 1:
            sums[some.owner] = some.values
        else:
            np.add.at(sums, some.owner, some.values)
        return sums, counts[:, None]

    def joined(self, more: Self, reviews: int) -> Self:
        """These, of the first `reviews` reviews, and `more`, of those that follow."""
        return type(self)(np.concatenate([self.values, more.values]), np.append(self.owner, more.owner + reviews))
