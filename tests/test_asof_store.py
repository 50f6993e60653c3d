"""Our offline store: specified by small tables, and equal to an obvious loop and to Feast's own store."""

import itertools
import os
from collections.abc import Iterator
from contextlib import chdir
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from asof_store import AsofRetrievalJob
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RequestSource, ValueType
from feast.data_format import ParquetFormat
from feast.infra.offline_stores.file_source import SavedDatasetFileStorage
from feast.infra.offline_stores.offline_store import RetrievalJob
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Array, Float32, Float64, Int64, String
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

SECONDS = itertools.count(1_600_000_000)

START = datetime(2020, 1, 1, tzinfo=UTC)
FOREVER = timedelta(0)
FOUR_MINUTES = timedelta(minutes=4)

user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING)


def at(minute: float | None) -> datetime | None:
    return None if minute is None else START + timedelta(minutes=minute)


class Repo:
    """A feature repo in a folder of its own, opened with our store and with Feast's duckdb store."""

    def __init__(self, folder: Path):
        self.folder = folder
        (folder / "tables").mkdir(parents=True)
        for kind in ("asof_store.AsofOfflineStore", "duckdb"):
            (folder / f"{kind}.yaml").write_text(
                f"project: spec\nprovider: local\nregistry: registry.db\nonline_store: {{type: sqlite, path: o.db}}\n"
                f"offline_store: {{type: {kind}}}\nentity_key_serialization_version: 3\n"
            )
        self.ours = self._open("asof_store.AsofOfflineStore")

    def _open(self, kind: str) -> FeatureStore:
        return FeatureStore(repo_path=str(self.folder), fs_yaml_file=self.folder / f"{kind}.yaml")

    def feasts(self) -> FeatureStore:
        return self._open("duckdb")

    def view(self, name: str, ttl: timedelta = FOREVER, created: bool = False, **source: object) -> FeatureView:
        """A view of `x` by user, over tables/<name>.parquet."""
        return FeatureView(
            name=name,
            entities=[user],
            schema=[Field(name="user_id", dtype=String), Field(name="x", dtype=Int64)],
            source=FileSource(
                name=name,
                path=f"tables/{name}.parquet",
                file_format=ParquetFormat(),
                timestamp_field="event_timestamp",
                created_timestamp_column="created" if created else "",
                **source,
            ),
            ttl=ttl,
        )

    def write(self, name: str, rows: list[tuple[str | None, float | None, float | None, int | None]]) -> None:
        """Feature rows (user, minute, minute of creation, x)."""
        instant = pa.timestamp("us", tz="UTC")
        columns = list(zip(*rows, strict=True)) if rows else [[], [], [], []]
        table = {
            "user_id": pa.array(columns[0], pa.string()),
            "event_timestamp": pa.array([at(minute) for minute in columns[1]], instant),
            "created": pa.array([at(minute) for minute in columns[2]], instant),
            "x": pa.array(columns[3], pa.int64()),
        }
        path = self.folder / f"tables/{name}.parquet"
        pq.write_table(pa.table(table), path)
        # DuckDB keeps a file's blocks while size and time stay: two versions within one tick would be mixed.
        written = next(SECONDS)
        os.utime(path, (written, written))


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    made = Repo(tmp_path_factory.mktemp("repo") / "feature_repo")
    made.ours.apply(
        [
            user,
            made.view("plain"),
            made.view("short", ttl=FOUR_MINUTES),
            made.view("twice", created=True),
            made.view("short_twice", ttl=FOUR_MINUTES, created=True),
        ]
    )
    return made


VIEWS = ["plain", "short", "twice", "short_twice"]


def entities(rows: list[tuple[str | None, float | None]]) -> pd.DataFrame:
    frame = pd.DataFrame({"user_id": [user for user, _ in rows], "row": range(len(rows))}, dtype=object)
    return frame.assign(event_timestamp=pd.Series([at(minute) for _, minute in rows], dtype="datetime64[us, UTC]"))


def ask(store: FeatureStore, frame: pd.DataFrame, *features: str, full_feature_names: bool = False) -> RetrievalJob:
    return store.get_historical_features(frame, list(features), full_feature_names=full_feature_names)


# --- specification ---------------------------------------------------------------------------------------------------

