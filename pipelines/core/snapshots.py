"""Snapshots of histories: what a language model is shown, and which review reads what was made of it.

Which reviews a snapshot holds is said in `visibility`. Here they get a name, made of their ids and texts, so that one
changed review renames the snapshots that hold it and no others.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.core import visibility
from pipelines.core.feature_rows import microseconds
from pipelines.core.params import History, Protocol
from pipelines.core.tables import INSTANT, REVIEWS, SPLIT, feature_tables, read_table
from pipelines.core.visibility import Entity, Ints, key_of

MEMBER_COLUMNS = ["review_id", "user_id", "business_id", "text", "event_timestamp"]


def read_histories(reviews: Path, split: Path) -> pd.DataFrame:
    """The reviews that take part, sorted by id: MEMBER_COLUMNS, `split`, `fold`.

    White space at the ends of a text is no part of it, so that no text is "".
    """
    table = read_table(reviews, REVIEWS, MEMBER_COLUMNS)
    text = pc.utf8_trim_whitespace(table["text"])
    table = table.set_column(table.schema.get_field_index("text"), "text", text)
    return table.join(read_table(split, SPLIT), "review_id", join_type="inner").sort_by("review_id").to_pandas()


@dataclass(frozen=True)
class Snapshot:
    """Some reviews of one entity that are read as one."""

    snapshot_id: str
    entity: Entity
    entity_id: str
    instant: int  # microseconds since 1970: of its newest review; leave_one_out: history.as_of
    review_ids: tuple[str, ...]  # in the order in which they are read: by instant, then id; leave_one_out: by id
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Snapshots:
    """All snapshots of one kind of entity, and who reads which."""

    made: list[Snapshot]
    newest: Ints  # (S,) those that the entity's table holds
    readers: dict[str, int]  # leave_one_out: review id -> the snapshot it reads


def snapshot_id(entity: str, entity_id: str, review_ids: Sequence[str], texts: Sequence[str]) -> str:
    """32 hex digits of whose history it is and of the reviews that it holds, word by word."""
    content = json.dumps([entity, entity_id, list(review_ids), list(texts)]).encode()
    return hashlib.sha256(content).hexdigest()[:32]


def snapshots_of(
    members: pd.DataFrame, entity: Entity, protocol: Protocol, growth: float, history: History
) -> Snapshots:
    """The snapshots of every user's or business's history. `members` as in `read_histories`; reviews without a text are
    in none, though they read one."""
    told = members[members["text"] != ""].sort_values("review_id")
    key, ids = pd.factorize(told[key_of(entity)], sort=True)
    by_time = protocol == "point_in_time"
    instant = told["event_timestamp"].to_numpy("datetime64[us]").view(np.int64)
    is_train: npt.NDArray[np.bool_] = (told["split"] == "train").to_numpy()
    fold = told["fold"].to_numpy(np.int64)
    cuts = visibility.cuts_over_time(key, instant, growth) if by_time else visibility.cuts_left_out(key, fold, is_train)
    review_ids, texts = told["review_id"].to_numpy(), told["text"].to_numpy()
    as_of = microseconds(history.as_of)
    made = []
    for cut in cuts:
        held, said = tuple(review_ids[cut.holds]), tuple(texts[cut.holds])
        at = int(instant[cut.holds[-1]]) if by_time else as_of
        name = str(ids[cut.key])
        made.append(Snapshot(snapshot_id(entity, name, held, said), entity, name, at, held, said))
    if by_time:
        return Snapshots(made, np.arange(len(made)), {})
    newest = np.flatnonzero([cut.fold is None for cut in cuts])
    return Snapshots(made, newest, readers_left_out(members, told[is_train], entity, made, cuts))


def readers_left_out(
    members: pd.DataFrame, told: pd.DataFrame, entity: Entity, made: list[Snapshot], cuts: Sequence[visibility.Cut]
) -> dict[str, int]:
    """Review id -> the snapshot it reads; `told`: the training reviews with a text."""
    number = {(snapshot.entity_id, cut.fold): at for at, (snapshot, cut) in enumerate(zip(made, cuts, strict=True))}
    spoken = set(zip(told[key_of(entity)], told["fold"], strict=True))
    readers = {}
    columns = members["review_id"], members[key_of(entity)], members["split"], members["fold"]
    for review_id, entity_id, split, own in zip(*columns, strict=True):
        # Where its fold holds nothing that was told of the entity, the history without the fold is the whole.
        fold = own if split == "train" and (entity_id, own) in spoken else None
        if (entity_id, fold) in number:
            readers[review_id] = number[entity_id, fold]
    return readers


def feature_rows(
    view: str, snapshots: Snapshots, values: dict[str, pa.Array | pa.ChunkedArray], stage: str
) -> dict[str, pa.Table]:
    """The tables `view` and `<view>_by_review`. `values`: column -> what was made of each snapshot (S,)."""
    made = snapshots.made
    newest = pa.array(snapshots.newest)
    columns = {
        **values,
        "snapshot_id": pa.array([snapshot.snapshot_id for snapshot in made], pa.string()),
        "event_timestamp": pa.array([snapshot.instant for snapshot in made], INSTANT),
    }
    entities = pa.array([snapshot.entity_id for snapshot in made], pa.string())
    readers = pa.array(list(snapshots.readers), pa.string())
    read = pa.array(list(snapshots.readers.values()), pa.int64())
    tables = {}
    for name, schema in feature_tables(stage).items():
        if name.removesuffix("_by_review") != view:
            continue
        by_review = name != view
        rows = {column: values_.take(read if by_review else newest) for column, values_ in columns.items()}
        rows[schema.names[0]] = readers if by_review else entities.take(newest)
        order = [(schema.names[0], "ascending"), ("event_timestamp", "ascending")]
        tables[name] = pa.table([rows[column] for column in schema.names], schema=schema).sort_by(order)
    return tables
