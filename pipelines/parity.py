"""Online beside offline: what the ranker reads is what training would have read now, and its scores are evaluate's.

Values: of every user and business, every feature that is served, bit for bit. Scores: of validation and test rows, the
ranker's path beside the evaluated probability. Any difference fails the stage.
"""

import argparse
import hashlib
import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray

from models.columns import Unencodable
from models.recommender import TrainedRecommender
from pipelines.core.command import run_stage
from pipelines.core.errors import CheckFailed, UserError
from pipelines.core.json_files import write_json
from pipelines.core.params import Params
from pipelines.core.progress import progress
from pipelines.core.tables import read_table
from pipelines.core.training_rows import TrainingRows, fingerprint, read_splits
from pipelines.evaluate import JUDGED, PREDICTIONS, load_model
from pipelines.materialize import bring_online, instants_offline, online_views, open_online
from pipelines.register import registered_store
from serving.rows import RawRow, RowReader
from serving.scoring import Scorer
from serving.values import arrow

if TYPE_CHECKING:
    from feast import FeatureStore, FeatureView

BLOCK = 5_000  # entities, or rows: of each some tens of kilobytes are held at a time
TOLERANCE = 1e-6  # of a probability
EXAMPLES = 3  # of each kind and view
SHOWN = 60  # characters of a value


# --- values ----------------------------------------------------------------------------------------------------------


def differs(one: pa.Array, other: pa.Array) -> NDArray[np.bool_]:
    """(N,): where two arrays (N,) of one type are not the same bits. Null is null's equal alone."""
    assert one.type == other.type, (one.type, other.type)
    known, also = (array.is_valid().to_numpy(zero_copy_only=False) for array in (one, other))
    apart = known != also
    both = known & also
    if not pa.types.is_list(one.type):
        apart[both] = bits(one.filter(pa.array(both))) != bits(other.filter(pa.array(both)))
        return apart
    length, others = (pc.list_value_length(array).fill_null(0).to_numpy() for array in (one, other))
    apart |= both & (length != others)
    same = both & (length == others)
    inner = differs(*(array.filter(pa.array(same)).flatten() for array in (one, other)))
    apart[np.repeat(np.flatnonzero(same), length[same])[inner]] = True
    return apart


def bits(values: pa.Array) -> np.ndarray:
    """Floats as the integers of their bits: 0.0 is not -0.0, and a NaN is itself."""
    if pa.types.is_timestamp(values.type):
        values = values.cast(pa.int64())
    numbers = values.to_numpy(zero_copy_only=False)
    return numbers.view(f"i{numbers.itemsize}") if pa.types.is_floating(values.type) else numbers


def shown(value: Any, other: Any) -> str:
    """`value`, shortened; of two vectors of one length, the first number that is not the other's."""
    if isinstance(value, list) and isinstance(other, list) and len(value) == len(other) and value:
        at = int(differs(pa.array(value), pa.array(other)).argmax())
        return f"[{at}] {shown(value[at], other[at])}"
    text = "null" if value is None else value.isoformat() if isinstance(value, datetime) else repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


