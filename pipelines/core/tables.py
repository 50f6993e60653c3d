"""The schemas of every table, and Parquet files that appear whole or not at all."""

import os
import shutil
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

# What describe_photos makes of a photo. Both vectors are of unit length; null where there is none.
DESCRIPTIONS = pa.schema(
    [
        pa.field("photo_id", pa.string(), nullable=False),
        pa.field("caption", pa.string()),
        pa.field("caption_source", pa.string()),  # dataset, or the model that wrote it; null where there is no caption
        pa.field("call", pa.string()),  # the ledger's key of the call that wrote it; null for `dataset`
        pa.field("caption_embedding", VECTOR),
        pa.field("image_source", pa.string()),  # the weights; null where there is no file
        pa.field("image_embedding", VECTOR),
    ]
)
PHOTO_REJECTS = pa.schema(
    [pa.field("photo_id", pa.string(), nullable=False), pa.field("reason", pa.string(), nullable=False)]
)
# A snapshot of a history, and what was made of it: which reviews it holds, and who wrote what it says.
SNAPSHOT = [
    pa.field("snapshot_id", pa.string(), nullable=False),
    pa.field("entity", pa.string(), nullable=False),  # user, business
    pa.field("entity_id", pa.string(), nullable=False),
    pa.field("event_timestamp", INSTANT, nullable=False),  # of its newest review; leave_one_out: history.as_of
    # in the order in which they were read: by instant, then id; leave_one_out, which knows no time: by id
    pa.field("review_ids", pa.list_(pa.string()), nullable=False),
    pa.field("source", pa.string(), nullable=False),  # extractive, openai, or review: a review in its own words
    pa.field("model", pa.string()),  # as the provider names it, or its algorithm; null: nobody read it
    pa.field("prompt", pa.string()),  # the question's name and version; extractive answers it without reading it
    pa.field("calls", pa.list_(pa.string()), nullable=False),  # keys of the ledger, the last one's answer counts
    pa.field("failure", pa.string()),  # why there is no answer; null where there is one
]
SUMMARIES = pa.schema([*SNAPSHOT, pa.field("summary", pa.string()), pa.field("embedding", VECTOR)])
TAGS = pa.schema([*SNAPSHOT, pa.field("price_tag", pa.string()), pa.field("subtypes", pa.list_(pa.string()))])

# What an entity's history says, whichever entity and protocol.
HISTORY_NUMBERS = [
    pa.field("review_count", pa.int64(), nullable=False),
    pa.field("rating_mean", pa.float64()),
    pa.field("rating_std", pa.float64()),
    pa.field("rating_trend", pa.float64()),
    pa.field("newest_review_at", INSTANT),
]
HISTORY_TEXT = [pa.field("embedding", VECTOR)]
PHOTO_MEANS = [pa.field("caption_embedding", VECTOR), pa.field("image_embedding", VECTOR)]
SUMMARY = [pa.field("embedding", VECTOR), pa.field("snapshot_id", pa.string(), nullable=False)]
BUSINESS_TAGS = [
    pa.field("price_tag", pa.string()),  # null where no answer was to be had
    pa.field("subtypes", pa.list_(pa.string())),
    pa.field("snapshot_id", pa.string(), nullable=False),
]


def feature_schema(key: str, features: Sequence[pa.Field]) -> pa.Schema:
    """A feature table: the key (`user_id`, `business_id` or `review_id`), its instant, its features."""
    return pa.schema(
        [
            pa.field(key, pa.string(), nullable=False),
            pa.field("event_timestamp", INSTANT, nullable=False),
            *features,
        ]
    )


# Stage -> the feature views whose rows it makes, under data/features/<stage>/<view>.parquet.
VIEWS_OF_STAGE: dict[str, dict[str, list[pa.Field]]] = {
    "history": {
        "user_history": HISTORY_NUMBERS,
        "business_history": HISTORY_NUMBERS,
        "user_text": HISTORY_TEXT,
        "business_text": HISTORY_TEXT,
        "business_photos": PHOTO_MEANS,
    },
    "summarize": {"user_summary": SUMMARY, "business_summary": SUMMARY},
    "tag": {"business_tags": BUSINESS_TAGS},
}


def feature_tables(stage: str) -> dict[str, pa.Schema]:
    """Table name -> schema of what `stage` makes. `*_by_review` are leave_one_out's (empty in point_in_time)."""
    return {
        f"{view}{suffix}": feature_schema("review_id" if suffix else f"{view.split('_')[0]}_id", fields)
        for view, fields in VIEWS_OF_STAGE[stage].items()
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
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside `path` that replaces it on success and is removed on failure."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as name:
        made = Path(name) / "made"
        made.mkdir()
        yield made
        if path.exists():
            shutil.rmtree(path)
        made.rename(path)


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
