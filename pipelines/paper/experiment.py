"""One line of the experiment of `backwards`: who learned what from what, and what became of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from models.columns import Floats
from models.metrics import auc, fpr_at_tpr, share_above, threshold_at_tpr
from pipelines.paper.left_out import Kind
from pipelines.paper.repeats import summary

Labelled = Literal["true", "permuted", "permuted after"]
LABELS: tuple[Labelled, ...] = get_args(Labelled)
Reads = Literal["numbers", "numbers and entity text"]
READS: tuple[Reads, ...] = get_args(Reads)
Learner = Literal["DLRM", "gradient_boosting"]
LEARNERS: tuple[Learner, ...] = get_args(Learner)
SPLITS = ("train", "held", "test")


@dataclass(frozen=True)
class Judged:
    """What one learner came to from one seed; split -> labels and probabilities (N,)."""

    labels: Mapping[str, NDArray[np.int8]]
    probabilities: Mapping[str, Floats]

    def auc(self, split: str) -> float | None:
        return auc(self.labels[split], self.probabilities[split])

    def fpr(self, split: str, tpr: float) -> float | None:
        """Where TPR on these very rows is `tpr`."""
        return fpr_at_tpr(self.labels[split], self.probabilities[split], tpr)

    def at_train_threshold(self, split: str, label: int, tpr: float) -> float | None:
        """Share of rows with `label` at or above the threshold at which train's TPR is `tpr`."""
        threshold = threshold_at_tpr(self.labels["train"], self.probabilities["train"], tpr)
        return share_above(self.probabilities[split][self.labels[split] == label], threshold)


@dataclass(frozen=True)
class Experiment:
    """One line of the table, once for each seed."""

    learner: Learner
    features: Kind
    labels: Labelled
    reads: Reads
    judged: Sequence[Judged]
    # Split -> (N,) which user and business each row is of: rows of one such pair are no two draws of luck.
    pairs: Mapping[str, NDArray[np.int64]]

    def counts(self) -> dict[str, list[int]]:
        """Split -> disliked and liked rows; of permutations, which move them between splits, the mean, rounded."""
        return {
            split: np.mean([np.bincount(one.labels[split], minlength=2) for one in self.judged], axis=0)
            .round()
            .astype(int)
            .tolist()
            for split in SPLITS
        }

    def line(self) -> dict[str, Any]:
        """JSON: means and standard deviations over seeds, null where a figure has no meaning."""
        made: dict[str, Any] = {
            "model": self.learner,
            "features": self.features,
            "labels": self.labels,
            "reads": self.reads,
            "seeds": len(self.judged),
            "counts": self.counts(),
        }
        for split in SPLITS:
            over_seeds = summary(one.auc(split) for one in self.judged)
            made |= {f"{split}_auc": over_seeds["mean"], f"{split}_std": over_seeds["std"]}
        return made
