"""What a recommender must beat to have a reason to be: predictors of the history numbers alone."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from models.columns import Columns
from models.encoding import DenseEncoding
from models.history_numbers import COLUMNS, ENTITIES, FOUR, history_numbers

Floats = NDArray[np.float64]
Labels = NDArray[np.int8]
NUMBER_KINDS = ("count", "mean", "std", "trend", "recency")


class Floor(Protocol):
    """A fitted predictor. It reads the columns `models.history_numbers.COLUMNS`."""

    def probabilities(self, columns: Columns) -> Floats:
        """(N,)."""
        ...


@dataclass(frozen=True)
class Constant:
    """The share of liked train rows, whatever comes."""

    share: float

    def probabilities(self, columns: Columns) -> Floats:
        return np.full(len(columns[COLUMNS[0]]), self.share)


@dataclass(frozen=True)
class Logistic:
    """Logistic regression on four numbers: log counts and shrunken means of user and business."""

    encoding: DenseEncoding
    model: LogisticRegression

    @classmethod
    def fit(cls, train: Columns, labels: Labels) -> "Logistic":
        encoding = DenseEncoding.fit(train, FOUR, texts={})
        with warnings.catch_warnings():
            warnings.simplefilter("error", ConvergenceWarning)  # a floor that was not reached would be too low a bar
            return cls(encoding, LogisticRegression(max_iter=1000).fit(encoding.encode(train), labels))

    def probabilities(self, columns: Columns) -> Floats:
        # In float64, since scikit-learn would answer float32 in kind.
        said: Floats = self.model.predict_proba(self.encoding.encode(columns).astype(np.float64))[:, 1]
        return said


@dataclass(frozen=True)
class Boosting:
    """Boosted trees on all history numbers, null left null, stopped by validation log loss as the DLRM is."""

    read: NDArray[np.bool_]  # (10,), which of `raw_numbers`
    model: HistGradientBoostingClassifier

    @classmethod
    def fit(cls, columns: Mapping[str, Columns], labels: Mapping[str, Labels], seed: int) -> "Boosting | Constant":
        """On `train`, with `validation` for its length. A constant where no number tells train rows apart."""
        numbers = {split: raw_numbers(columns[split]) for split in ("train", "validation")}
        # A number that train never or always has the same teaches nothing, and scikit-learn cannot bin it.
        lowest, highest = (
            np.nanmin(numbers["train"], axis=0, initial=np.inf),
            np.nanmax(numbers["train"], axis=0, initial=-np.inf),
        )
        read = highest > lowest
        if not read.any():
            return Constant(float(labels["train"].mean()))
        model = HistGradientBoostingClassifier(learning_rate=0.05, max_iter=500, early_stopping=True, random_state=seed)
        # On cores that others use too, its threads wait for each other: on one it took a twentieth of the time.
        with threadpool_limits(1, "openmp"):
            model.fit(
                numbers["train"][:, read],
                labels["train"],
                X_val=numbers["validation"][:, read],
                y_val=labels["validation"],
            )
        return cls(read, model)

    def probabilities(self, columns: Columns) -> Floats:
        with threadpool_limits(1, "openmp"):
            said: Floats = self.model.predict_proba(raw_numbers(columns)[:, self.read])[:, 1]
        return said


def fitted_floors(columns: Mapping[str, Columns], labels: Mapping[str, Labels], seed: int) -> dict[str, Floor]:
    """Fitted on `train`; only boosting's length looks at `validation`."""
    share = float(labels["train"].mean())
    constant = Constant(share)
    if share in (0, 1):  # a learner that has seen one label knows no more than the share
        return {"all_positive": constant, "logistic": constant, "gradient_boosting": constant}
    return {
        "all_positive": constant,
        "logistic": Logistic.fit(columns["train"], labels["train"]),
        "gradient_boosting": Boosting.fit(columns, labels, seed),
    }


def floors(
    columns: Mapping[str, Columns], labels: Mapping[str, Labels], judged: tuple[str, ...], seed: int
) -> dict[str, dict[str, Floats]]:
    """Floor -> split of `judged` -> probabilities (N,), of `fitted_floors`."""
    fitted = fitted_floors(columns, labels, seed)
    return {name: {split: floor.probabilities(columns[split]) for split in judged} for name, floor in fitted.items()}


def gradient_boosting(
    columns: Mapping[str, Columns], labels: Mapping[str, Labels], judged: tuple[str, ...], seed: int
) -> dict[str, Floats]:
    """Split of `judged` -> probabilities (N,) of `Boosting`."""
    fitted = Boosting.fit(columns, labels, seed)
    return {split: fitted.probabilities(columns[split]) for split in judged}


def raw_numbers(columns: Columns) -> Floats:
    """(N, 10), NaN for null."""
    numbers = history_numbers(columns, dict.fromkeys(ENTITIES, 0.0))
    return np.stack([numbers[f"{entity}_{kind}"] for entity in ENTITIES for kind in NUMBER_KINDS], axis=1)