# feature rows: user minute created x; entity rows: user minute -> x
SPECIFICATION = {
    "the newest row at or before the instant": (
        "plain",
        """
        a  1  -  10
        a  5  -  50
        b  3  -  30
        """,
        """
        a  0.999  none
        a  1      10
        a  4.999  10
        a  5      50
        a  99     50
        b  3      30
        c  3      none
        """,
    ),
    "all entity rows come back, twins too, in their order": (
        "plain",
        """
        a  1  -  10
        """,
        """
        a  2  10
        b  2  none
        a  0  none
        a  2  10
        a  2  10
        """,
    ),
    "a null is a value: no older one shines through": (
        "plain",
        """
        a  1  -  10
        a  2  -  none
        """,
        """
        a  3  none
        """,
    ),
    "a row is dead once it is older than the ttl": (
        "short",
        """
        a  1  -  10
        a  2  -  20
        """,
        """
        a  2      20
        a  6      20
        a  6.001  none
        """,
    ),
    "of one instant, the row created last": (
        "twice",
        """
        a  1  5  11
        a  1  7  12
        a  1  6  13
        a  0  9  14
        """,
        """
        a  1  12
        a  0  14
        """,
    ),
}


def cells(text: str) -> list[list[str]]:
    return [line.split() for line in text.strip().splitlines()]


def number(cell: str) -> float | None:
    return None if cell in ("-", "none") else float(cell)


@pytest.mark.parametrize("title", SPECIFICATION)
def test_specification(repo: Repo, title: str) -> None:
    view, feature_rows, expected = SPECIFICATION[title]
    rows = [(user, number(minute), number(created), number(x)) for user, minute, created, x in cells(feature_rows)]
    repo.write(view, rows)
    frame = entities([(user, float(minute)) for user, minute, _ in cells(expected)])
    got = ask(repo.ours, frame, f"{view}:x").to_arrow()
    assert got["x"].to_pylist() == [number(x) for *_, x in cells(expected)]
    assert got["row"].to_pylist() == list(range(len(frame)))
    assert got["user_id"].to_pylist() == frame["user_id"].tolist()


# --- equal to an obvious loop, and to Feast's store ------------------------------------------------------------------

USERS = st.sampled_from(["a", "b", None])
MINUTES = st.one_of(st.none(), st.integers(0, 9))
FEATURE_ROWS = st.lists(
    st.tuples(USERS, MINUTES, st.integers(0, 9), st.one_of(st.none(), st.integers(-3, 3))),
    max_size=14,
    unique_by=lambda row: row[:3],
)
ENTITY_ROWS = st.lists(st.tuples(USERS, MINUTES), min_size=1, max_size=10)


def obvious(view: str, rows: list[tuple], frame_rows: list[tuple]) -> list[int | None]:
    """For each entity row look at every feature row."""
    found = []
    for user, minute in frame_rows:
        known = [row for row in rows if None not in (*row[:2], user, minute)]
        seen = [row for row in known if row[0] == user and row[1] <= minute]
        newest = max(seen, key=lambda row: row[1:3], default=None)
        alive = newest and ("short" not in view or newest[1] + 4 >= minute)
        found.append(newest[3] if newest and alive else None)
    return found


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(view=st.sampled_from(VIEWS), rows=FEATURE_ROWS, frame_rows=ENTITY_ROWS)
def test_equals_an_obvious_loop_and_feasts_store(repo: Repo, view: str, rows: list, frame_rows: list) -> None:
    if "twice" not in view:  # which of several rows of one instant counts is then left open
        rows = list({row[:2]: row for row in rows}.values())
    repo.write(view, rows)
    frame = entities(frame_rows)
    got = ask(repo.ours, frame, f"{view}:x", full_feature_names=True).to_arrow()
    assert got[f"{view}__x"].to_pylist() == obvious(view, rows, frame_rows)
    with chdir(repo.folder):  # Feast's store reads relative paths from the working directory
        theirs = ask(repo.feasts(), frame, f"{view}:x", full_feature_names=True).to_df()
    assert got.column_names == theirs.columns.tolist()
    ours = got.to_pandas().sort_values("row", ignore_index=True)
    pd.testing.assert_frame_equal(ours, theirs.sort_values("row", ignore_index=True), check_dtype=False)


# --- what a caller may pass ------------------------------------------------------------------------------------------


def test_several_views_side_by_side(repo: Repo) -> None:
    repo.write("plain", [("a", 1, None, 10)])
    repo.write("short", [("a", 2, None, 20), ("a", 3, None, 30)])
    job = ask(repo.ours, entities([("a", 2), ("a", 9)]), "short:x", "plain:x", full_feature_names=True)
    got = job.to_df()
    assert got.columns.tolist() == ["user_id", "row", "event_timestamp", "short__x", "plain__x"]
    assert got["short__x"].fillna(-1).tolist() == [20, -1] and got["plain__x"].tolist() == [10, 10]
    assert job.full_feature_names and job.on_demand_feature_views == []


