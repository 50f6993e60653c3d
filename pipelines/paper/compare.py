"""Both models and their floors beside each other, on the same test rows, users and draws, with intervals.

A model is the mean of its networks' probabilities, each network beside it. Whatever the parameter `selection` says,
epochs and thresholds are validation's here, and test is touched once. Networks that are trained are kept in the cache
folder, so that an interrupted comparison goes on where it was.
"""

import argparse
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from models.bootstrap import FIGURES, Draws, draw_users, interval, replicated, replicated_means
from models.columns import Unencodable
from models.curves import calibrated, roc
from models.metrics import Floats, Labels, figures, fpr_at_tpr
from models.neyman_pearson import promise
from models.ranking import Ranking
from pipelines.core.command import run_stage
from pipelines.core.errors import UserError
from pipelines.core.json_files import write_json
from pipelines.core.params import Params
from pipelines.core.progress import progress
from pipelines.core.training_rows import TrainingRows, fingerprint, read_splits
from pipelines.paper.ablation import Floor, ablation, bootstraps, with_data
from pipelines.paper.catalogue import Catalogue, catalogue_of, last_instant, wishes_of
from pipelines.paper.described import data_of
from pipelines.paper.judged import (
    LEARNED_FLOORS,
    NETWORKS,
    Contender,
    Splits,
    floor_models,
    members_of,
    network,
    said_by,
)
from pipelines.paper.trained import train_groups

PAIRS = [("proposed", "baseline"), *((network, floor) for network in NETWORKS for floor in LEARNED_FLOORS)]
OF_ROWS = ("auc", "log_loss", "pr_auc_negative", "fpr_at_tpr_90", "ece", "n")
OF_SEEDS = ("auc", "log_loss", "pr_auc_negative", "fpr_at_tpr_90")
RANKED = {"ndcg_at_10": "ndcg", "recall_at_10": "recall"}  # figure -> field of Ranking
K = 10


# --- figures ---------------------------------------------------------------------------------------------------------


def figures_of(labels: Labels, probabilities: Floats) -> dict[str, float | int | None]:
    """Those of `models.metrics` that need no threshold, and FPR at both TPRs."""
    made = figures(labels, probabilities, None)
    return {name: made[name] for name in OF_ROWS} | {"fpr_at_tpr_95": fpr_at_tpr(labels, probabilities, 0.95)}


def difference(a: float | int | None, b: float | int | None) -> float | None:
    return None if a is None or b is None else float(a - b)


def threshold(validation: Labels, test: Labels, model: Contender, alpha: float, delta: float) -> dict[str, Any]:
    """The threshold that validation promises, and what became of the promise on test."""
    made = promise(validation, model.validation, alpha, delta)
    recommended = made.recommended(model.test)
    shares: dict[str, float | None] = {"test_fpr": None, "test_tpr": None}
    for name, label in (("test_fpr", 0), ("test_tpr", 1)):
        if recommended is not None and (test == label).any():
            shares[name] = float(recommended[test == label].mean())
    return {
        "alpha": alpha,
        "delta": delta,
        "threshold": made.threshold,
        "negatives": made.negatives,
        "needed": made.needed,
    } | shares


def of_model(splits: Splits, model: Contender, params: Params) -> dict[str, Any]:
    """What needs no draws: figures by rows and by network, curves, the promise."""
    test = splits["test"]
    seeds = [
        {"seed": params.seed + i} | {name: figures_of(test.labels, said)[name] for name in OF_SEEDS}
        for i, said in enumerate(model.members.get("test", []))
    ]
    return {
        "rows": {name: figures_of(test.labels[some], model.test[some]) for name, some in rows_of(test).items()},
        "seeds": seeds,
        "curves": {
            "roc": [list(point) for point in roc(test.labels, model.test)],
            "calibration": [list(bin_) for bin_ in calibrated(test.labels, model.test)],
        },
        "threshold": threshold(
            splits["validation"].labels, test.labels, model, params.compare.alpha, params.compare.delta
        ),
    }


def rows_of(test: TrainingRows) -> dict[str, NDArray[np.bool_]]:
    return {"all": np.ones(len(test.labels), np.bool_), "warm": test.warm, "cold": ~test.warm}


def paired(
    models: Mapping[str, Mapping[str, Any]], replicates: Mapping[tuple[str, str], Mapping[str, Floats]]
) -> list[dict[str, Any]]:
    """Every pair's differences, a less b, on the same draws. `replicates`: (model, rows) -> figure -> (R,)."""
    return [
        {"a": a, "b": b, "rows": rows, "metric": metric}
        | {"difference": difference(models[a]["rows"][rows][metric], models[b]["rows"][rows][metric])}
        | interval(replicates[a, rows][metric] - replicates[b, rows][metric])
        for a, b in PAIRS
        for rows in models[a]["rows"]
        for metric in FIGURES
    ]


