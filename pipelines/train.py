"""The DLRM: trained on the training set and the reducers' fields, with learning curves by DVCLive."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from dvclive import Live
from torch import nn

from models import saved
from models.columns import Unencodable
from models.recommender import TrainedRecommender, build_reducers
from models.reducer import Reducer
from models.trainer import Epoch, Member
from models.variants import VARIANTS
from models.vectors import VectorEncoding
from pipelines.core.command import run_stage
from pipelines.core.errors import UserError
from pipelines.core.params import Params
from pipelines.core.tables import whole_file
from pipelines.core.training_rows import TrainingRows, fingerprint, read_splits
from pipelines.learning import advance, encoding_for, epochs_bar, prepare, schedule_of, train_stack

# What the model was made with, and says of itself.
KEPT = {"protocol", "model", "selection", "dropout", "class_weights", "seed", "networks", "train", "paper"}


@dataclass(frozen=True)
class SavedReducers:
    """What lies in the reducers' file."""

    stacks: dict[str, Reducer]  # by field
    vectors: dict[str, VectorEncoding]  # by field
    about: dict[str, Any]


def members_of(params: Params) -> list[Member]:
    """The networks whose mean is the model, one a seed."""
    return [Member(seed, params.dropout, params.class_weights) for seed in params.seeds]


def load_reducers(path: Path, expected: str, params: Params) -> SavedReducers:
    """UserError unless they were made for this model, from this training set, in this mode."""
    try:
        tensors, about = saved.load(path, "reducer")
        with saved.described(path):
            check_origin(path, about, expected, params)
            fields = VARIANTS[params.model].vectors
            vectors = {field: VectorEncoding.from_json(about["encoding"][field]) for field in fields}
            stacks = build_reducers(about["params"]["reduce"], vectors, params.seeds)
        saved.fill(nn.ModuleDict(stacks), tensors, path)
    except saved.UnusableWeights as error:
        raise UserError(f"{error}; run `dvc repro reduce`") from None
    return SavedReducers(stacks, vectors, about)


def check_origin(path: Path, about: dict[str, Any], expected: str, params: Params) -> None:
    """UserError where the reducers are another model's, training set's or mode's."""
    model, mode = about["params"]["model"], about["params"]["reduce"]["mode"]
    if model != params.model:
        raise UserError(f"{path}: made for the model {model}, wanted {params.model}; run `dvc repro reduce`")
    if about["fingerprint"] != expected:
        raise UserError(f"{path}: made from another training set; run `dvc repro reduce`")
    if mode != params.reduce.mode:
        raise UserError(f"{path}: made in mode {mode}; run `dvc repro reduce`")
    if about["params"]["networks"] != params.networks:
        raise UserError(f"{path}: made for {about['params']['networks']} networks; run `dvc repro reduce`")


def log_epoch(live: Live, epoch: Epoch) -> None:
    """One point on each learning curve, the members' mean."""
    for split, figures in epoch.figures.items():
        live.log_metric(f"{split}/log_loss", float(figures.log_loss.mean()))
        if figures.auc is not None and np.isfinite(figures.auc).all():
            live.log_metric(f"{split}/auc", float(figures.auc.mean()))
        if split == "test":
            live.log_metric(f"{split}/fpr", float(figures.fpr.mean()))
    live.next_step()


def trained(
    splits: dict[str, TrainingRows], reducers: SavedReducers, params: Params, print_: str, curves: Path
) -> TrainedRecommender:
    """The model at its best epoch; the learning curves in the folder `curves`. `print_`: the set's fingerprint."""
    members = members_of(params)
    encoding = encoding_for(splits["train"].columns, VARIANTS[params.model], reducers.vectors, params)
    made = prepare(splits["train"], encoding, reducers.stacks, params, members)
    kept = params.model_dump(include=KEPT) | {"history": {"numbers": params.history.numbers}}
    kept |= {"reduce": reducers.about["params"]["reduce"]}
    with (
        Live(str(curves), dvcyaml=None, save_dvc_exp=False, report=None) as live,
        epochs_bar(schedule_of(params).epochs, "train") as bar,
    ):

        def on_epoch(epoch: Epoch) -> None:
            log_epoch(live, epoch)
            advance(bar, epoch)

        fitted = train_stack(made, splits, params, members, on_epoch)
        live.summary["best_epoch"] = int(fitted.best[params.selection].epochs.max())
    service = reducers.about["feature_service"]
    return TrainedRecommender(made.network, made.encoding, made.weights, service, print_, kept)


def main(args: argparse.Namespace, params: Params) -> None:
    torch.set_num_threads(1)  # the order of sums, and so the last bits, depend on the number of threads
    splits = read_splits(args.training_set, params.model)
    print_ = fingerprint(args.training_set)
    reducers = load_reducers(args.reducer, print_, params)
    try:
        model = trained(splits, reducers, params, print_, args.live)
    except Unencodable as error:
        raise UserError(f"{args.training_set}: {error}; run `dvc repro` to remake the tables") from None
    with whole_file(args.out) as temporary:
        model.save(temporary)


if __name__ == "__main__":
    run_stage(
        main,
        __doc__,
        {
            "training-set": "folder of train, validation and test",
            "reducer": "the reducers' safetensors file",
            "out": "the model's safetensors file",
            "live": "folder for the learning curves",
        },
    )