@pytest.mark.parametrize(
    "instant, expected",
    [
        (pd.to_datetime(["2020-01-01T00:01:00.000000999Z"]), 10),
        (pd.to_datetime(["2020-01-01T00:01:00.000001000Z"]), 20),
        (pd.to_datetime(["2020-01-01T00:01Z"]).as_unit("s"), 10),
        (pd.to_datetime(["2020-01-01T00:01"]), 10),
        (pd.to_datetime(["2020-01-01T05:31"]).tz_localize("Asia/Kolkata"), 10),
        (pd.to_datetime(["2020-01-01T05:29:59"]).tz_localize("Asia/Kolkata"), None),
        (pd.Index(["2020-01-01T05:46:00+05:45"]), 10),
        (pd.Index([START + timedelta(minutes=1)], dtype=object), 10),
    ],
    ids=["nanoseconds", "next microsecond", "seconds", "naive is UTC", "zone", "zone, before", "string", "object"],
)
def test_instants_of_any_resolution_and_zone(repo: Repo, instant: pd.Index, expected: int | None) -> None:
    repo.write("plain", [("a", 1, None, 10)])
    table = pq.read_table(repo.folder / "tables/plain.parquet")
    later = pa.array([START + timedelta(minutes=1, microseconds=1)], table["event_timestamp"].type)
    second = table.set_column(1, "event_timestamp", later).set_column(3, "x", pa.array([20]))
    pq.write_table(pa.concat_tables([table, second]), repo.folder / "tables/plain.parquet")
    frame = pd.DataFrame({"user_id": ["a"], "event_timestamp": instant})
    assert ask(repo.ours, frame, "plain:x").to_arrow()["x"].to_pylist() == [expected]


def test_an_instant_column_of_another_name(repo: Repo) -> None:
    repo.write("plain", [("a", 1, None, 10)])
    frame = entities([("a", 2)]).rename(columns={"event_timestamp": "seen_at"})
    assert ask(repo.ours, frame, "plain:x").to_df().columns.tolist() == ["user_id", "row", "seen_at", "x"]


def test_null_keys_and_null_instants_find_nothing(repo: Repo) -> None:
    repo.write("plain", [(None, 1, None, 10), ("a", None, None, 20), ("a", 1, None, 30)])
    frame = entities([(None, 2), ("a", None), ("a", 2)])
    assert ask(repo.ours, frame, "plain:x").to_arrow()["x"].to_pylist() == [None, None, 30]


def test_no_entity_rows_and_no_feature_rows(repo: Repo) -> None:
    repo.write("plain", [])
    assert ask(repo.ours, entities([("a", 2)]), "plain:x").to_arrow()["x"].to_pylist() == [None]
    empty = ask(repo.ours, entities([]), "plain:x").to_arrow()
    assert empty.num_rows == 0 and empty.schema.field("x").type == pa.int64()


def test_two_retrievals_do_not_see_each_other(repo: Repo) -> None:
    repo.write("plain", [("a", 1, None, 10)])
    jobs = [ask(repo.ours, entities([(key, 2)]), "plain:x") for key in ("a", "b")]
    assert [job.to_arrow()["x"].to_pylist() for job in jobs] == [[10], [None]]


# --- what a view may say ---------------------------------------------------------------------------------------------


def test_mapped_columns_other_keys_aliases_and_arrays(tmp_path: Path) -> None:
    """The entity frame has `friend`, the table `uid`, `x_raw` and `seen`; the view is asked for by another name."""
    repo = Repo(tmp_path / "feature_repo")
    source = FileSource(
        name="mapped",
        path="tables/mapped.parquet",
        file_format=ParquetFormat(),
        timestamp_field="event_timestamp",
        field_mapping={"uid": "user_id", "x_raw": "x", "seen": "event_timestamp"},
    )
    schema = [Field(name="user_id", dtype=String), Field(name="x", dtype=Array(Float32))]
    view = FeatureView(name="mapped", entities=[user], schema=schema, source=source, ttl=FOREVER)
    repo.ours.apply([user, view])
    instants = pa.array([START, at(1)], pa.timestamp("us", tz="UTC"))
    vectors = pa.array([[1.5, 2.5], None], pa.list_(pa.float32()))
    pq.write_table(
        pa.table({"uid": ["a", "b"], "x_raw": vectors, "seen": instants}), repo.folder / "tables/mapped.parquet"
    )
    frame = entities([("z", 2), ("z", 2), ("z", 2)]).assign(friend=["b", "a", "c"])
    alias = repo.ours.get_feature_view("mapped").with_name("of_friend").with_join_key_map({"user_id": "friend"})
    job = repo.ours._get_provider().offline_store.get_historical_features(
        repo.ours.config, [alias], ["of_friend:x"], frame, repo.ours.registry, "spec", full_feature_names=True
    )
    got = job.to_arrow()
    assert got.column_names == ["user_id", "row", "event_timestamp", "friend", "of_friend__x"]
    assert got["of_friend__x"].to_pylist() == [None, [1.5, 2.5], None]
    assert got.schema.field("of_friend__x").type == pa.list_(pa.float32())


