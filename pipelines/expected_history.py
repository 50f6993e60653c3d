"""How many reviews and texts a training row sees, counted from the review table alone, and the guard on what came back.

Counted by window functions of DuckDB over the reviews, not by the running sums that made the features: a mistake in
the one is no mistake in the other.
"""

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.core.errors import CheckFailed
from pipelines.core.params import Protocol
from pipelines.core.visibility import Entity, LeaveOut, key_of

ENTITIES: tuple[Entity, ...] = ("user", "business")

# What leave_one_out, which knows no time, says nothing of.
TIMED = ("rating_trend", "newest_review_at")


def visible_counts(members: pa.Table, protocol: Protocol, leave_out: LeaveOut) -> pa.Table:
    """Columns `{user,business}_{reviews,texts}`: how many of each a row's history holds, in the rows' order.

    `members` has review_id (unique), user_id, business_id, event_timestamp, has_text, split, fold.
    """
    columns = []
    for entity in ENTITIES:
        for unit, which in (("reviews", "true"), ("texts", "has_text")):
            count = _earlier(entity, which) if protocol == "point_in_time" else _others(entity, which, leave_out)
            columns.append(f"{count} AS {entity}_{unit}")
    numbered = members.append_column("position", pa.array(np.arange(members.num_rows)))
    with duckdb.connect() as connection:
        counted = connection.from_arrow(numbered).project(", ".join([*columns, "position"])).order("position")
        return counted.to_arrow_table().drop(["position"])


def _earlier(entity: Entity, which: str) -> str:
    """Of an entity's reviews up to and with an instant (SQL's default frame takes ties in), those not at it."""
    key = key_of(entity)
    return (
        f"count(*) FILTER ({which}) OVER (PARTITION BY {key} ORDER BY event_timestamp)"
        f" - count(*) FILTER ({which}) OVER (PARTITION BY {key}, event_timestamp)"
    )


def _others(entity: Entity, which: str, leave_out: LeaveOut) -> str:
    """An entity's training reviews; for a training row, less those of its own pair (or fold)."""
    own = "user_id, business_id" if leave_out == "pair" else f"{key_of(entity)}, fold"
    seen = f"count(*) FILTER (split = 'train' AND {which}) OVER"
    own_seen = f"CASE WHEN split = 'train' THEN {seen} (PARTITION BY {own}) ELSE 0 END"
    return f"{seen} (PARTITION BY {key_of(entity)}) - {own_seen}"


def check_history(review_ids: pa.ChunkedArray, features: pa.Table, counts: pa.Table, protocol: Protocol) -> None:
    """Raise CheckFailed unless counts and nulls of the history columns among `features` are those of `counts`.

    A count of a row without history may be null, before filling; every other column is null exactly there.
    """
    for name in features.column_names:
        view, feature = name.split("__")
        entity, _, group = view.partition("_")
        if group not in ("history", "text"):
            continue
        column = features[name]
        expected = counts[f"{entity}_{'reviews' if group == 'history' else 'texts'}"]
        if feature == "review_count":
            _refuse(review_ids, name, pc.fill_null(column, 0), expected)
        else:
            without = pc.equal(expected, 0)
            if protocol == "leave_one_out" and feature in TIMED:
                without = pc.is_valid(expected)
            _refuse(review_ids, f"{name} is null", pc.is_null(column), without)


def _refuse(review_ids: pa.ChunkedArray, what: str, got: pa.ChunkedArray, expected: pa.ChunkedArray) -> None:
    wrong = pc.not_equal(got, expected).to_numpy()
    if wrong.any():
        row = int(wrong.argmax())
        raise CheckFailed(
            f"training_set: review {review_ids[row]}, {what}: {got[row]}, but by the review table {expected[row]}"
            f" ({int(wrong.sum())} of {len(wrong)} rows differ); remake the features with `dvc repro -f history`"
        )
