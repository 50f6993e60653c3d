"""How much of reviews, texts and photos a training row sees, counted anew, and the guard on what Feast gave.

Counted from the review and photo tables by window functions of DuckDB, not by the running sums that made the features:
a mistake in the one is no mistake in the other.
"""

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.core.errors import CheckFailed
from pipelines.core.params import Protocol
from pipelines.core.tables import VIEWS_OF_STAGE
from pipelines.core.visibility import Entity, LeaveOut, key_of

ENTITIES: tuple[Entity, ...] = ("user", "business")

# What is counted of each review, under the name of its sum. What a model has read is never left out by pairs.
UNITS = {"reviews": "1", "texts": "has_text::INT", "captions": "captions", "images": "images"}
SNAPSHOT_TEXTS = "snapshot_texts"
# What leave_one_out, which knows no time, says nothing of.
TIMED = ("rating_trend", "newest_review_at")


def visible_counts(members: pa.Table, protocol: Protocol, leave_out: LeaveOut) -> pa.Table:
    """Columns `{user,business}_{reviews,texts,captions,images,snapshot_texts}`: how many of each a row's history holds,
    in the rows' order.

    `members` has review_id (unique), user_id, business_id, event_timestamp, has_text, captions, images, split, fold.
    """
    columns = []
    for entity in ENTITIES:
        units = [(name, amount, leave_out) for name, amount in UNITS.items()]
        for name, amount, part in [*units, (SNAPSHOT_TEXTS, UNITS["texts"], "fold")]:
            total = _earlier(entity, amount) if protocol == "point_in_time" else _others(entity, amount, part)
            columns.append(f"({total})::BIGINT AS {entity}_{name}")
    numbered = members.append_column("position", pa.array(np.arange(members.num_rows)))
    with duckdb.connect() as connection:
        counted = connection.from_arrow(numbered).project(", ".join([*columns, "position"])).order("position")
        return counted.to_arrow_table().drop(["position"])


def _earlier(entity: Entity, amount: str) -> str:
    """Of an entity's reviews up to and with an instant (SQL's default frame takes ties in), those not at it."""
    key = key_of(entity)
    return (
        f"sum({amount}) OVER (PARTITION BY {key} ORDER BY event_timestamp)"
        f" - sum({amount}) OVER (PARTITION BY {key}, event_timestamp)"
    )


def _others(entity: Entity, amount: str, leave_out: LeaveOut) -> str:
    """An entity's training reviews; for a training row, less those of its own pair (or fold)."""
    own = "user_id, business_id" if leave_out == "pair" else f"{key_of(entity)}, fold"
    seen = f"coalesce(sum({amount}) FILTER (split = 'train') OVER"
    own_seen = f"CASE WHEN split = 'train' THEN {seen} (PARTITION BY {own}), 0) ELSE 0 END"
    return f"{seen} (PARTITION BY {key_of(entity)}), 0) - {own_seen}"


def counted_by(view: str, feature: str) -> str:
    """The column of `visible_counts` that decides whether a feature says anything."""
    entity, _, group = view.partition("_")
    if group == "history":
        return f"{entity}_reviews"
    if group == "text":
        return f"{entity}_texts"
    if group == "photos":
        return f"{entity}_{feature.removesuffix('_embedding')}s"
    return f"{entity}_{SNAPSHOT_TEXTS}"


def check_history(review_ids: pa.ChunkedArray, features: pa.Table, counts: pa.Table, protocol: Protocol) -> None:
    """Raise CheckFailed unless counts and nulls among `features` are those of `counts`.

    A count of a row without history may be null, before filling; every other column is null exactly there. What was
    made of a snapshot may be missing where its snapshot is not: a model may have had no answer.
    """
    for name in features.column_names:
        view, feature = name.split("__")
        column, expected = features[name], counts[counted_by(view, feature)]
        if feature == "review_count":
            _refuse(review_ids, name, pc.fill_null(column, 0), expected)
            continue
        without = pc.equal(expected, 0)
        if protocol == "leave_one_out" and feature in TIMED:
            without = pc.is_valid(expected)
        null = pc.is_null(column)
        if f"{view}__snapshot_id" in features.column_names and feature != "snapshot_id":
            null = pc.and_(null, without)
        _refuse(review_ids, f"{name} is null", null, without)


def _refuse(review_ids: pa.ChunkedArray, what: str, got: pa.ChunkedArray, expected: pa.ChunkedArray) -> None:
    wrong = pc.not_equal(got, expected).to_numpy()
    if wrong.any():
        row = int(wrong.argmax())
        stage = next(stage for stage, views in VIEWS_OF_STAGE.items() if what.split("__")[0] in views)
        raise CheckFailed(
            f"training_set: review {review_ids[row]}, {what}: {got[row]}, but by the review table {expected[row]}"
            f" ({int(wrong.sum())} of {len(wrong)} rows differ); remake the features with `dvc repro -f {stage}`"
        )