@dataclass
class Findings:
    """Of one view: what was compared, and what is not as it should be."""

    view: str
    entities: int = 0  # with a row online and offline
    compared: int = 0  # values
    mismatch: int = 0
    missing: set[str] = field(default_factory=set)  # entities with a row offline alone
    extra: set[str] = field(default_factory=set)  # online alone
    examples: list[str] = field(default_factory=list)

    def compare(self, feature: str, ids: Sequence[str], online: pa.Array, offline: pa.Array) -> None:
        apart = np.flatnonzero(differs(online, offline))
        self.compared += len(ids)
        self.mismatch += len(apart)
        for at in apart[: max(0, EXAMPLES - len(self.examples))]:
            ours, theirs = online[at].as_py(), offline[at].as_py()
            self.examples.append(
                f"{self.view}__{feature} of {ids[at]}: {shown(ours, theirs)} online and {shown(theirs, ours)} offline"
            )

    def lacks(self, feature: str, ids: Sequence[str]) -> None:
        """The store has a row of `ids`, but not this value of it, not even a null."""
        self.compared += len(ids)
        self.mismatch += len(ids)
        for entity_id in ids[: max(0, EXAMPLES - len(self.examples))]:
            self.examples.append(f"{self.view}__{feature} of {entity_id}: not in its row online")

    def lines(self) -> list[str]:
        return [
            *self.examples,
            *(f"{self.view} of {one}: a row offline and none online" for one in sorted(self.missing)[:EXAMPLES]),
            *(f"{self.view} of {one}: a row online and none offline" for one in sorted(self.extra)[:EXAMPLES]),
        ]

    def counts(self) -> dict[str, int]:
        return {
            "entities": self.entities,
            "compared": self.compared,  # `dvc metrics show` takes a figure called `values` for a method of its table
            "mismatch": self.mismatch,
            "missing": len(self.missing),
            "extra": len(self.extra),
        }


def drawn(ids: Iterable[str], most: int, seed: int) -> list[str]:
    """`ids`, sorted; of more than `most`, those with the least hashes: the same ones whatever else is there."""
    every = set(ids)
    if len(every) > most:
        every = set(heapq.nsmallest(most, every, key=lambda one: hashlib.sha256(f"{seed} {one}".encode()).digest()))
    return sorted(every)


def offline_values(
    store: "FeatureStore", views: "Sequence[FeatureView]", ids: Sequence[str], now: datetime
) -> dict[tuple[str, str], pa.Array]:
    """(view, feature) -> (N,), what Feast's offline store says of `ids` (N) at `now`. All views are of one entity."""
    from feast.types import from_feast_to_pyarrow_type

    key = views[0].join_keys[0]
    instants = pd.Series([now] * len(ids), dtype="datetime64[us, UTC]")
    references = [f"{view.name}:{feature.name}" for view in views for feature in view.features]
    asked = pd.DataFrame({key: ids, "event_timestamp": instants})
    got = store.get_historical_features(asked, references, full_feature_names=True).to_arrow()
    if got[key].to_pylist() != list(ids):
        raise CheckFailed(f"parity: asked Feast for {len(ids)} rows by {key} and got others ({got.num_rows})")
    return {
        (view.name, feature.name): got[f"{view.name}__{feature.name}"]
        .cast(from_feast_to_pyarrow_type(feature.dtype))
        .combine_chunks()
        for view in views
        for feature in view.features
    }


def compare_rows(
    view: "FeatureView",
    ids: Sequence[str],
    known: Mapping[str, datetime],
    online: Sequence[RawRow | None],
    offline: Mapping[tuple[str, str], pa.Array],
    found: Findings,
) -> None:
    """One view's rows of `ids` (N), online and offline."""
    found.missing.update(one for one, row in zip(ids, online, strict=True) if row is None and one in known)
    found.extra.update(one for one, row in zip(ids, online, strict=True) if row is not None and one not in known)
    rows = [(at, row) for at, row in enumerate(online) if row is not None and ids[at] in known]
    found.entities += len(rows)
    for number, feature in enumerate(view.features):
        there = [(at, row.values[number]) for at, row in rows if row.values[number] is not None]
        lacking = [ids[at] for at, row in rows if row.values[number] is None]
        values = offline[view.name, feature.name].take(pa.array([at for at, _ in there], pa.int64()))
        parsed = arrow(values.type, [value for _, value in there])
        found.compare(feature.name, [ids[at] for at, _ in there], parsed, values)
        found.lacks(feature.name, lacking)
    # Of the row itself: by it a ranking knows how old it is. SQLite keeps whole seconds.
    stamps = [[row.instant for _, row in rows], [known[ids[at]] for at, _ in rows]]
    seconds = (pa.array([int(one.timestamp()) for one in some], pa.timestamp("s", "UTC")) for some in stamps)
    found.compare("event_timestamp", [ids[at] for at, _ in rows], *seconds)


