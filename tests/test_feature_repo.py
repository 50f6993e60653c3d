"""What the feature repo defines, and that the real `feast` command works from the root and from inside."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import chdir, closing
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast.types import from_feast_to_pyarrow_type
from filling import fill_counts
from naming import service_name

from pipelines.core.errors import UserError
from pipelines.core.tables import VIEWS_OF_STAGE, feature_tables
from pipelines.register import apply, dump_registry, open_store, registered_store
from tests.params import ROOT

PROTOCOLS = ("point_in_time", "leave_one_out")
# table -> (the stage that makes it, its schema)
TABLES = {name: (stage, schema) for stage in VIEWS_OF_STAGE for name, schema in feature_tables(stage).items()}


def copy_of_the_repo(root: Path) -> Path:
    ignored = shutil.ignore_patterns("__pycache__")
    return Path(shutil.copytree(ROOT / "feature_repo", root / "feature_repo", ignore=ignored))


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = copy_of_the_repo(tmp_path_factory.mktemp("workspace"))
    apply(made)
    return made


def test_every_feature_table_has_a_view_of_its_columns(repo: Path) -> None:
    store = open_store(repo)
    views = {view.name: view for view in store.list_feature_views()}
    assert views.keys() == TABLES.keys()
    for name, (stage, schema) in TABLES.items():
        view = views[name]
        key = schema.names[0]
        assert [field.name for field in view.entity_columns] == [key]
        declared = {field.name: from_feast_to_pyarrow_type(field.dtype) for field in view.features}
        assert declared == {field.name: field.type for field in schema if field.name not in (key, "event_timestamp")}
        assert not view.ttl
        assert view.online == (not name.endswith("_by_review"))
        assert view.batch_source.path == f"../data/features/{stage}/{name}.parquet"


NUMBERS = ("review_count", "rating_mean", "rating_std", "rating_trend", "newest_review_at")
HISTORY = [f"{entity}_history__{number}" for entity in ("user", "business") for number in NUMBERS]
READ_BY = {
    "baseline": ["user_text__embedding", "business_text__embedding", "business_photos__image_embedding"],
    "proposed": [
        "user_summary__embedding",
        "user_summary__snapshot_id",
        "business_summary__embedding",
        "business_summary__snapshot_id",
        "business_tags__price_tag",
        "business_tags__subtypes",
        "business_tags__snapshot_id",
        "business_photos__caption_embedding",
    ],
}


ALL_READ = [name for names in READ_BY.values() for name in names]


@pytest.mark.parametrize("model", READ_BY)
def test_a_services_full_names_are_the_same_under_both_protocols(repo: Path, model: str) -> None:
    store = open_store(repo)
    names = []
    for protocol in PROTOCOLS:
        service = store.get_feature_service(service_name(model, protocol))
        by_review = [projection.name.endswith("_by_review") for projection in service.feature_view_projections]
        assert all(by_review) if protocol == "leave_one_out" else not any(by_review)
        names.append(
            [
                f"{projection.name_alias or projection.name}__{feature.name}"
                for projection in service.feature_view_projections
                for feature in projection.features
            ]
        )
    assert names[0] == names[1] == HISTORY + READ_BY[model]


def test_the_dump_is_the_same_elsewhere_and_again(repo: Path, tmp_path: Path) -> None:
    first = dump_registry(open_store(repo))
    assert dump_registry(apply(repo)) == first
    assert dump_registry(apply(copy_of_the_repo(tmp_path))) == first
    assert str(repo.parent) not in first and 'imestamp": "2' not in first
    assert json.loads(first).keys() == {"project", "entities", "dataSources", "featureViews", "featureServices"}


def test_what_is_no_longer_defined_is_deleted(tmp_path: Path) -> None:
    """And registered again, which the dump of the untouched repo asks for."""
    from feast import Entity

    repo = copy_of_the_repo(tmp_path)
    store = apply(repo)
    dump = tmp_path / "registry.json"
    dump.write_text(dump_registry(store))
    store.apply([Entity(name="forgotten", join_keys=["forgotten_id"])])
    assert "forgotten" in dump_registry(store)
    assert dump_registry(registered_store(repo, dump)) == dump.read_text()


def test_a_missing_registry_is_made_from_any_working_directory(tmp_path: Path) -> None:
    repo = copy_of_the_repo(tmp_path)
    dump = tmp_path / "registry.json"
    dump.write_text(dump_registry(apply(repo)))
    shutil.rmtree(tmp_path / "data")
    with chdir(tmp_path):
        registered_store(Path("feature_repo"), Path("registry.json"))
        assert Path.cwd() == tmp_path
    assert (tmp_path / "data/feast/registry.db").is_file()


def test_a_copied_or_moved_workspace_has_a_registry_of_its_own(tmp_path: Path) -> None:
    """Feast's knows the online store by its absolute path: the copy would have emptied the original."""
    first = copy_of_the_repo(tmp_path / "first")
    apply(first)
    online = Path("data", "feast", "online.db")
    shutil.copytree(first.parent, tmp_path / "second")
    (tmp_path / "second" / online).unlink()
    apply(tmp_path / "second" / "feature_repo")
    assert tables_in(tmp_path / "first" / online) == tables_in(tmp_path / "second" / online) != set()
    (tmp_path / "dump.json").write_text(dump_registry(open_store(first)))
    first.parent.rename(tmp_path / "third")
    store = registered_store(tmp_path / "third" / "feature_repo", tmp_path / "dump.json")
    assert len(store.list_feature_views()) == len(TABLES)
    assert not first.parent.exists()


