"""The upstream MLP (paper, section 4.3): 384-wide text embeddings of user and business to one field of 32.

`paper` fits it on the rows that the DLRM then trains on, `split` on one half of train while the DLRM takes the other,
`joint` leaves it as drawn, for train to learn end to end.
"""

import argparse

import numpy as np
import torch
from tqdm import tqdm

from models import saved
from models.encoding import TextEncoding
from models.recommender import build_reducer
from models.reducer import Reducer, UpstreamClassifier
from models.trainer import Diverged, Epoch, Rows, Schedule, fit, seeded
from pipelines.core.command import run_stage
from pipelines.core.errors import UserError
from pipelines.core.params import Params
from pipelines.core.tables import whole_file
from pipelines.core.training_rows import TrainingRows, fingerprint, read_splits, reducers_part

UNWEIGHTED = (0.5, 0.5)


def fit_reducer(splits: dict[str, TrainingRows], text: TextEncoding, params: Params) -> Reducer:
    """The reducer that `reduce.mode` asks for."""
    stage = params.reduce
    with seeded(params.seed):
        network = UpstreamClassifier(build_reducer(stage.model_dump(), text.width), stage.hidden[-1])
    if stage.mode == "joint":
        return network.reducer
    train, validation = (
        Rows({"text": torch.from_numpy(text.encode(splits[split].columns))}, splits[split].labels)
        for split in ("train", "validation")
    )
    if stage.mode == "split":
        train = train.only(part_of_train(splits["train"], params))
    schedule = Schedule(**stage.model_dump(include=set(Schedule.__annotations__)))
    with tqdm(total=stage.epochs, desc="reduce", unit="epoch") as bar:

        def show(epoch: Epoch) -> None:
            bar.set_postfix(validation=f"{epoch.validation_log_loss:.4f}", refresh=False)
            bar.update()

        try:
            fit(network, train, validation, UNWEIGHTED, schedule, params.seed, show)
        except Diverged as error:
            raise UserError(f"reduce: {error}; lower `reduce.learning_rate` ({stage.learning_rate})") from None
    return network.reducer


def part_of_train(train: TrainingRows, params: Params) -> np.ndarray:
    """Train rows (N,) that are a `split` reducer's; UserError where that leaves one side without any."""
    part = reducers_part(train, params.protocol)
    if not 0 < part.sum() < len(part):
        raise UserError("`reduce.mode` is split, but the train rows cannot be halved; take more reviews or `joint`")
    return part


def main(args: argparse.Namespace, params: Params) -> None:
    torch.set_num_threads(1)  # the order of sums, and so the last bits, depend on the number of threads
    splits = read_splits(args.training_set)
    text = TextEncoding.fit(splits["train"].columns)
    reducer = fit_reducer(splits, text, params)
    about = {
        "kind": "reducer",
        "feature_service": f"{params.model}_{params.protocol}",
        "fingerprint": fingerprint(args.training_set),
        "params": params.model_dump(include={"protocol", "model", "seed", "reduce"}),
        "encoding": {"text": text.to_json()},
    }
    with whole_file(args.out) as temporary:
        saved.save(temporary, reducer.state_dict(), about)


if __name__ == "__main__":
    run_stage(
        main,
        __doc__,
        {"training-set": "folder of train, validation and test", "out": "the reducer's safetensors file"},
    )
