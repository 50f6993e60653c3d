"""The leak prover: a sample of the training set recomputed the obvious way, compared bit by bit, and perturbed.

What a language model made of a snapshot is traced: the snapshot must hold just the reviews that the row may see, word
by word, its value must be the one that stands beside the snapshot, and that one the answer which the ledger holds to a
question about just these words (pipelines/shown.py). Then worlds are built in which what a review
must not see is changed, removed or added, the fast code runs over them, and no bit of the review's features may move.
One leak stops the pipeline.
"""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.core.command import run_stage
from pipelines.core.errors import CheckFailed, UserError
from pipelines.core.params import Params
from pipelines.core.progress import progress
from pipelines.core.snapshots import Snapshot, read_histories
from pipelines.core.tables import REVIEWS, TRAINING_SET_KEYS, read_table, whole_file
from pipelines.history import read_photo_vectors, read_vectors
from pipelines.obvious import FEATURES, SNAPSHOT_VIEWS, Obvious, Row, Rule, World, same
from pipelines.perturbed import fast_features, original_name, perturbed_worlds, plain_rows, surroundings
from pipelines.shown import Readings, Shown, check_shown, read_readings

LONGEST_WORLD = 5_000  # a review whose user's and business's histories are longer is compared, not perturbed

Read = Callable[[Mapping[str, Snapshot]], tuple[Readings, Shown]]  # what stands beside snapshots, and is it so?


# --- which rows ------------------------------------------------------------------------------------------------------


def hard_rows(members: pd.DataFrame) -> dict[str, pd.Series]:
    """Masks of the rows where leaks hide."""
    has_time = members["event_timestamp"].notna()
    tie = pd.Series(False, index=members.index)
    first = pd.Series(False, index=members.index)
    for key in ("user_id", "business_id"):
        tie |= members.duplicated([key, "event_timestamp"], keep=False) & has_time
        first |= members.groupby(key)["event_timestamp"].transform("min") == members["event_timestamp"]
        first |= ~members.duplicated(key, keep=False)
    pair = members.duplicated(["user_id", "business_id"], keep=False)
    return {"ties": tie, "first_reviews": first, "double_pairs": pair, "test_rows": members["split"] == "test"}