def tables_in(database: Path) -> set[str]:
    with closing(sqlite3.connect(database)) as connection:
        return {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def test_a_folder_that_is_no_feature_repo_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no feature_store\.yaml here"):
        apply(tmp_path)
    with pytest.raises(UserError, match=r"registry\.json: no such file; run `dvc repro register`"):
        registered_store(ROOT / "feature_repo", tmp_path / "registry.json")


def test_only_counts_are_filled() -> None:
    table = pa.table(
        {
            "user_history__review_count": pa.array([None, 2], pa.int64()),
            "user_history__rating_mean": pa.array([None, 4.5]),
            "user_text__embedding": pa.array([None, [1.0]]),
        }
    )
    filled = fill_counts(table)
    assert filled.column_names == table.column_names
    assert filled["user_history__review_count"].to_pylist() == [0, 2]
    assert filled.drop(["user_history__review_count"]).equals(table.drop(["user_history__review_count"]))


def write_feature_tables(folder: Path, rows: int) -> None:
    """A feature row per key in every table, stamped over ten days; the vectors are 384 wide."""
    instants = pa.array(1_577_836_800_000_000 + np.arange(rows) % 10 * 86_400_000_000, pa.timestamp("us", tz="UTC"))
    vectors = np.random.default_rng(0).normal(size=(rows, 384)).astype("float32")
    values = {
        "event_timestamp": instants,
        "review_count": pa.array(np.arange(rows)),
        "rating_mean": pa.array(np.full(rows, 3.5)),
        "rating_std": pa.nulls(rows, pa.float64()),
        "rating_trend": pa.array(np.full(rows, -0.5)),
        "newest_review_at": instants,
        "price_tag": pa.array(["fair"] * rows),
        "subtypes": pa.array([["thai_restaurant"] * (number % 3) for number in range(rows)]),
    }
    embedding = pa.FixedSizeListArray.from_arrays(vectors.reshape(-1), 384).cast(pa.list_(pa.float32()))
    values |= dict.fromkeys(("embedding", "caption_embedding", "image_embedding"), embedding)
    for name, (stage, schema) in TABLES.items():
        keys = pa.array([f"{schema.names[0][0]}{number}" for number in range(rows)])
        table = pa.table({field.name: values.get(field.name, keys) for field in schema}, schema=schema)
        (folder / stage).mkdir(parents=True, exist_ok=True)
        pq.write_table(table, folder / stage / f"{name}.parquet")


@pytest.mark.slow
@pytest.mark.parametrize("command, where", [(["-c", "feature_repo"], "."), ([], "feature_repo")])
def test_the_feast_command_materializes(tmp_path: Path, command: list[str], where: str) -> None:
    repo = copy_of_the_repo(tmp_path)
    write_feature_tables(tmp_path / "data/features", rows=50)
    environment = {**os.environ, "PYTHONPATH": str(repo), "TZ": "Asia/Kolkata"}

    def feast(*arguments: str) -> None:
        feast_command = [str(Path(sys.executable).with_name("feast")), *command, *arguments]
        done = subprocess.run(feast_command, cwd=tmp_path / where, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

    (tmp_path / "data/feast").mkdir()
    feast("apply")
    registered = dump_registry(open_store(repo))
    assert registered == dump_registry(apply(copy_of_the_repo(tmp_path / "other")))
    feast("materialize", "2020-01-01T00:00:00Z", "2020-01-09T00:00:00Z")
    store = open_store(repo)
    assert dump_registry(store) == registered
    service = store.get_feature_service(service_name("baseline", "point_in_time"))
    rows = [{"user_id": "u8", "business_id": "b3"}, {"user_id": "u9", "business_id": "nobody"}]
    got = store.get_online_features(service, rows, full_feature_names=True).to_dict()
    assert got["user_history__review_count"] == [8, None]
    assert got["business_history__review_count"] == [3, None]
    vectors = pq.read_table(tmp_path / "data/features/history/business_text.parquet")["embedding"]
    assert got["business_text__embedding"] == [vectors[3].as_py(), None]
    assert got["user_history__rating_std"] == [None, None]
    service = store.get_feature_service(service_name("proposed", "point_in_time"))
    got = store.get_online_features(service, rows, full_feature_names=True).to_dict()
    assert got["user_summary__embedding"] == [vectors[8].as_py(), None]
    assert got["business_tags__subtypes"] == [[], None]
    assert got["business_tags__price_tag"] == ["fair", None]
    assert got["business_tags__snapshot_id"] == ["b3", None]
