"""What was made of a snapshot, and the ledger's record of who wrote it, for whoever asks where a feature is from."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.core.errors import UserError
from pipelines.core.ledger import Entry, Ledger, ledger_file
from pipelines.core.params import Params
from pipelines.core.tables import SUMMARIES, TAGS

# How a view's name ends -> where the readings of its snapshots are, under the data folder.
READINGS = {
    "_summary": ("features/summarize/summaries.parquet", SUMMARIES),
    "_tags": ("features/tag/tags.parquet", TAGS),
}
BLOCK = 8192  # rows of a table that are in memory at once
# Of a call: the texts stand beside it.
CALL = ("status", "provider", "model", "prompt", "input_tokens", "output_tokens", "dollars", "time")


def readings(data: Path, snapshot_id: str, view: str | None) -> Iterator[dict[str, Any]]:
    """What was made of a snapshot, a summary or tags; without a `view` both. UserError where a file cannot be read."""
    for suffix, (file, schema) in READINGS.items():
        if view is None or view.endswith(suffix):
            names = [name for name in schema.names if name != "embedding"]
            reading = row_of(data / file, schema, names, "snapshot_id", snapshot_id)
            if reading is not None:
                yield reading


def row_of(path: Path, schema: pa.Schema, names: Sequence[str], key: str, value: str) -> dict[str, Any] | None:
    """The columns `names` of the first row whose `key` is `value`; None: there is none.

    It is found by the one column, then read towards: of a million summaries in 0.3 s and 0.5 GB, where a filter over
    all columns took 0.4 s and 1.6 GB. UserError where the file is missing, no Parquet, or lacks a column.
    """
    try:
        with pq.ParquetFile(path) as file:
            missing = [name for name in {key, *names} if name not in file.schema_arrow.names]
            if missing:
                raise UserError(
                    f"{path}: lacks the columns {sorted(missing)}; another version made it: run `dvc repro`"
                )
            at = pc.index(file.read(columns=[key])[key], value).as_py()
            if at < 0:
                return None
            group = 0
            while at >= (rows := file.metadata.row_group(group).num_rows):
                at, group = at - rows, group + 1
            for block in file.iter_batches(BLOCK, row_groups=[group], columns=list(names)):
                if at < len(block):
                    typed = pa.schema([schema.field(name) for name in names])
                    row: dict[str, Any] = block.slice(at, 1).select(list(names)).cast(typed).to_pylist()[0]
                    return row
                at -= len(block)
    except FileNotFoundError:
        raise UserError(f"{path}: no such table; run `dvc repro` to make it") from None
    except (OSError, pa.ArrowInvalid) as error:
        said = " ".join(str(error).split())
        raise UserError(f"{path}: not a readable Parquet file ({said}); run `dvc repro` to remake it") from None
    raise AssertionError(f"{path}: fewer rows than it says")


def calls_of(keys: Sequence[str], params: Params) -> list[dict[str, Any]]:
    """The record of each call, without texts; where it is not to be had, its `status` says so in words."""
    path = ledger_file(params.cache.folder())
    if not keys:
        return []
    if not path.is_file():
        return [unrecorded(key, f"no ledger on this machine at {path}") for key in keys]
    try:
        with closing(Ledger(path)) as ledger:
            return [recorded(key, ledger.entry(key)) for key in keys]
    except UserError as error:
        return [unrecorded(key, str(error)) for key in keys]


def recorded(key: str, entry: Entry | None) -> dict[str, Any]:
    """A ledger entry without its texts."""
    if entry is None:
        return unrecorded(key, "not in this machine's ledger")
    return {"key": key} | {name: getattr(entry, name) for name in CALL}


def unrecorded(key: str, why: str) -> dict[str, Any]:
    return {"key": key} | dict.fromkeys(CALL) | {"status": why}
