"""How good the model is, beside what it must beat; test is touched once.

The threshold is validation's at a TPR of 0.90, for every split; under `selection: paper`, which has chosen its epoch by
the test set, it is the paper's 0.5. Plots are CSV files that `dvc plots` draws.
"""

import argparse
import csv
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from models.columns import Unencodable
from models.curves import CURVES
from models.floors import floors
from models.metrics import report, threshold_at_tpr
from models.recommender import TrainedRecommender
from models.saved import UnusableWeights
from models.selection import Selection
from pipelines.core.command import run_stage
from pipelines.core.errors import UserError
from pipelines.core.json_files import write_json
from pipelines.core.params import Params
from pipelines.core.tables import write_table
from pipelines.core.training_rows import SPLITS, TrainingRows, fingerprint, read_splits

PREDICTIONS = pa.schema(
    [
        pa.field("review_id", pa.string(), nullable=False),
        pa.field("label", pa.int8(), nullable=False),
        pa.field("probability", pa.float64(), nullable=False),
    ]
)
JUDGED = ("validation", "test")  # where floors are judged

Floats = NDArray[np.float64]
Splits = Mapping[str, TrainingRows]


@dataclass(frozen=True)
class Cut:
    """Where probabilities are cut, and what is said of it: the two differ where class weights were shifted back."""

    threshold: float | None
    at: float | None


def cut_of(splits: Splits, probabilities: Mapping[str, Floats], selection: Selection, own_half: float = 0.5) -> Cut:
    """Validation's threshold at a TPR of 0.90; the paper's is 0.5 of the network's own output, here `own_half`."""
    if selection == "paper":
        return Cut(0.5, own_half)
    threshold = threshold_at_tpr(splits["validation"].labels, probabilities["validation"])
    return Cut(threshold, threshold)


def judge(splits: Splits, probabilities: Mapping[str, Floats], cut: Cut) -> dict[str, Any]:
    """Split -> its figures, all at one threshold."""
    return {
        split: report(splits[split].labels, said, cut.threshold, splits[split].warm, cut.at)
        for split, said in probabilities.items()
    }


def metrics(splits: Splits, probabilities: Mapping[str, Floats], cut: Cut, params: Params) -> dict[str, Any]:
    """What metrics.json holds: the model's figures by split, and the floors'."""
    columns = {split: rows.columns for split, rows in splits.items()}
    labels = {split: rows.labels for split, rows in splits.items()}
    fitted = floors(columns, labels, JUDGED, params.seed)
    judged = {name: judge(splits, said, cut_of(splits, said, params.selection)) for name, said in fitted.items()}
    return judge(splits, probabilities, cut) | {"floors": judged}


def write_curves(rows: TrainingRows, probabilities: Floats, folder: Path) -> None:
    """A CSV per curve of one split, the folder whole or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as temporary:
        made = Path(temporary) / folder.name
        made.mkdir()
        for name, (header, curve) in CURVES.items():
            write_csv(header, curve(rows.labels, probabilities), made / f"{name}.csv")
        if folder.exists():
            shutil.rmtree(folder)
        made.rename(folder)


def write_csv(header: Sequence[str], rows: Sequence[Sequence[float]], path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def load_model(path: Path, expected: str, kind: str) -> TrainedRecommender:
    """UserError unless it is a model of ours, of the variant `kind`, trained on this training set."""
    try:
        model = TrainedRecommender.load(path)
    except UnusableWeights as error:
        raise UserError(f"{error}; run `dvc repro train`") from None
    if model.params["model"] != kind:
        raise UserError(f"{path}: holds the model {model.params['model']}, wanted {kind}; run `dvc repro train`")
    if model.fingerprint != expected:
        raise UserError(f"{path}: trained on another training set; run `dvc repro train`")
    return model


def main(args: argparse.Namespace, params: Params) -> None:
    torch.set_num_threads(1)  # as in training: the last bits depend on it
    splits = read_splits(args.training_set, params.model)
    model = load_model(args.model, fingerprint(args.training_set), params.model)
    try:
        probabilities = {split: model.probabilities(splits[split].columns) for split in SPLITS}
        # at 0.5 of its own output a weighted network's calibrated probability is its weight of the label 0
        cut = cut_of(splits, probabilities, params.selection, own_half=float(model.weights[0, 0]))
        figures = metrics(splits, probabilities, cut, params)
    except Unencodable as error:
        raise UserError(f"{args.training_set}: {error}; run `dvc repro` to remake the tables") from None
    test = splits["test"]
    predictions = pa.table(
        {"review_id": test.table["review_id"], "label": test.labels, "probability": probabilities["test"]}
    )
    write_curves(test, probabilities["test"], args.plots)
    write_table(predictions, args.predictions, PREDICTIONS)
    write_json(figures, args.metrics)


if __name__ == "__main__":
    run_stage(
        main,
        __doc__,
        {
            "training-set": "folder of train, validation and test",
            "model": "the model's safetensors file",
            "metrics": "the figures, as JSON",
            "predictions": "the table of test predictions to write",
            "plots": "folder for the curves",
        },
    )
