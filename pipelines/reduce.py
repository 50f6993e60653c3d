"""The upstream MLPs (paper, section 4.3): embeddings of texts, summaries, captions and images to fields of 32.

`paper` fits them on the rows that the DLRM then trains on, `split` on one half of train while the DLRM takes the other,
`joint` leaves them as drawn, for train to learn end to end. Each is fitted by itself, under a head of its own.
"""

import argparse
from collections.abc import Mapping

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from models import saved
from models.columns import Unencodable
from models.recommender import build_reducers
from models.reducer import Reducer, UpstreamClassifier
from models.trainer import Diverged, Epoch, Rows, Schedule, fit, seeded
from models.variants import VARIANTS
from models.vectors import VectorEncoding
from pipelines.core.command import run_stage
from pipelines.core.errors import UserError
from pipelines.core.params import Params
from pipelines.core.tables import whole_file
from pipelines.core.training_rows import TrainingRows, fingerprint, read_splits, reducers_part

UNWEIGHTED = (0.5, 0.5)
Vectors = Mapping[str, VectorEncoding]


def fit_encodings(train: TrainingRows, model: str) -> dict[str, VectorEncoding]:
    """Field -> how its vectors are made comparable, of each field of `model` that has a reducer."""
    return {field: VectorEncoding.fit(train.columns, spaces) for field, spaces in VARIANTS[model].vectors.items()}


def fit_reducers(splits: dict[str, TrainingRows], vectors: Vectors, params: Params) -> dict[str, Reducer]:
    """Field -> the reducer that `reduce.mode` asks for."""
    stage = params.reduce
    with seeded(params.seed):
        networks = [
            UpstreamClassifier(reducer, stage.hidden[-1]) for reducer in build_reducers(stage.model_dump(), vectors)
        ]
    if stage.mode != "joint":
        part = part_of_train(splits["train"], params) if stage.mode == "split" else None
        for network in networks:
            fit_alone(network, splits, vectors[network.reducer.field], part, params)
    return {network.reducer.field: network.reducer for network in networks}


def fit_alone(
    network: UpstreamClassifier,
    splits: dict[str, TrainingRows],
    vectors: VectorEncoding,
    part: np.ndarray | None,
    params: Params,
) -> None:
    """Train one reducer in place, on `part` of the train rows or on all."""
    stage, field = params.reduce, network.reducer.field
    train, validation = (
        Rows({field: torch.from_numpy(vectors.encode(splits[split].columns))}, splits[split].labels)
        for split in ("train", "validation")
    )
    if part is not None:
        train = train.only(part)
    schedule = Schedule(**stage.model_dump(include=set(Schedule.__annotations__)))
    with tqdm(total=stage.epochs, desc=f"reduce {field}", unit="epoch") as bar:

        def show(epoch: Epoch) -> None:
            bar.set_postfix(validation=f"{epoch.validation_log_loss:.4f}", refresh=False)
            bar.update()

        try:
            fit(network, train, validation, UNWEIGHTED, schedule, params.seed, show)
        except Diverged as error:
            raise UserError(f"reduce {field}: {error}; lower `reduce.learning_rate` ({stage.learning_rate})") from None


def part_of_train(train: TrainingRows, params: Params) -> np.ndarray:
    """Train rows (N,) that are `split` reducers'; UserError where that leaves one side without any."""
    part = reducers_part(train, params.protocol)
    if not 0 < part.sum() < len(part):
        raise UserError("`reduce.mode` is split, but the train rows cannot be halved; take more reviews or `joint`")
    return part


def main(args: argparse.Namespace, params: Params) -> None:
    torch.set_num_threads(1)  # the order of sums, and so the last bits, depend on the number of threads
    splits = read_splits(args.training_set, params.model)
    try:
        vectors = fit_encodings(splits["train"], params.model)
        reducers = fit_reducers(splits, vectors, params)
    except Unencodable as error:
        raise UserError(f"{args.training_set}: {error}; run `dvc repro` to remake the tables") from None
    about = {
        "kind": "reducer",
        "feature_service": f"{params.model}_{params.protocol}",
        "fingerprint": fingerprint(args.training_set),
        "params": params.model_dump(include={"protocol", "model", "seed", "reduce"}),
        "encoding": {field: part.to_json() for field, part in vectors.items()},
    }
    with whole_file(args.out) as temporary:
        saved.save(temporary, nn.ModuleDict(reducers).state_dict(), about)


if __name__ == "__main__":
    run_stage(
        main,
        __doc__,
        {"training-set": "folder of train, validation and test", "out": "the reducers' safetensors file"},
    )
