"""What models read of the training set: the columns of one, or of all; what is missing or odd is refused by name."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.core.errors import UserError
from pipelines.core.training_rows import SPLITS, model_schema, read_splits, training_set_schema
from tests.models.training_sets import MODELS, write_splits
from tests.test_feature_repo import HISTORY, READ_BY

KEYS = ["review_id", "user_id", "business_id", "event_timestamp", "label"]


def harm(folder: Path, split: str, name: str, column: pa.Array | None) -> None:
    """`name` of a split is another column, or not there."""
    path = folder / f"{split}.parquet"
    table = pq.read_table(path).drop([name])
    pq.write_table(table if column is None else table.append_column(name, column), path)


def test_the_schema_is_the_union_in_one_order() -> None:
    assert training_set_schema().names == [*KEYS, *HISTORY, *READ_BY["baseline"], *READ_BY["proposed"]]
    for model in MODELS:
        assert model_schema(model).names == [*KEYS, *HISTORY, *READ_BY[model]]
        assert all(training_set_schema().field(field.name).equals(field) for field in model_schema(model))


@pytest.mark.parametrize("model", [*MODELS, None])
def test_a_model_reads_its_own_columns_and_none_reads_all(tmp_path: Path, model: str | None) -> None:
    folder = write_splits(tmp_path / "set")
    schema = training_set_schema() if model is None else model_schema(model)
    for split, rows in read_splits(folder, model).items():
        whole = pq.read_table(folder / f"{split}.parquet")
        assert rows.table.equals(whole.select(schema.names))
        assert set(rows.columns) == {name for name in schema.names if not name.endswith("_id")}
        assert rows.columns["label"].tolist() == whole["label"].to_pylist()


def test_both_models_read_the_same_rows(tmp_path: Path) -> None:
    folder = write_splits(tmp_path / "set")
    one, other, both = (read_splits(folder, model) for model in (*MODELS, None))
    for split in SPLITS:
        for rows in (one, other):
            for name, column in rows[split].columns.items():
                np.testing.assert_array_equal(column, both[split].columns[name])


@pytest.mark.parametrize(
    ("reader", "name"), [("baseline", "user_text__embedding"), ("proposed", "business_tags__subtypes")]
)
def test_a_missing_column_is_refused_by_whoever_reads_it(tmp_path: Path, reader: str, name: str) -> None:
    folder = write_splits(tmp_path / "set")
    harm(folder, "test", name, None)
    (other,) = (model for model in MODELS if model != reader)
    assert set(read_splits(folder, other)) == set(SPLITS)
    for model in (reader, None):
        with pytest.raises(UserError, match=rf"test\.parquet: lacks the columns \['{name}'\]; another version made it"):
            read_splits(folder, model)


def test_a_vector_of_another_width_is_refused_by_whoever_reads_it(tmp_path: Path) -> None:
    folder = write_splits(tmp_path / "set")
    name = "business_photos__image_embedding"
    odd = pa.array([[0.5] * 20] * 199 + [[0.5] * 21], pa.list_(pa.float32()))
    harm(folder, "test", name, odd)
    read_splits(folder, "proposed")
    for model in ("baseline", None):
        with pytest.raises(UserError, match=f"{name}: a vector of 20 among vectors of 21"):
            read_splits(folder, model)
