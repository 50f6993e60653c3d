"""The DLRM: trained on the training set and the reducer's field, with learning curves by DVCLive."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from dvclive import Live
from tqdm import tqdm

from models import saved
from models.encoding import DenseEncoding, TextEncoding, used_numbers
from models.losses import class_weights
from models.recommender import TrainedRecommender, build
from models.reducer import Recommender
from models.trainer import Diverged, Epoch, Rows, Schedule, best_epoch, fit, seeded
from pipelines.core.command import run_stage
from pipelines.core.errors import UserError
from pipelines.core.params import Params
from pipelines.core.tables import whole_file
from pipelines.core.training_rows import TrainingRows, fingerprint, read_splits, reducers_part

OnEpoch = Callable[[Epoch], None]


def prepare(
    splits: dict[str, TrainingRows],
    reducer: tuple[dict[str, torch.Tensor], dict[str, Any]],
    params: Params,
    print_: str,
) -> TrainedRecommender:
    """An untrained DLRM over the given reducer (tensors and description); `print_`: the training set's fingerprint."""
    tensors, about = reducer
    train = splits["train"].columns
    text = TextEncoding.from_json(about["encoding"]["text"])
    dense = DenseEncoding.fit(train, used_numbers(params.history.numbers))
    kept = params.model_dump(include={"protocol", "model", "dropout", "class_weights", "seed", "train"})
    kept |= {"history": {"numbers": params.history.numbers}, "reduce": about["params"]["reduce"]}
    try:
        with seeded(params.seed):
            network = build(kept, len(dense.names), text.width)
        weights = class_weights(label_counts(splits["train"]), params.class_weights)
    except ValueError as error:
        raise UserError(f"params.yaml: {error}") from None
    network.reducer.load_state_dict(tensors)
    return TrainedRecommender(network, dense, text, weights, about["feature_service"], print_, kept)


def label_counts(rows: TrainingRows) -> dict[int, int]:
    return {label: int((rows.labels == label).sum()) for label in (0, 1)}


def learn(model: TrainedRecommender, splits: dict[str, TrainingRows], params: Params, on_epoch: OnEpoch) -> list[Epoch]:
    """Train `model` in place. A reducer that is fitted already stays as it is, its projections made once."""
    mode = model.params["reduce"]["mode"]
    joint = mode == "joint"
    train, validation = (rows_for(model.network, model, splits[split], joint) for split in ("train", "validation"))
    if mode == "split":
        train = train.only(~reducers_part(splits["train"], params.protocol))
    schedule = Schedule(**params.train.model_dump(include=set(Schedule.__annotations__)))
    network = model.network if joint else model.network.dlrm
    try:
        return fit(network, train, validation, model.weights, schedule, params.seed, on_epoch)
    except Diverged as error:
        raise UserError(f"train: {error}; lower `train.learning_rate` ({params.train.learning_rate})") from None


def rows_for(network: Recommender, model: TrainedRecommender, rows: TrainingRows, joint: bool) -> Rows:
    """Inputs of the whole network, or of the DLRM alone."""
    inputs = model.inputs(rows.columns)
    if not joint:
        inputs["text"] = network.reducer.project(inputs["text"])
    return Rows(inputs, rows.labels)


def load_reducer(path: Path, expected: str, params: Params) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors and description; UserError unless it was made from this training set in this mode."""
    try:
        tensors, about = saved.load(path, "reducer")
    except saved.UnusableWeights as error:
        raise UserError(f"{error}; run `dvc repro reduce`") from None
    if about["fingerprint"] != expected:
        raise UserError(f"{path}: made from another training set; run `dvc repro reduce`")
    if about["params"]["reduce"]["mode"] != params.reduce.mode:
        raise UserError(f"{path}: made in mode {about['params']['reduce']['mode']}; run `dvc repro reduce`")
    return tensors, about


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


def main(args: argparse.Namespace, params: Params) -> None:
    torch.set_num_threads(1)  # the order of sums, and so the last bits, depend on the number of threads
    splits = read_splits(args.training_set)
    print_ = fingerprint(args.training_set)
    model = prepare(splits, load_reducer(args.reducer, print_, params), params, print_)
    with (
        Live(str(args.live), dvcyaml=None, save_dvc_exp=False, report=None) as live,
        tqdm(total=params.train.epochs, desc="train", unit="epoch") as bar,
    ):

        def on_epoch(epoch: Epoch) -> None:
            log_epoch(live, epoch)
            bar.set_postfix(validation=f"{epoch.validation_log_loss:.4f}", refresh=False)
            bar.update()

        epochs = learn(model, splits, params, on_epoch)
        live.summary["best_epoch"] = best_epoch(epochs).number
    with whole_file(args.out) as temporary:
        model.save(temporary)


if __name__ == "__main__":
    run_stage(
        main,
        __doc__,
        {
            "training-set": "folder of train, validation and test",
            "reducer": "the reducer's safetensors file",
            "out": "the model's safetensors file",
            "live": "folder for the learning curves",
        },
    )
