"""Where a summary or a tag comes from: its snapshot, the reviews that were read, and the ledger's entry of the call.

    python -m pipelines.trace --review r123          # of a training row: all that it read
    python -m pipelines.trace --snapshot 0a1b2c…     # of one snapshot, as a feature row names it

Prints JSON.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.core.errors import UserError, exit_code_of
from pipelines.core.ledger import Entry, Ledger
from pipelines.core.params import load_params
from pipelines.core.provenance import READINGS, readings, recorded
from pipelines.core.providers import ledger_of
from pipelines.core.tables import REVIEWS, read_table

REVIEW_FILE = Path("tables") / "reviews.parquet"


def snapshots_of_review(data: Path, review_id: str) -> dict[str, str]:
    """View -> the snapshot that the training row of `review_id` read. UserError where it has none to name."""
    for split in ("train", "validation", "test"):
        path = data / "training_set" / f"{split}.parquet"
        keys = read_table(path, pa.schema([REVIEWS.field("review_id")]))
        at = pc.index(keys["review_id"], review_id).as_py()
        if at < 0:
            continue
        names = [name for name in pq.read_schema(path).names if name.endswith("__snapshot_id")]
        if not names:
            raise UserError(f"{path}: names no snapshots; another version made it: run `dvc repro`")
        row = pq.read_table(path, columns=names).slice(at, 1).to_pylist()[0]
        return {name.split("__")[0]: snapshot for name, snapshot in row.items() if snapshot is not None}
    raise UserError(f"--review {review_id}: no row of the training set in {data / 'training_set'}")


def traced(data: Path, snapshot_id: str, ledger: Ledger, view: str | None = None) -> list[dict[str, Any]]:
    """Each reading of the snapshot with its reviews and its ledger entries. UserError where nobody knows it."""
    found = list(readings(data, snapshot_id, view))
    if not found:
        files = " or ".join(file for file, _ in READINGS.values())
        raise UserError(f"snapshot {snapshot_id}: not in {files}; copy it from a feature row")
    ids = found[0]["review_ids"]  # a snapshot's name is made of them: all its readings hold the same
    wanted = [("review_id", "in", ids)]
    reviews = {row["review_id"]: row for row in pq.read_table(data / REVIEW_FILE, filters=wanted).to_pylist()}
    for reading in found:
        reading["reviews"] = [reviews.get(review_id, review_id) for review_id in reading.pop("review_ids")]
        reading["calls"] = [described(key, ledger.entry(key)) for key in reading["calls"]]
    return found


def described(key: str, entry: Entry | None) -> dict[str, Any]:
    """A ledger entry with what was answered; what was asked stands beside it."""
    return recorded(key, entry) | ({} if entry is None else {"text": entry.text})


def main(args: argparse.Namespace) -> None:
    ledger = ledger_of(load_params(args.params))
    if args.snapshot:
        found = {"snapshot": traced(args.data, args.snapshot, ledger)}
    else:
        read = snapshots_of_review(args.data, args.review)
        found = {view: traced(args.data, snapshot, ledger, view) for view, snapshot in read.items()}
    print(json.dumps(found, indent=2, default=str, ensure_ascii=False))


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m pipelines.trace", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = made.add_mutually_exclusive_group(required=True)
    what.add_argument("--review", metavar="ID", help="a review of the training set")
    what.add_argument("--snapshot", metavar="ID", help="a snapshot_id")
    made.add_argument("--data", type=Path, default=Path("data"), metavar="FOLDER", help="default: %(default)s")
    made.add_argument("--params", type=Path, default=Path("params.yaml"), metavar="PATH", help="default: %(default)s")
    return made


if __name__ == "__main__":
    arguments = parser().parse_args()
    sys.exit(exit_code_of(lambda: main(arguments)))