def test_two_keys(tmp_path: Path) -> None:
    repo = Repo(tmp_path / "feature_repo")
    shop = Entity(name="shop", join_keys=["shop_id"], value_type=ValueType.STRING)
    source = FileSource(path="tables/t.parquet", file_format=ParquetFormat(), timestamp_field="event_timestamp")
    schema = [Field(name="user_id", dtype=String), Field(name="shop_id", dtype=String), Field(name="x", dtype=Int64)]
    repo.ours.apply([user, shop, FeatureView(name="t", entities=[user, shop], schema=schema, source=source)])
    instants = pa.array([START] * 3, pa.timestamp("us", tz="UTC"))
    rows = {"user_id": ["a", "a", "b"], "shop_id": ["s", "t", "s"], "x": [1, 2, 3], "event_timestamp": instants}
    pq.write_table(pa.table(rows), repo.folder / "tables/t.parquet")
    frame = entities([("a", 1), ("b", 1), ("b", 1)]).assign(shop_id=["t", "s", "t"])
    assert ask(repo.ours, frame, "t:x").to_arrow()["x"].to_pylist() == [2, 3, None]


# --- what goes to Feast's own ----------------------------------------------------------------------------------------


def test_a_cut_by_created_timestamp_is_feasts(repo: Repo) -> None:
    repo.write("twice", [("a", 1, 1, 10), ("a", 2, 9, 20)])
    frame = entities([("a", 3), ("a", 9)])
    job = repo.ours.get_historical_features(frame, ["twice:x"], filter_by_created_timestamp=True)
    assert not isinstance(job, AsofRetrievalJob)
    assert job.to_df().sort_values("row")["x"].tolist() == [10, 20]


def test_on_demand_views_are_feasts(tmp_path: Path) -> None:
    repo = Repo(tmp_path / "feature_repo")
    plain = repo.view("plain")

    @on_demand_feature_view(
        sources=[plain, RequestSource(name="asked", schema=[Field(name="factor", dtype=Float64)])],
        schema=[Field(name="scaled", dtype=Float64)],
        mode="pandas",
    )
    def scaled(inputs: pd.DataFrame) -> pd.DataFrame:
        return pd.DataFrame({"scaled": inputs["x"] * inputs["factor"]})

    repo.ours.apply([user, plain, scaled])
    repo.write("plain", [("a", 1, None, 10)])
    frame = entities([("a", 2)]).assign(factor=[0.5])
    assert ask(repo.ours, frame, "plain:x", "scaled:scaled").to_df()["scaled"].tolist() == [5.0]


# --- the rest of the store, from any working directory ---------------------------------------------------------------


@pytest.fixture(params=["inside", "outside"])
def somewhere(request: pytest.FixtureRequest, repo: Repo, tmp_path: Path) -> Iterator[None]:
    with chdir(repo.folder if request.param == "inside" else tmp_path):
        yield


@pytest.mark.usefixtures("somewhere")
def test_a_saved_dataset_reads_back(repo: Repo) -> None:
    repo.write("plain", [("a", 1, None, 10)])
    job = ask(repo.ours, entities([("a", 2), ("b", 3)]), "plain:x", full_feature_names=True)
    storage = SavedDatasetFileStorage("tables/saved.parquet")
    saved = repo.ours.create_saved_dataset(job, "saved", storage, allow_overwrite=True)
    assert saved.to_df().sort_values("user_id")["plain__x"].fillna(-1).tolist() == [10, -1]
    assert job.metadata.features == ["plain:x"] and job.metadata.min_event_timestamp == at(2)


@pytest.mark.usefixtures("somewhere")
def test_the_newest_rows_go_online(repo: Repo) -> None:
    repo.write("plain", [("a", 1, None, 10), ("a", 2, None, 20), ("b", 1, None, None), ("c", 99, None, 30)])
    repo.ours.materialize(START, at(9), feature_views=["plain"])
    rows = [{"user_id": key} for key in "abc"]
    assert repo.ours.get_online_features(["plain:x"], rows).to_dict()["x"] == [20, None, None]
