"""One stack of the paper's runs: trained as the paper does, judged at the epochs that test and validation choose."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch

from models.metrics import TARGET_TPR, figures, fpr_at_tpr
from models.selection import Selection
from models.trainer import Best, Epoch, Member, Rows, figures_of, logits_of, restore
from models.variants import VARIANTS
from pipelines.core.params import Params
from pipelines.learning import (
    Splits,
    encoding_for,
    fit_encodings,
    fit_reducers,
    prepare,
    rows_for,
    train_stack,
)

# Under what name a run keeps what a selection chose. Training stops by the first.
SELECTED: Mapping[str, Selection] = {
    "test_selected": "paper",
    "validation_fpr_selected": "validation_fpr",
    "validation_selected": "validation",
}
Run = dict[str, Any]


class Stack(NamedTuple):
    """Runs that are trained at once."""

    model: str
    members: tuple[Member, ...]


def train_runs(splits: Splits, stack: Stack, params: Params, on_epoch: Callable[[Epoch], None]) -> list[Run]:
    """The runs of one stack, in its order. `params`: `paper_params`."""
    variant, train = VARIANTS[stack.model], splits["train"]
    vectors = fit_encodings(train.columns, variant)
    reducers = fit_reducers(splits, vectors, params, [member.seed for member in stack.members], None)
    encoding = encoding_for(train.columns, variant, vectors, params)
    made = prepare(train, encoding, reducers, params, stack.members)
    fitted = train_stack(made, splits, params, stack.members, on_epoch, tuple(SELECTED.values()), with_auc=False)
    joint = params.reduce.mode == "joint"
    network = made.network if joint else made.network.dlrm
    watched = {split: rows_for(made, splits[split], joint) for split in ("train", "test")}
    chosen = {}
    for name, selection in SELECTED.items():
        restore(network, fitted.best[selection])
        chosen[name] = of_selection(network, watched, made.weights, fitted.best[selection])
    return [
        {
            "model": stack.model,
            "class_weights": member.class_weights,
            "dropout": member.dropout,
            "seed": member.seed,
            "epochs": int(fitted.last[i]),
        }
        | {name: by_member[i] for name, by_member in chosen.items()}
        for i, member in enumerate(stack.members)
    ]


def of_selection(network: torch.nn.Module, watched: Mapping[str, Rows], weights: torch.Tensor, best: Best) -> list[Run]:
    """What a selection chose, a member each: its epoch, and its figures on train and test."""
    made: list[Run] = [{"epoch": int(epoch)} for epoch in best.epochs]
    for split, rows in watched.items():
        logits = logits_of(network, rows.inputs)
        said = figures_of(logits, rows.labels, weights, with_auc=split == "test")
        for i, run in enumerate(made):
            values = {name: getattr(said, name)[i] for name in ("accuracy", "fpr", "loss", "log_loss")}
            run[split] = {name: none_for_nan(value) for name, value in values.items()}
            if said.auc is not None:
                own = torch.sigmoid(logits[i].double()).numpy()
                run[split] |= {
                    "auc": none_for_nan(said.auc[i]),
                    "tpr": figures(rows.labels, own, 0.5)["tpr"],
                    "fpr_at_tpr_90": fpr_at_tpr(rows.labels, own, TARGET_TPR),
                }
    return made


def none_for_nan(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