# --- rankings --------------------------------------------------------------------------------------------------------


def rankings(
    catalogue: Catalogue | None, candidates: int, models: Mapping[str, Contender], params: Params
) -> tuple[dict[str, dict[str, Any]], list[dict[str, Any]]]:
    """Each model's ranking figures, and the pairs' differences; nulls where there is nobody to rank for."""
    none: dict[str, Any] = dict.fromkeys(RANKED)
    if catalogue is None:
        nothing = none | {"users": 0, "candidates": candidates}
        return {
            name: nothing | {"intervals": {figure: interval(np.zeros(0)) for figure in RANKED}} for name in models
        }, []
    users = len(catalogue.wishes.users)
    with progress(len(models) * users, "rank", "user") as bar:
        ranked = {name: catalogue.rank(model.reads, model.score, K, bar.update) for name, model in models.items()}
    draws = draw_users(users, params.compare.replicates, params.compare.seed)
    made = {
        name: {figure: float(getattr(one, field).mean()) for figure, field in RANKED.items()}
        | {"users": users, "candidates": candidates, "intervals": ranking_intervals(one, draws)}
        for name, one in ranked.items()
    }
    differences = [
        {"a": a, "b": b, "metric": figure, "difference": float(by_user.mean())}
        | interval(replicated_means(by_user, draws))
        for a, b in PAIRS
        for figure, field in RANKED.items()
        for by_user in [getattr(ranked[a], field) - getattr(ranked[b], field)]
    ]
    return made, differences


def ranking_intervals(ranked: Ranking, draws: Draws) -> dict[str, Any]:
    return {figure: interval(replicated_means(getattr(ranked, field), draws)) for figure, field in RANKED.items()}


# --- the stage -------------------------------------------------------------------------------------------------------


def compare(splits: Splits, args: argparse.Namespace, params: Params) -> dict[str, Any]:
    """What compare.json holds. `args`: `training_set`, `repo` and `registry`, the latter two for the catalogue."""
    test = splits["test"]
    names, users = np.unique(test.table["user_id"].to_numpy(), return_inverse=True)
    draws = draw_users(len(names), params.compare.replicates, params.compare.seed)
    groups = with_data(splits["train"].columns)
    stacks = train_groups(splits, groups, params, members_of(params), fingerprint(args.training_set))
    said = {name: said_by(stack, splits) for name, stack in stacks.items()}
    judged = {name: network(stacks[name], said[name]) for name in NETWORKS} | floor_models(splits, params.seed)
    models = {name: of_model(splits, model, params) for name, model in judged.items()}
    replicates = {}
    with progress(len(judged) * len(rows_of(test)) + bootstraps(said), "bootstrap", "model") as bar:
        for name, model in judged.items():
            for rows, some in rows_of(test).items():
                replicates[name, rows] = replicated(test.labels[some], model.test[some], users[some], draws)
                bar.update()
        floors = {
            name: Floor(models[name]["rows"]["all"]["auc"], replicates[name, "all"]["auc"]) for name in LEARNED_FLOORS
        }
        labels = {split: rows.labels for split, rows in splits.items()}
        ablated = ablation(labels, said, floors, users, draws, params.compare.seed, bar.update)
    wishes = wishes_of(splits, params.compare.ranked_users, params.compare.seed)
    cut = last_instant(test, params)
    catalogue = catalogue_of(wishes, cut, args.repo, args.registry) if wishes.users else None
    ranked, paired_ranking = rankings(catalogue, len(wishes.businesses), judged, params)
    for name, made in models.items():
        made["intervals"] = {
            rows: {figure: interval(values) for figure, values in replicates[name, rows].items()}
            for rows in rows_of(test)
        }
        made["ranking"] = ranked[name]
    return {
        "data": data_of(splits, params) | {"users": len(names)},
        "models": models,
        "paired": paired(models, replicates),
        "paired_ranking": paired_ranking,
        "ablation": ablated,
    }


def main(args: argparse.Namespace, params: Params) -> None:
    torch.set_num_threads(1)  # as in training: the last bits depend on it
    splits = read_splits(args.training_set, None)
    try:
        content = compare(splits, args, params.model_copy(update={"selection": "validation"}))
    except Unencodable as error:
        raise UserError(f"{args.training_set}: {error}; run `dvc repro` to remake the tables") from None
    write_json(content, args.out)


if __name__ == "__main__":
    run_stage(
        main,
        __doc__,
        {
            "training-set": "folder of train, validation and test",
            "repo": "the Feast feature repo",
            "registry": "the dump of what is registered",
            "out": "the comparison, as JSON",
        },
    )
