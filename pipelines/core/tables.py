"""The schemas of every table, and Parquet files that appear whole or not at all."""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.core.errors import UserError

INSTANT = pa.timestamp("us", tz="UTC")
VECTOR = pa.list_(pa.float32())
CHUNK = 100_000  # rows of vectors: a list array counts its numbers in an int32

REVIEWS = pa.schema(
    [
        pa.field("review_id", pa.string(), nullable=False),
        pa.field("user_id", pa.string(), nullable=False),
        pa.field("business_id", pa.string(), nullable=False),
        pa.field("rating", pa.float32(), nullable=False),
        pa.field("text", pa.string(), nullable=False),  # "" where the source has none
        pa.field("event_timestamp", INSTANT),  # null where the source has none
        pa.field("label", pa.int8(), nullable=False),  # rating >= 4
    ]
)
BUSINESSES = pa.schema(
    [
        pa.field("business_id", pa.string(), nullable=False),
        pa.field("name", pa.string()),
        pa.field("categories", pa.list_(pa.string()), nullable=False),
        pa.field("price", pa.float64()),  # the source's own unit: a level of 1 to 4, or a cost for two
    ]
)
PHOTOS = pa.schema(
    [
        pa.field("photo_id", pa.string(), nullable=False),
        pa.field("review_id", pa.string()),  # null: no review's to see
        pa.field("business_id", pa.string(), nullable=False),
        pa.field("path", pa.string()),  # null where only a URL is known
        pa.field("caption", pa.string()),
        pa.field("sha256", pa.string()),
    ]
)
REJECTS = pa.schema(
    [
        pa.field("source_row", pa.int64(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("raw", pa.string(), nullable=False),
    ]
)
SPLIT = pa.schema(
    [
        pa.field("review_id", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),  # train, validation, test
        pa.field("fold", pa.int8(), nullable=False),
    ]
)
REVIEW_TEXT = pa.schema(
    [
        pa.field("review_id", pa.string(), nullable=False),
        pa.field("embedding", VECTOR),  # unit length; null where the review has no text
    ]
)

# What an entity's history says, whichever entity and protocol.
HISTORY_NUMBERS = [
    pa.field("review_count", pa.int64(), nullable=False),
    pa.field("rating_mean", pa.float64()),
    pa.field("rating_std", pa.float64()),
    pa.field("rating_trend", pa.float64()),
    pa.field("newest_review_at", INSTANT),
]
HISTORY_TEXT = [pa.field("embedding", VECTOR)]


def feature_schema(key: str, features: Sequence[pa.Field]) -> pa.Schema:
    """A feature table: the key (`user_id`, `business_id` or `review_id`), its instant, its features."""
    return pa.schema(
        [
            pa.field(key, pa.string(), nullable=False),
            pa.field("event_timestamp", INSTANT, nullable=False),
            *features,
        ]
    )


# File name under data/features -> schema. `*_by_review` are leave_one_out's (empty in point_in_time).
FEATURE_TABLES = {
    f"{entity}_{group}{suffix}": feature_schema("review_id" if suffix else f"{entity}_id", fields)
    for group, fields in {"history": HISTORY_NUMBERS, "text": HISTORY_TEXT}.items()
    for entity in ("user", "business")
    for suffix in ("", "_by_review")
}

TRAINING_SET_KEYS = pa.schema(
    [
        pa.field("review_id", pa.string(), nullable=False),
        pa.field("user_id", pa.string(), nullable=False),
        pa.field("business_id", pa.string(), nullable=False),
        pa.field("event_timestamp", INSTANT),  # the review's own
        pa.field("label", pa.int8(), nullable=False),
    ]
)


def vector_column(vectors: npt.NDArray[np.float32], known: npt.NDArray[np.bool_]) -> pa.ChunkedArray:
    """List column of `vectors` (N, D), null where `known` (N,) is false."""
    chunks = [_vector_chunk(vectors[i : i + CHUNK], known[i : i + CHUNK]) for i in range(0, len(known), CHUNK)]
    return pa.chunked_array(chunks, VECTOR)


def _vector_chunk(vectors: npt.NDArray[np.float32], known: npt.NDArray[np.bool_]) -> pa.Array:
    offsets = np.concatenate([[0], np.cumsum(known)]).astype(np.int32) * np.int32(vectors.shape[1])
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(vectors[known].reshape(-1)), mask=pa.array(~known))


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` that replaces it on success and is removed on failure."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def parquet_writer(path: Path, schema: pa.Schema) -> Iterator[pq.ParquetWriter]:
    """A streaming Parquet writer whose file appears at `path` only when the block ends well."""
    with whole_file(path) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        yield writer


def write_table(table: pa.Table, path: Path, schema: pa.Schema) -> None:
    """Write `table`, cast to `schema`, whole or not at all."""
    with parquet_writer(path, schema) as writer:
        writer.write_table(table.select(schema.names).cast(schema))


def read_table(path: Path, schema: pa.Schema, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a table that has (at least) the columns of `schema`, in its types.

    Raises UserError where the file is missing, no Parquet, or lacks a column.
    """
    names = list(columns) if columns is not None else schema.names
    try:
        with pq.ParquetFile(path) as file:
            missing = [name for name in names if name not in file.schema_arrow.names]
            if missing:
                raise UserError(f"{path}: lacks the columns {missing}; another version made it: run `dvc repro`")
            table = file.read(columns=names)
    except FileNotFoundError:
        raise UserError(f"{path}: no such table; run `dvc repro` to make it") from None
    except pa.ArrowInvalid as error:
        raise UserError(f"{path}: not a readable Parquet file ({error}); run `dvc repro` to remake it") from None
    return table.select(names).cast(pa.schema([schema.field(name) for name in names]))
