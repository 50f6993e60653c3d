"""The training set as the models want it: named NumPy columns, labels, and a fingerprint of the files."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipelines.core.errors import UserError
from pipelines.core.params import Protocol
from pipelines.core.tables import HISTORY_NUMBERS, HISTORY_TEXT, TRAINING_SET_KEYS, read_table

SPLITS = ("train", "validation", "test")
TRAINING_SET = pa.schema(
    [
        *TRAINING_SET_KEYS,
        *(field.with_name(f"{e}_history__{field.name}") for e in ("user", "business") for field in HISTORY_NUMBERS),
        *(field.with_name(f"{e}_text__{field.name}") for e in ("user", "business") for field in HISTORY_TEXT),
    ]
)


@dataclass(frozen=True)
class TrainingRows:
    """N rows of one split. `columns`: what `models.encoding` reads, NaN, NaT or rows of NaN for null."""

    table: pa.Table  # TRAINING_SET
    columns: dict[str, np.ndarray]

    @property
    def labels(self) -> NDArray[np.int8]:
        return self.columns["label"]

    @property
    def warm(self) -> NDArray[np.bool_]:
        """(N,): both histories are nonempty."""
        return (self.columns["user_history__review_count"] > 0) & (self.columns["business_history__review_count"] > 0)


def read_splits(folder: Path) -> dict[str, TrainingRows]:
    """Train, validation and test of a training set. UserError where one is missing, unreadable or without rows."""
    tables = {split: read_table(folder / f"{split}.parquet", TRAINING_SET) for split in SPLITS}
    for split, table in tables.items():
        if not table.num_rows:
            raise UserError(
                f"{folder / f'{split}.parquet'}: no rows; take more reviews or another `split` in params.yaml"
            )
    # One width for all three: a split in which nobody has a text does not know it.
    width = max(vector_width(table[name]) for table in tables.values() for name in vector_names())
    return {
        split: TrainingRows(table, columns(table, width, str(folder / f"{split}.parquet")))
        for split, table in tables.items()
    }


def vector_names() -> list[str]:
    return [field.name for field in TRAINING_SET if pa.types.is_list(field.type)]


def vector_width(column: pa.ChunkedArray) -> int:
    """Length of the longest list; 0 where all are null."""
    return pc.max(pc.list_value_length(column)).as_py() or 0


def columns(table: pa.Table, width: int, place: str) -> dict[str, np.ndarray]:
    """Columns of `table` except the ids; lists of `width` as (N, width). UserError names a list of another length."""
    made: dict[str, np.ndarray] = {}
    for field in table.schema:
        column = table[field.name].combine_chunks()
        if pa.types.is_string(field.type):
            continue
        if pa.types.is_list(field.type):
            made[field.name] = matrix(column, width, f"{place}, {field.name}")
        elif pa.types.is_timestamp(field.type):
            made[field.name] = column.cast(pa.timestamp("us")).to_numpy(zero_copy_only=False)
        else:
            made[field.name] = column.to_numpy(zero_copy_only=False)
    return made


def matrix(column: pa.ListArray, width: int, place: str) -> NDArray[np.float32]:
    """(N, width) float32, null as a row of NaN."""
    lengths = column.value_lengths().drop_null()
    odd = lengths.filter(pc.not_equal(lengths, width))
    if len(odd):
        raise UserError(f"{place}: a vector of {odd[0]} among vectors of {width}; run `dvc repro` to remake the table")
    rows = np.full((len(column), width), np.nan, np.float32)
    if width == 0:  # no review has a text
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