def compare_values(
    store: "FeatureStore",
    reader: RowReader,
    views: "Sequence[FeatureView]",
    offline: Mapping[str, Mapping[str, datetime]],
    now: datetime,
    params: Params,
) -> list[Findings]:
    """A view each. Values of the users and businesses drawn; missing and extra of all that there are."""
    found = {view.name: Findings(view.name) for view in views}
    for name, findings in found.items():
        there = {entity_id for block in reader.ids(name) for entity_id in block}
        findings.missing.update(offline[name].keys() - there)
        findings.extra.update(there - offline[name].keys())
    kinds = {key: [view for view in views if view.join_keys == [key]] for (key,) in (view.join_keys for view in views)}
    asked = {
        key: drawn((one for view in some for one in offline[view.name]), params.parity.entities, params.parity.seed)
        for key, some in kinds.items()
    }
    with progress(sum(map(len, asked.values())), "comparing online and offline", "entity") as bar:
        for key, some in kinds.items():
            wanted = {view.name: [feature.name for feature in view.features] for view in some}
            for start in range(0, len(asked[key]), BLOCK):
                ids = asked[key][start : start + BLOCK]
                rows, values = reader.read(wanted, ids), offline_values(store, some, ids, now)
                for view in some:
                    compare_rows(view, ids, offline[view.name], rows[view.name], values, found[view.name])
                bar.update(len(ids))
    return list(found.values())


# --- scores ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scores:
    """Of one split: how far the ranker's probabilities are from the evaluated ones."""

    rows: int
    largest_difference: float | None  # null: not a number
    apart: int  # rows further than TOLERANCE
    example: str  # the furthest

    @classmethod
    def of(
        cls, split: str, review_ids: Sequence[str], ours: NDArray[np.float64], evaluated: NDArray[np.float64]
    ) -> "Scores":
        far = np.abs(ours - evaluated)
        far[np.isnan(far)] = np.inf
        at = int(far.argmax())
        largest = float(far[at])
        line = f"{split} review {review_ids[at]}: the ranker says {ours[at]:.9f} and evaluate {evaluated[at]:.9f}"
        return cls(len(far), largest if np.isfinite(largest) else None, int((far > TOLERANCE).sum()), line)

    def counts(self) -> dict[str, Any]:
        return {"rows": self.rows, "largest_difference": self.largest_difference, "apart": self.apart}


def ranked(scorer: Scorer, columns: Mapping[str, np.ndarray], rows: int) -> NDArray[np.float64]:
    """(N,), in blocks: what the ranker keeps of a row is wider than the row."""
    made = []
    with progress(rows, "scoring as the ranker does", "row") as bar:
        for start in range(0, rows, BLOCK):
            block = {name: values[start : start + BLOCK] for name, values in columns.items()}
            made.append(scorer.probabilities(block))
            bar.update(len(made[-1]))
    return np.concatenate(made)


def predicted(path: Path, review_ids: Sequence[str]) -> NDArray[np.float64]:
    """(N,), what evaluate wrote of `review_ids` (N). UserError where it is of other reviews."""
    table = read_table(path, PREDICTIONS, ["review_id", "probability"])
    said = dict(zip(table["review_id"].to_pylist(), table["probability"].to_pylist(), strict=True))
    if said.keys() != set(review_ids):
        raise UserError(f"{path}: not of the reviews in the test set; run `dvc repro evaluate`")
    return np.array([said[one] for one in review_ids])


def compare_scores(
    model: TrainedRecommender, splits: Mapping[str, TrainingRows], predictions: Path
) -> dict[str, Scores]:
    """Validation and test."""
    scorer = Scorer(model)
    made = {}
    for split in JUDGED:
        rows = splits[split]
        ids = rows.table["review_id"].to_pylist()
        evaluated = predicted(predictions, ids) if split == "test" else model.probabilities(rows.columns)
        made[split] = Scores.of(split, ids, ranked(scorer, rows.columns, len(ids)), evaluated)
    return made


