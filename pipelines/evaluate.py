"""How good the model is, beside what it must beat; test is touched once.

The threshold is validation's at a TPR of 0.90, for every split. Plots are CSV files that `dvc plots` draws.
"""

import argparse
import csv
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
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
from pipelines.core.command import run_stage
from pipelines.core.errors import UserError
from pipelines.core.params import Params
from pipelines.core.tables import whole_file, write_table
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


def judge(splits: Mapping[str, TrainingRows], probabilities: Mapping[str, Floats]) -> dict[str, Any]:
    """Split -> its figures, all at validation's threshold."""
    threshold = threshold_at_tpr(splits["validation"].labels, probabilities["validation"])
    return {
        split: report(splits[split].labels, said, threshold, splits[split].warm)
        for split, said in probabilities.items()
    }


def metrics(splits: Mapping[str, TrainingRows], probabilities: Mapping[str, Floats], seed: int) -> dict[str, Any]:
    """What metrics.json holds: the model's figures by split, and the floors'."""
    columns = {split: rows.columns for split, rows in splits.items()}
    labels = {split: rows.labels for split, rows in splits.items()}
    fitted = floors(columns, labels, JUDGED, seed)
    return judge(splits, probabilities) | {"floors": {name: judge(splits, said) for name, said in fitted.items()}}


def write_json(content: Mapping[str, Any], path: Path) -> None:
    """Sorted, indented, whole or not at all; ValueError for NaN and infinity."""
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(content, sort_keys=True, indent=2, allow_nan=False) + "\n", encoding="utf-8")


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
        figures = metrics(splits, probabilities, params.seed)
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
