"""Any CSV, JSON Lines or Parquet file, by `ingest.columns`: our name -> theirs.

A name that `ingest.columns` leaves out stands for itself. `review_id` and `timestamp` are optional: without the one the
content's hash stands in, without the other the source has no instants.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.core.errors import UserError
from pipelines.core.params import Column
from pipelines.formats.csv_rows import columns_of, csv_rows
from pipelines.formats.fields import Unusable, identifier_of, instant_of, rating_of, text_of
from pipelines.formats.json_lines import json_lines, keys_of
from pipelines.formats.opening import head_of, open_raw
from pipelines.formats.records import Columns, Record, Reject, Review

OPTIONAL: tuple[Column, ...] = ("review_id", "timestamp")
BATCH = 10_000  # rows of a Parquet file in memory

Rows = Iterator[tuple[str, dict[str, Any] | Unusable]]


def read(path: Path, columns: Columns) -> Iterator[Record]:
    """Stream the file; what kind it is, its first bytes say."""
    if head_of(path).startswith(b"PAR1"):
        present, rows = parquet_columns(path), parquet_rows(path)
    else:
        with open_raw(path) as raw:
            is_json = raw.read(1000).removeprefix(b"\xef\xbb\xbf").lstrip().startswith((b"{", b"["))
        present = keys_of(path) if is_json else columns_of(path)
        rows = ((line, parsed) for _, line, parsed in json_lines(path)) if is_json else csv_rows(path)
    names = resolve(path, columns, present)
    for row, (raw_text, values) in enumerate(rows, 1):
        yield review_of(row, raw_text, values, names)


def resolve(path: Path, columns: Columns, present: set[str]) -> dict[Column, str]:
    """Our names -> the file's. UserError names the first column that the file lacks, and those that it has."""
    names: dict[Column, str] = {}
    for ours in get_args(Column):
        theirs = columns.get(ours, ours)
        if theirs in present:
            names[ours] = theirs
        elif ours in columns or ours not in OPTIONAL:
            raise UserError(
                f"{path}: line 1: no column `{theirs}` for `ingest.columns.{ours}`; the file has {named(present)}"
            )
    return names


def named(present: set[str]) -> str:
    """The columns of a file on one line of bearable length."""
    names = " ".join(", ".join(sorted(present)).split())
    return names if len(names) <= 200 else f"{names[:200]}… ({len(present)} columns)"


def review_of(row: int, raw: str, values: dict[str, Any] | Unusable, names: dict[Column, str]) -> Review | Reject:
    """One row."""
    try:
        if isinstance(values, Unusable):
            raise values
        got = {ours: values.get(theirs) for ours, theirs in names.items()}
        return Review(
            source_row=row,
            user_id=identifier_of(got["user_id"], "user id"),
            business_id=identifier_of(got["business_id"], "business id"),
            rating=rating_of(got["rating"]),
            text=text_of(got["text"]),
            instant=instant_of(got["timestamp"]) if "timestamp" in got else None,
            review_id=identifier_of(got["review_id"], "review id") if "review_id" in got else None,
        )
    except Unusable as reason:
        return Reject(row, str(reason), raw)


def parquet_columns(path: Path) -> set[str]:
    """The names of the columns. UserError where the file is damaged."""
    try:
        return set(pq.read_schema(path).names)
    except (pa.ArrowInvalid, OSError) as error:
        raise damaged(path, error) from None


def parquet_rows(path: Path) -> Rows:
    """(the row as JSON, its values by column); instants to the microsecond, as Python has them."""
    try:
        for batch in pq.ParquetFile(path).iter_batches(BATCH):
            for row in in_microseconds(batch).to_pylist():
                yield json.dumps(row, default=str, ensure_ascii=False), row
    except (
        pa.ArrowInvalid,
        OSError,
        OverflowError,
        UnicodeDecodeError,
        KeyError,
    ) as error:  # KeyError: a time zone that no one knows
        raise damaged(path, error) from None


def in_microseconds(batch: pa.RecordBatch) -> pa.Table:
    """Nanoseconds, which Python's datetime lacks, cut to microseconds."""
    table = pa.Table.from_batches([batch])
    for number, field in enumerate(table.schema):
        if pa.types.is_timestamp(field.type):
            cut = table.column(number).cast(pa.timestamp("us", tz=field.type.tz), safe=field.type.unit != "ns")
            table = table.set_column(number, field.name, cut)
    return table


def damaged(path: Path, error: Exception) -> UserError:
    cause = " ".join(str(error).split())
    return UserError(f"{path}: the Parquet file is truncated, damaged or unreadable ({cause}); export it again")
