"""The simulated world of `pipelines/simulate.py`: google_local's layout, so google_local's reader."""

from collections.abc import Iterator
from pathlib import Path

from pipelines.core.errors import UserError
from pipelines.formats import google_local
from pipelines.formats.records import Columns, Record


def read(path: Path, columns: Columns) -> Iterator[Record]:
    """Stream the simulated folder; `columns` is the `table` format's alone."""
    if not path.exists():
        raise UserError(f"{path}: no simulated world here; run `dvc repro simulate` to make it")
    yield from google_local.read(path, columns)
