"""The training set as the models want it: named NumPy columns, labels, and a fingerprint of the files."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipelines.core.errors import UserError
from pipelines.core.params import Protocol
from pipelines.core.tables import (
    BUSINESS_TAGS,
    HISTORY_NUMBERS,
    HISTORY_TEXT,
    PHOTO_MEANS,
    SUMMARY,
    TRAINING_SET_KEYS,
    read_table,
)

SPLITS = ("train", "validation", "test")
HISTORIES = {"user_history": HISTORY_NUMBERS, "business_history": HISTORY_NUMBERS}
CAPTIONS, IMAGES = ([field] for field in PHOTO_MEANS)
# Model -> the views of its feature service, and what it takes of each. The training set holds what any of them takes.
FEATURES_OF_MODEL: Mapping[str, Mapping[str, list[pa.Field]]] = {
    "baseline": {**HISTORIES, "user_text": HISTORY_TEXT, "business_text": HISTORY_TEXT, "business_photos": IMAGES},
    "proposed": {
        **HISTORIES,
        "user_summary": SUMMARY,
        "business_summary": SUMMARY,
        "business_tags": BUSINESS_TAGS,
        "business_photos": CAPTIONS,
    },
}


def model_schema(model: str) -> pa.Schema:
    """What `model` reads of the training set: keys, then its features by their full names.

    Null where a review sees none; counts alone are filled.
    """
    features = [
        field.with_name(f"{view}__{field.name}").with_nullable(field.name != "review_count")
        for view, fields in FEATURES_OF_MODEL[model].items()
        for field in fields
    ]
    return pa.schema([*TRAINING_SET_KEYS, *features])


def training_set_schema() -> pa.Schema:
    """What is in the files: keys, then the features of every model, those that models share once."""
    schemas = [model_schema(model) for model in FEATURES_OF_MODEL]
    return pa.schema({field.name: field for schema in schemas for field in schema}.values())


@dataclass(frozen=True)
class TrainingRows:
    """N rows of one split. `columns`: what `models.columns` says, with null as NaN, NaT, rows of NaN or None."""

    table: pa.Table  # model_schema or training_set_schema
    columns: dict[str, np.ndarray]

    @property
    def labels(self) -> NDArray[np.int8]:
        return self.columns["label"]

    @property
    def warm(self) -> NDArray[np.bool_]:
        """(N,): both histories are nonempty."""
        return (self.columns["user_history__review_count"] > 0) & (self.columns["business_history__review_count"] > 0)


def read_splits(folder: Path, model: str | None) -> dict[str, TrainingRows]:
    """Train, validation and test: the columns that `model` reads and no others, or all of them (None).

    UserError where a file is missing, unreadable, lacks a column or has no rows, or where vectors differ in width.
    """
    schema = training_set_schema() if model is None else model_schema(model)
    tables = {split: read_table(folder / f"{split}.parquet", schema) for split in SPLITS}
    for split, table in tables.items():
        if not table.num_rows:
            raise UserError(
                f"{folder / f'{split}.parquet'}: no rows; take more reviews or another `split` in params.yaml"
            )
    # One width for all three: a split in which nobody has a text does not know it.
    widths = {name: max(vector_width(table[name]) for table in tables.values()) for name in vector_names(schema)}
    return {
        split: TrainingRows(table, columns(table, widths, str(folder / f"{split}.parquet")))
        for split, table in tables.items()
    }


def vector_names(schema: pa.Schema) -> list[str]:
    return [field.name for field in schema if is_vector(field.type)]


def is_vector(type_: pa.DataType) -> bool:
    return pa.types.is_list(type_) and pa.types.is_floating(type_.value_type)


def vector_width(column: pa.ChunkedArray) -> int:
    """Length of the longest list; 0 where all are null."""
    return pc.max(pc.list_value_length(column)).as_py() or 0


def columns(table: pa.Table, widths: Mapping[str, int], place: str) -> dict[str, np.ndarray]:
    """Columns of `table` except ids, vectors as (N, width). UserError names a vector of another length."""
    made: dict[str, np.ndarray] = {}
    for field in table.schema:
        column = table[field.name].combine_chunks()
        if field.name.endswith("_id"):
            continue
        if is_vector(field.type):
            made[field.name] = matrix(column, widths[field.name], f"{place}, {field.name}")
        elif pa.types.is_string(field.type) or pa.types.is_list(field.type):
            made[field.name] = objects(column)
        elif pa.types.is_timestamp(field.type):
            made[field.name] = column.cast(pa.timestamp("us")).to_numpy(zero_copy_only=False)
        else:
            made[field.name] = column.to_numpy(zero_copy_only=False)
    return made


def objects(column: pa.Array) -> np.ndarray:
    """(N,) of names or of lists of names, null as None."""
    made = np.empty(len(column), dtype=object)
    made[:] = column.to_pylist()
    return made


def matrix(column: pa.ListArray, width: int, place: str) -> NDArray[np.float32]:
    """(N, width) float32, null as a row of NaN."""
    lengths = column.value_lengths().drop_null()
    odd = lengths.filter(pc.not_equal(lengths, width))
    if len(odd):
        raise UserError(f"{place}: a vector of {odd[0]} among vectors of {width}; run `dvc repro` to remake the table")
    rows = np.full((len(column), width), np.nan, np.float32)
    if width == 0:  # nobody has one
        return rows
    rows[column.is_valid().to_numpy(zero_copy_only=False)] = column.flatten().to_numpy().reshape(-1, width)
    return rows


def fingerprint(folder: Path) -> str:
    """sha256 over the bytes of train, validation and test, in this order."""
    digest = hashlib.sha256()
    for split in SPLITS:
        with (folder / f"{split}.parquet").open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def reducers_part(train: TrainingRows, protocol: Protocol) -> NDArray[np.bool_]:
    """(N,): the train rows that a `split` reducer is fitted on; the DLRM takes the others.

    point_in_time: the earlier half by instant, as a deployed reducer would be older than what it is used on.
    leave_one_out: half of the user-business pairs, by a hash of their ids, a pair whole on one side.
    """
    if protocol == "point_in_time":
        instants = train.columns["event_timestamp"]
        return instants < np.sort(instants)[len(instants) // 2]
    pairs = duckdb.from_arrow(train.table.select(["user_id", "business_id"]))
    drawn = pairs.project("md5_number_lower(concat_ws(chr(31), user_id, business_id)) % 2 = 0 AS half")
    return np.asarray(drawn.fetchnumpy()["half"], dtype=np.bool_)
