"""What a recommender must beat to have a reason to be: predictors of the history numbers alone."""

import warnings
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from models.columns import Columns
from models.encoding import DenseEncoding
from models.history_numbers import ENTITIES, FOUR, history_numbers

Floats = NDArray[np.float64]
Labels = NDArray[np.int8]
NUMBER_KINDS = ("count", "mean", "std", "trend", "recency")


def floors(
    columns: Mapping[str, Columns], labels: Mapping[str, Labels], judged: tuple[str, ...], seed: int
) -> dict[str, dict[str, Floats]]:
    """Floor -> split of `judged` -> probabilities (N,).

    Fitted on `train`; only boosting's length looks at `validation`.
    """
    share = float(labels["train"].mean())
    made = {"all_positive": {split: np.full(len(labels[split]), share) for split in judged}}
    if 0 < share < 1:
        made["logistic"] = logistic(columns, labels["train"], judged)
        made["gradient_boosting"] = gradient_boosting(columns, labels, judged, seed)
    else:  # a learner that has seen one label knows no more than the share
        made |= {"logistic": made["all_positive"], "gradient_boosting": made["all_positive"]}
    return made


def logistic(columns: Mapping[str, Columns], labels: Labels, judged: tuple[str, ...]) -> dict[str, Floats]:
    """Logistic regression on four numbers: log counts and shrunken means of user and business."""
    encoding = DenseEncoding.fit(columns["train"], FOUR, texts={})
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)  # a floor that was not reached would be too low a bar
        model = LogisticRegression(max_iter=1000).fit(encoding.encode(columns["train"]), labels)
    # In float64, since scikit-learn would answer float32 in kind.
    encoded = {split: encoding.encode(columns[split]).astype(np.float64) for split in judged}
    return {split: model.predict_proba(rows)[:, 1] for split, rows in encoded.items()}


def gradient_boosting(
    columns: Mapping[str, Columns], labels: Mapping[str, Labels], judged: tuple[str, ...], seed: int
) -> dict[str, Floats]:
    """Boosted trees on all history numbers, null left null, stopped by validation log loss as the DLRM is."""
    numbers = {split: raw_numbers(columns[split]) for split in columns}
    # A number that train never or always has the same teaches nothing, and scikit-learn cannot bin it.
    spread = np.nanmax(numbers["train"], axis=0, initial=-np.inf) > np.nanmin(numbers["train"], axis=0, initial=np.inf)
    if not spread.any():
        share = float(labels["train"].mean())
        return {split: np.full(len(labels[split]), share) for split in judged}
    model = HistGradientBoostingClassifier(learning_rate=0.05, max_iter=500, early_stopping=True, random_state=seed)
    # On cores that others use too, its threads wait for each other: on one it took a thirtieth of the time.
    with threadpool_limits(1, "openmp"):
        model.fit(
            numbers["train"][:, spread],
            labels["train"],
            X_val=numbers["validation"][:, spread],
            y_val=labels["validation"],
        )
        return {split: model.predict_proba(numbers[split][:, spread])[:, 1] for split in judged}


def raw_numbers(columns: Columns) -> Floats:
    """(N, 10), NaN for null."""
    numbers = history_numbers(columns, dict.fromkeys(ENTITIES, 0.0))
    return np.stack([numbers[f"{entity}_{kind}"] for entity in ENTITIES for kind in NUMBER_KINDS], axis=1)
