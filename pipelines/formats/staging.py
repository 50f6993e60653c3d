"""Records to staged Parquet files in batches, so that memory holds a batch and not the source."""

from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.core.tables import BUSINESSES, INSTANT, REJECTS, REVIEWS
from pipelines.formats.records import Business, Ignored, Photo, Record, Reject, Review, content_hash, raw_excerpt

BATCH = 20_000  # records

STAGED = {
    "reviews": pa.schema([pa.field("source_row", pa.int64()), *REVIEWS, pa.field("content", pa.string())]),
    "businesses": pa.schema([pa.field("position", pa.int64()), *BUSINESSES]),
    "photos": pa.schema(
        [
            pa.field("position", pa.int64()),
            pa.field("photo_id", pa.string()),
            pa.field("source_row", pa.int64()),  # the review's; null: no review's
            pa.field("review_id", pa.string()),
            pa.field("business_id", pa.string()),
            pa.field("caption", pa.string()),
        ]
    ),
    "rejects": REJECTS,
}


class _Staging:
    """Rows gathered a table; written when there are BATCH of them."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._rows: dict[str, list[tuple[Any, ...]]] = {name: [] for name in STAGED}
        self._writers = {
            name: stack.enter_context(pq.ParquetWriter(folder / f"{name}.parquet", schema))
            for name, schema in STAGED.items()
        }
        self._written: Counter[str] = Counter()

    def add(self, name: str, *row: Any) -> None:
        self._rows[name].append(row)
        if len(self._rows[name]) >= BATCH:
            self.flush(name)

    def position(self, name: str) -> int:
        """How many rows the table has had."""
        return self._written[name] + len(self._rows[name])

    def flush(self, name: str) -> None:
        rows = self._rows[name]
        self._rows[name] = []
        self._written[name] += len(rows)
        if rows:
            columns = zip(STAGED[name], zip(*rows, strict=True), strict=True)
            arrays = [_array(values, field.type) for field, values in columns]
            self._writers[name].write_table(pa.Table.from_arrays(arrays, schema=STAGED[name]))


def _array(values: tuple[Any, ...], kind: pa.DataType) -> pa.Array:
    """Instants are integers here, which pyarrow takes for no time zone's but UTC's when cast."""
    if kind == INSTANT:
        return pa.array(values, pa.int64()).cast(INSTANT)
    return pa.array(values, kind)


def stage_records(records: Iterable[Record], folder: Path) -> Counter[str]:
    """Write one Parquet file a table of STAGED into `folder`; what was ignored, by reason."""
    ignored: Counter[str] = Counter()
    with ExitStack() as stack:
        staging = _Staging(folder, stack)
        for record in records:
            match record:
                case Review():
                    _add_review(staging, record)
                case Reject():
                    staging.add("rejects", record.source_row, record.reason, raw_excerpt(record.raw))
                case Business(business_id, name, categories, price):
                    staging.add("businesses", staging.position("businesses"), business_id, name, categories, price)
                case Photo(photo_id, business_id, caption):
                    staging.add("photos", staging.position("photos"), photo_id, None, None, business_id, caption)
                case Ignored(what):
                    ignored[":".join(what.split(":")[:2])] += 1
        for name in STAGED:
            staging.flush(name)
    return ignored


def _add_review(staging: _Staging, review: Review) -> None:
    content = content_hash(review.user_id, review.business_id, review.instant, review.rating, review.text)
    review_id = content if review.review_id is None else review.review_id
    staging.add(
        "reviews",
        review.source_row,
        review_id,
        review.user_id,
        review.business_id,
        review.rating,
        review.text,
        review.instant,
        int(np.float32(review.rating) >= 4),
        content,
    )
    for photo_id in review.photo_ids:
        position = staging.position("photos")
        staging.add("photos", position, photo_id, review.source_row, review_id, review.business_id, None)