# --- both ------------------------------------------------------------------------------------------------------------


def figures_of(values: Sequence[Findings], scores: Mapping[str, Scores]) -> dict[str, Any]:
    """What parity.json holds: few, since `dvc metrics show` has a column for each."""
    views = [found.counts() for found in values]
    sums = {name: sum(counts[name] for counts in views) for name in Findings("").counts()}
    largest = [found.largest_difference for found in scores.values()]
    return {
        **sums,
        "scores": sum(found.rows for found in scores.values()),
        "scores_apart": sum(found.apart for found in scores.values()),
        "largest_score_difference": None if None in largest else max(filter(None, largest), default=0.0),
    }


def details_of(store: str, values: Sequence[Findings], scores: Mapping[str, Scores]) -> dict[str, Any]:
    """What stands beside it: by view and by split, and a few of the differences."""
    examples = [line for found in values for line in found.lines()]
    examples += [found.example for found in scores.values() if found.apart]
    return {
        "store": store,
        "views": {found.view: found.counts() for found in values},
        "splits": {split: found.counts() for split, found in scores.items()},
        "examples": examples,
    }


def remedy(figures: Mapping[str, Any]) -> str:
    """What to do about the first difference."""
    if figures["mismatch"] or figures["missing"] or figures["extra"]:
        return "the online rows are no longer those that were brought online: `make materialize` writes them anew"
    return "either the predictions are another model's, `dvc repro --force evaluate`, or serving/scoring.py is wrong"


def fill_empty(
    store: "FeatureStore",
    reader: RowReader,
    views: "Sequence[FeatureView]",
    offline: Mapping[str, Mapping[str, datetime]],
    now: datetime,
) -> None:
    """Materialize what has no row online: a copy of the workspace has files that DVC brought, and no online store."""
    empty = [view for view in views if offline[view.name] and not reader.newest(view.name)[0]]
    if empty:
        print(f"parity: nothing is online of {', '.join(view.name for view in empty)}: materialized first")
        bring_online(store, reader, empty, now)


def main(args: argparse.Namespace, params: Params) -> None:
    torch.set_num_threads(1)  # as in training: the last bits depend on it
    splits = read_splits(args.training_set, params.model)
    model = load_model(args.model, fingerprint(args.training_set), params.model)
    try:
        scores = compare_scores(model, splits, args.predictions)
    except Unencodable as error:
        raise UserError(f"{args.training_set}: {error}; run `dvc repro` to remake the tables") from None
    store = registered_store(args.repo, args.registry)
    now = datetime.now(UTC)
    views = online_views(store)
    offline = {view.name: instants_offline(store, view, now) for view in views}
    reader = open_online(store)
    fill_empty(store, reader, views, offline, now)
    values = compare_values(store, reader, views, offline, now, params)
    figures, kind = figures_of(values, scores), store.config.online_store.type
    details = details_of(kind, values, scores)
    write_json(details, args.details)
    write_json(figures, args.report)
    if details["examples"]:
        raise CheckFailed(
            f"parity: {figures['mismatch']} of {figures['compared']} values mismatch, {figures['missing']} rows are"
            f" missing and {figures['extra']} extra online, {figures['scores_apart']} scores are apart; the first:"
            f" {details['examples'][0]} (more in {args.details}); {remedy(figures)}"
        )
    print(
        f"parity: {figures['compared']} values of {figures['entities']} rows of {len(views)} views are the same online"
        f" ({kind}) and offline, {figures['scores']} scores within {figures['largest_score_difference']:.0e}"
    )


if __name__ == "__main__":
    run_stage(
        main,
        __doc__,
        {
            "repo": "the Feast feature repo",
            "registry": "the dump of what is registered",
            "training-set": "the folder of train, validation and test rows",
            "model": "the model's safetensors file",
            "predictions": "the table of test predictions",
            "report": "the figures, as JSON, to write",
            "details": "the same by view and by split, and a few of the differences, as JSON, to write",
        },
    )
