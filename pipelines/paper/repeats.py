"""Mean, standard deviation and t interval of figures that were repeated with other seeds."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from scipy.stats import t as student

Summary = dict[str, Any]
"""mean, std, low, high (95 %) and n; null where n is too small for them."""

CONFIDENCE = 0.95
SELECTIONS = ("test", "validation")
SPLITS = ("train", "test")


def summary(values: Iterable[float | None]) -> Summary:
    """Over the values that are there: the mean, its t interval, and the standard deviation with n - 1.

    The interval is of the mean over seeds, all on the same rows: it says nothing of other rows.
    """
    there = np.array([value for value in values if value is not None], dtype=np.float64)
    n = len(there)
    mean = float(there.mean()) if n else None
    std = float(there.std(ddof=1)) if n > 1 else None
    return {"mean": mean, "std": std, **t_interval(mean, std, n), "n": n}


def summary_over_seeds(figures: Iterable[tuple[int, float | None]]) -> Summary:
    """`summary` of the seeds' means; `figures`: (seed, value), a run or a pair of runs each. n counts seeds.

    Runs of one seed share initial weights, batches and dropout masks. They are no repeats of each other: taken as such,
    they would make intervals too narrow.
    """
    of_seed: dict[int, list[float]] = {}
    for seed, value in figures:
        if value is not None:
            of_seed.setdefault(seed, []).append(value)
    return summary(float(np.mean(values)) for values in of_seed.values())


def t_interval(mean: float | None, std: float | None, n: int | None) -> dict[str, float | None]:
    """mean ± t std / sqrt n, t Student's quantile at n - 1 degrees of freedom; nulls with fewer than two values."""
    if mean is None or std is None or n is None or n < 2:
        return {"low": None, "high": None}
    half = float(student.ppf((1 + CONFIDENCE) / 2, n - 1)) * std / n**0.5
    return {"low": mean - half, "high": mean + half}


def cells_of(runs: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The sweep's runs by model, class weights and dropout: a cell a selection, split and figure."""
    grouped: dict[tuple[str, str, float], list[Mapping[str, Any]]] = {}
    for run in runs:
        grouped.setdefault((run["model"], run["class_weights"], float(run["dropout"])), []).append(run)
    return [
        {"model": model, "class_weights": weights, "dropout": dropout}
        | {"selection": selection, "split": split, "metric": metric}
        | summary(run[f"{selection}_selected"][split].get(metric) for run in members)
        for (model, weights, dropout), members in grouped.items()
        for selection in SELECTIONS
        for split in SPLITS
        for metric in members[0][f"{selection}_selected"][split]
    ]
