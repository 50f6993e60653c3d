"""The DLRM: trained on the training set and the reducers' fields, with learning curves by DVCLive."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from dvclive import Live
from tqdm import tqdm

from models import saved
from models.columns import Columns, Unencodable
from models.encoding import DenseEncoding, Encoding
from models.history_numbers import used_numbers
from models.losses import class_weights
from models.recommender import TrainedRecommender, build
from models.tags import ListEncoding, OneHotEncoding
from models.trainer import Diverged, Epoch, Rows, Schedule, best_epoch, fit, seeded
from models.variants import VARIANTS
from models.vectors import VectorEncoding
from pipelines.core.command import run_stage
from pipelines.core.errors import UserError
from pipelines.core.params import Params
from pipelines.core.tables import whole_file
from pipelines.core.training_rows import TrainingRows, fingerprint, read_splits, reducers_part
from pipelines.core.vocabulary import MOST_SUBTYPES, PRICE_TAGS, restaurant_types

OnEpoch = Callable[[Epoch], None]


@dataclass(frozen=True)
class SavedReducers:
    """What lies in the reducers' file."""

    tensors: dict[str, torch.Tensor]
    vectors: dict[str, VectorEncoding]  # by field
    about: dict[str, Any]


def encoding_for(train: Columns, vectors: dict[str, VectorEncoding], params: Params) -> Encoding:
    """What the model reads, fitted on train rows, with `vectors` as the reducers had them."""
    variant = VARIANTS[params.model]
    return Encoding(
        DenseEncoding.fit(train, used_numbers(params.history.numbers), variant.texts),
        OneHotEncoding(variant.price_tag, PRICE_TAGS) if variant.price_tag else None,
        {field: ListEncoding(name, restaurant_types(), MOST_SUBTYPES) for field, name in variant.lists.items()},
        vectors,
    )


def prepare(
    splits: dict[str, TrainingRows], reducers: SavedReducers, params: Params, print_: str
) -> TrainedRecommender:
    """An untrained DLRM over the given reducers; `print_`: the training set's fingerprint."""
    about = reducers.about
    encoding = encoding_for(splits["train"].columns, reducers.vectors, params)
    kept = params.model_dump(include={"protocol", "model", "dropout", "class_weights", "seed", "train"})
    kept |= {"history": {"numbers": params.history.numbers}, "reduce": about["params"]["reduce"]}
    try:
        with seeded(params.seed):
            network = build(kept, encoding)
        weights = class_weights(label_counts(splits["train"]), params.class_weights)
    except ValueError as error:
        raise UserError(f"params.yaml: {error}") from None
    network.reducers.load_state_dict(reducers.tensors)
    return TrainedRecommender(network, encoding, weights, about["feature_service"], print_, kept)


def label_counts(rows: TrainingRows) -> dict[int, int]:
    return {label: int((rows.labels == label).sum()) for label in (0, 1)}


def learn(model: TrainedRecommender, splits: dict[str, TrainingRows], params: Params, on_epoch: OnEpoch) -> list[Epoch]:
    """Train `model` in place. Reducers that are fitted already stay as they are, their projections made once."""
    mode = model.params["reduce"]["mode"]
    joint = mode == "joint"
    train, validation = (rows_for(model, splits[split], joint) for split in ("train", "validation"))
    if mode == "split":
        train = train.only(~reducers_part(splits["train"], params.protocol))
    schedule = Schedule(**params.train.model_dump(include=set(Schedule.__annotations__)))
    network = model.network if joint else model.network.dlrm
    try:
        return fit(network, train, validation, model.weights, schedule, params.seed, on_epoch)
    except Diverged as error:
        raise UserError(f"train: {error}; lower `train.learning_rate` ({params.train.learning_rate})") from None


def rows_for(model: TrainedRecommender, rows: TrainingRows, joint: bool) -> Rows:
    """Inputs of the whole network, or of the DLRM alone."""
    inputs = model.inputs(rows.columns)
    return Rows(inputs if joint else model.network.project(inputs), rows.labels)


def load_reducers(path: Path, expected: str, params: Params) -> SavedReducers:
    """UserError unless they were made for this model, from this training set, in this mode."""
    try:
        tensors, about = saved.load(path, "reducer")
        with saved.described(path):
            check_origin(path, about, expected, params)
            fields = VARIANTS[params.model].vectors
            vectors = {field: VectorEncoding.from_json(about["encoding"][field]) for field in fields}
    except saved.UnusableWeights as error:
        raise UserError(f"{error}; run `dvc repro reduce`") from None
    return SavedReducers(tensors, vectors, about)


def check_origin(path: Path, about: dict[str, Any], expected: str, params: Params) -> None:
    """UserError where the reducers are another model's, training set's or mode's."""
    model, mode = about["params"]["model"], about["params"]["reduce"]["mode"]
    if model != params.model:
        raise UserError(f"{path}: made for the model {model}, wanted {params.model}; run `dvc repro reduce`")
    if about["fingerprint"] != expected:
        raise UserError(f"{path}: made from another training set; run `dvc repro reduce`")
    if mode != params.reduce.mode:
        raise UserError(f"{path}: made in mode {mode}; run `dvc repro reduce`")


def log_epoch(live: Live, epoch: Epoch) -> None:
    """One point on each learning curve."""
    figures = {
        "train/log_loss": epoch.train_log_loss,
        "validation/log_loss": epoch.validation_log_loss,
        "train/auc": epoch.train_auc,
        "validation/auc": epoch.validation_auc,
    }
    for name, value in figures.items():
        if value is not None:
            live.log_metric(name, value)
    live.next_step()


def trained(
    splits: dict[str, TrainingRows], reducers: SavedReducers, params: Params, print_: str, curves: Path
) -> TrainedRecommender:
    """The model at its best epoch; the learning curves in the folder `curves`."""
    model = prepare(splits, reducers, params, print_)
    with (
        Live(str(curves), dvcyaml=None, save_dvc_exp=False, report=None) as live,
        tqdm(total=params.train.epochs, desc="train", unit="epoch") as bar,
    ):

        def on_epoch(epoch: Epoch) -> None:
            log_epoch(live, epoch)
            bar.set_postfix(validation=f"{epoch.validation_log_loss:.4f}", refresh=False)
            bar.update()

        epochs = learn(model, splits, params, on_epoch)
        live.summary["best_epoch"] = best_epoch(epochs).number
    return model


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
