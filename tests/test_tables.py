"""Tables appear whole or not at all, and a wrong one is refused by name."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.core import tables
from pipelines.core.errors import UserError
from pipelines.core.tables import SPLIT, parquet_writer, read_table, vector_column, whole_file, write_table

ROWS = pa.table({"review_id": ["a"], "split": ["train"], "fold": pa.array([0], pa.int8())})


def test_a_failed_write_leaves_what_was_there(tmp_path):
    path = tmp_path / "deep" / "split.parquet"
    write_table(ROWS, path, SPLIT)
    before = path.read_bytes()
    with pytest.raises(RuntimeError), parquet_writer(path, SPLIT) as writer:
        writer.write_table(ROWS.cast(SPLIT))
        raise RuntimeError("killed")
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["split.parquet"]


def test_a_whole_file_replaces(tmp_path):
    path = tmp_path / "x.json"
    for text in ("1", "2"):
        with whole_file(path) as temporary:
            temporary.write_text(text)
    assert path.read_text() == "2"


def test_reading(tmp_path):
    path = tmp_path / "split.parquet"
    with pytest.raises(UserError, match="no such table; run `dvc repro`"):
        read_table(path, SPLIT)
    path.write_text("not parquet")
    with pytest.raises(UserError, match="not a readable Parquet file"):
        read_table(path, SPLIT)
    pq.write_table(ROWS.drop(["fold"]), path)
    with pytest.raises(UserError, match=r"lacks the columns \['fold'\]"):
        read_table(path, SPLIT)
    write_table(ROWS, path, SPLIT)
    assert read_table(path, SPLIT).schema.equals(SPLIT)
    assert read_table(path, SPLIT, ["fold"]).column_names == ["fold"]


def test_vectors_in_several_chunks(monkeypatch):
    monkeypatch.setattr(tables, "CHUNK", 2)
    vectors = np.arange(10, dtype=np.float32).reshape(5, 2)
    known = np.array([True, False, False, False, True])
    column = vector_column(vectors, known)
    assert column.num_chunks == 3
    assert column.to_pylist() == [[0, 1], None, None, None, [8, 9]]
    assert len(vector_column(vectors[:0], known[:0])) == 0