def sample(members: pd.DataFrame, rows: int, seed: int) -> tuple[list[str], dict[str, int]]:
    """At most `rows` review ids, an eighth of them from each kind of hard row, and how many of each kind are in."""
    hard = hard_rows(members)
    shuffled = members.sample(frac=1, random_state=seed).index
    chosen: dict[int, None] = {}
    for mask in hard.values():
        chosen.update(dict.fromkeys(shuffled[mask[shuffled]][: max(rows // 8, 1)]))
    chosen.update(dict.fromkeys(shuffled))
    picked = list(chosen)[:rows]
    counts = {name: int(mask[picked].sum()) for name, mask in hard.items()}
    return list(members.loc[picked, "review_id"]), counts


# --- the proof -------------------------------------------------------------------------------------------------------


@dataclass
class Findings:
    """What was compared, and what did not agree."""

    values: int = 0
    leaks: int = 0
    examples: tuple[str, ...] = ()

    def compare(self, review_id: str, expected: Row, found: Row, how: str) -> None:
        for name in expected:
            self.values += 1
            if not same(expected[name], found[name]):
                self.leaks += 1
                said = f"review {review_id}, {name}, {how}: {_short(found[name])} is not {_short(expected[name])}"
                self.examples = (*self.examples, said)[:5]


def _short(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return "[" + ", ".join(repr(float(x)) for x in value[:3]) + ", ...]"
    return value.isoformat() if isinstance(value, datetime) else repr(value)


def provable(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Of the training set's features those that are recomputed, and those that are traced to their snapshot.

    CheckFailed names a feature that has no obvious twin: what nobody can prove must not be trained on.
    """
    recomputed = [name for name in names if name in FEATURES]
    traced = [name for name in names if name not in FEATURES and name.split("__")[0] in SNAPSHOT_VIEWS]
    unproven = [name for name in names if name not in recomputed and name not in traced]
    if unproven:
        raise CheckFailed(f"prove: no obvious twin of {unproven[0]}; say in pipelines/obvious.py what it is made of")
    return recomputed, traced


def traced_values(snapshots: Row, traced: Sequence[str], readings: Readings) -> Row:
    """The values that stand beside the snapshots of a row; null where it has none."""
    made: Row = {}
    for name in traced:
        view, feature = name.split("__")
        snapshot = snapshots[f"{view}__snapshot_id"]
        beside = readings.get(f"{view} {snapshot}", {})
        made[name] = None if snapshot is None else beside.get(feature, "no such snapshot")
    return made


def prove(
    world: World,
    read: Callable[[Sequence[str]], dict[str, Row]],
    names: Sequence[str],
    read_beside: Read,
    params: Params,
) -> dict[str, Any]:
    """Compare and perturb a sample; the report. `read` gives the training set's features `names` of some review ids."""
    rule = Rule.of(params)
    obvious = Obvious(world, rule)
    recomputed, traced = provable(names)
    review_ids, hard = sample(obvious.members, params.prove.rows, params.prove.seed)
    training_set = read(review_ids)
    absent = [review_id for review_id in review_ids if review_id not in training_set]
    if absent:
        raise CheckFailed(f"prove: {len(absent)} reviews of the split are not in the training set: {absent[:3]}")

    views = [view for view in SNAPSHOT_VIEWS if any(name.startswith(f"{view}__") for name in traced)]
    read_by = {(i, view): obvious.snapshot(i, view) for i in review_ids for view in views}
    snapshots = {f"{view} {some.snapshot_id}": some for (_, view), some in read_by.items() if some is not None}
    readings, shown = read_beside(snapshots)

    compared = Findings()
    with progress(len(review_ids), "recomputing", "review") as bar:
        for review_id in review_ids:
            expected = obvious.features(review_id, recomputed)
            compared.compare(review_id, expected, training_set[review_id], "recomputed")
            compared.compare(review_id, traced_values(expected, traced, readings), training_set[review_id], "traced")
            bar.update()

    moved = Findings()
    short = [i for i in review_ids if sum(map(len, obvious.around(i)[1].values())) <= LONGEST_WORLD]
    short = short[: params.prove.perturbed]
    expected = {i: {name: training_set[i][name] for name in recomputed} for i in short}
    perturb(obvious, short, expected, moved)
    of_models = [name for name in recomputed if name.endswith("__snapshot_id")]
    if of_models and rule.protocol == "leave_one_out" and rule.history.leave_out == "pair":
        # Models are shown less than numbers are made of: not the review's fold, rather than not its pair.
        expected = {i: {name: training_set[i][name] for name in of_models} for i in short}
        perturb(Obvious(world, rule.by_fold()), short, expected, moved)
    return {
        "rows_checked": len(review_ids),
        "values_checked": compared.values,
        "hard_rows": hard,
        "rows_perturbed": len(short),
        "values_perturbed": moved.values,
        "readings_checked": shown.checked,
        "readings_in_another_ledger": shown.unknown,
        "leaks": compared.leaks + moved.leaks + len(shown.wrong),
        "examples": [*compared.examples, *moved.examples, *shown.wrong[:5]],
    }


def perturb(obvious: Obvious, review_ids: Sequence[str], expected: Mapping[str, Row], moved: Findings) -> None:
    """Compare the features of `review_ids` in worlds where what they must not see is another."""
    names = list(next(iter(expected.values())))
    copies = surroundings(obvious, review_ids)
    for done, changed in perturbed_worlds(copies, obvious.rule.protocol):
        found = fast_features(changed, copies.asked, obvious.rule, names, original_name)
        for review_id, copy in zip(review_ids, copies.asked["review_id"], strict=True):
            moved.compare(review_id, expected[review_id], found[copy], f"after hidden reviews were {done}")


# --- files -----------------------------------------------------------------------------------------------------------


def features_of(folder: Path) -> list[str]:
    """The names of the training set's features. UserError where a file is missing."""
    for split in ("train", "validation", "test"):
        if not (folder / f"{split}.parquet").is_file():
            raise UserError(f"{folder / split}.parquet: no such table; run `dvc repro` to make it")
    return [name for name in pq.read_schema(folder / "train.parquet").names if name not in TRAINING_SET_KEYS.names]


def read_training_set(folder: Path, review_ids: Sequence[str], names: Sequence[str]) -> dict[str, Row]:
    """The features of those `review_ids` that are in the training set's three files."""
    found: dict[str, Row] = {}
    for split in ("train", "validation", "test"):
        table = pq.read_table(
            folder / f"{split}.parquet", columns=["review_id", *names], filters=[("review_id", "in", review_ids)]
        )
        found.update({row.pop("review_id"): row for row in plain_rows(table)})
    return found


def read_world(args: argparse.Namespace) -> World:
    members = read_histories(args.reviews, args.split)
    ratings = read_table(args.reviews, REVIEWS, ["review_id", "rating"]).to_pandas()
    members = members.merge(ratings, on="review_id").sort_values("review_id", ignore_index=True)
    ids = pa.chunked_array([pa.array(members["review_id"], pa.string())])
    photos = read_photo_vectors(args.photos, args.descriptions, ids)
    return World(members, {"text": read_vectors(args.text, ids), **photos})


def main(args: argparse.Namespace, params: Params) -> None:
    names = features_of(args.training_set)

    def read_beside(snapshots: Mapping[str, Snapshot]) -> tuple[Readings, Shown]:
        readings = read_readings(args.summaries, args.tags, snapshots)
        return readings, check_shown(snapshots, readings, params)

    report = prove(
        read_world(args),
        lambda review_ids: read_training_set(args.training_set, review_ids, names),
        names,
        read_beside,
        params,
    )
    with whole_file(args.report) as temporary:
        temporary.write_text(json.dumps(report, indent=2, sort_keys=True) + "\n")
    if report["leaks"]:
        raise CheckFailed(
            f"prove: {report['leaks']} of {report['values_checked'] + report['values_perturbed']} values leak or"
            f" differ under {params.protocol}; the first: {report['examples'][0]} (more in {args.report})"
        )
    print(
        f"prove: {report['rows_checked']} rows, {report['values_checked']} values recomputed and"
        f" {report['values_perturbed']} perturbed, {report['readings_checked']} readings held against the ledger"
        f" under {params.protocol}, no leak"
    )


if __name__ == "__main__":
    run_stage(
        main,
        __doc__,
        {
            "reviews": "the review table",
            "split": "the membership table",
            "text": "the review texts' embeddings",
            "photos": "the photo table",
            "descriptions": "the photos' descriptions",
            "summaries": "every snapshot's summary",
            "tags": "every snapshot's tags",
            "training-set": "the folder of train, validation and test.parquet",
            "report": "leaks.json to write",
        },
    )
