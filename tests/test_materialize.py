"""What the stage and Feast's own commands bring online, in SQLite and in a real Redis."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import redis

from pipelines.core.errors import CheckFailed, UserError, exit_code_of
from tests.online_world import STAGE_OF_VIEW, OnlineWorld, make_online_world, switch_to_redis
from tests.serving.redis_server import redis_server

STORES = ("sqlite", "redis")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> OnlineWorld:
    return make_online_world(tmp_path_factory.mktemp("online") / "world")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with redis_server(tmp_path_factory.mktemp("redis")) as address:
        yield address


@pytest.fixture
def emptied(server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The server's address, with nothing in it, where feature_store.yaml takes it from."""
    host, port = server.split(":")
    with redis.Redis(host=host, port=int(port)) as client:
        client.flushall()
    monkeypatch.setenv("MMREC_REDIS", server)
    return server


@pytest.fixture(params=STORES)
def kind(request: pytest.FixtureRequest) -> str:
    if request.param == "redis":
        request.getfixturevalue("emptied")
    return str(request.param)


@pytest.fixture
def world(made: OnlineWorld, kind: str, tmp_path: Path) -> OnlineWorld:
    """A copy that a test may break, nothing online yet."""
    copy = made.copied(tmp_path / "copy")
    if kind == "redis":
        switch_to_redis(copy.repo)
    return copy


def changed(table: pa.Table, rows: pa.Array, **values: float) -> pa.Table:
    """`table` with other values in `rows`, a mask."""
    for name, value in values.items():
        at = table.schema.get_field_index(name)
        other = pc.if_else(rows, pa.scalar(value, table.schema.field(name).type), table[name])
        table = table.set_column(at, table.schema.field(name), other)
    return table


def test_every_view_that_is_served_is_brought_online_in_full(
    world: OnlineWorld, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    report = world.materialize()
    assert report.keys() == {"store", "views"}  # a connection string may hold a password
    assert report["store"] == kind
    assert report["views"].keys() == STAGE_OF_VIEW.keys()
    for view, told in report["views"].items():
        table = pq.read_table(world.table(view))
        ids = set(table.column(0).to_pylist())
        newest = pc.max(table["event_timestamp"]).as_py().isoformat()
        assert told == {"rows": len(ids), "newest": newest, "removed": 0}, view
        assert world.ids(view) == ids
    said = capsys.readouterr().out
    assert said.count("\n") == 1 and said.startswith("materialize: ") and f"8 views in {kind}" in said


def test_an_sqlite_file_is_left_in_wal_mode(made: OnlineWorld, tmp_path: Path) -> None:
    """In the old one a reader that is slow and a writer lock each other out."""
    world = made.copied(tmp_path / "copy")
    world.materialize()
    with sqlite3.connect(world.database) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_registry_without_its_online_store(made: OnlineWorld, tmp_path: Path) -> None:
    world = made.copied(tmp_path / "copy")
    world.materialize()
    for file in world.database.parent.glob("online.db*"):
        file.unlink()
    assert world.materialize()["views"]["user_history"]["rows"] == 24


def test_entities_of_another_run_go(world: OnlineWorld) -> None:
    """Whose table no longer has them, in the views whose tables do not; and they stay in the others."""
    world.materialize()
    world.write_online("user_history", "ghost", world.newest_row("user_history", "u00"))
    world.write_online("user_text", "ghost", world.newest_row("user_text", "u00"))
    world.write_online("user_summary", "ghost", world.newest_row("user_summary", "u00"))
    table = pq.read_table(world.table("business_history"))
    world.rewrite("business_history", table.filter(pc.not_equal(table["business_id"], "b3")))
    report = world.materialize()
    removed = {view: told["removed"] for view, told in report["views"].items() if told["removed"]}
    assert removed == {"user_history": 1, "user_text": 1, "user_summary": 1, "business_history": 1}
    assert "ghost" not in world.ids("user_history") | world.ids("user_text") | world.ids("user_summary")
    assert "b3" not in world.ids("business_history")
    assert "b3" in world.ids("business_text") & world.ids("business_tags")
    assert world.parity()["entities"] == sum(told["rows"] for told in report["views"].values())


def test_a_value_that_changed_within_its_instant_is_written(world: OnlineWorld) -> None:
    world.materialize()
    table = pq.read_table(world.table("user_history"))
    mine = pc.equal(table["user_id"], "u07")
    world.rewrite("user_history", changed(table, mine, rating_mean=1.25))
    world.materialize()
    assert online_mean(world, "u07") == 1.25


def test_which_redis_owes_to_skip_dedup(made: OnlineWorld, emptied: str, tmp_path: Path) -> None:
    """Feast's default for Redis keeps the old value of an instant; parity would find it."""
    world = made.copied(tmp_path / "copy")
    switch_to_redis(world.repo, skip_dedup=False)
    world.materialize()
    mean = online_mean(world, "u07")
    table = pq.read_table(world.table("user_history"))
    world.rewrite("user_history", changed(table, pc.equal(table["user_id"], "u07"), rating_mean=1.25))
    world.materialize()
    assert online_mean(world, "u07") == mean != 1.25
    assert exit_code_of(lambda: print(world.parity())) == 2
    assert world.parity_report()["mismatch"] == 1


def test_rows_that_do_not_stay_are_refused(made: OnlineWorld, emptied: str, tmp_path: Path) -> None:
    world = made.copied(tmp_path / "copy")
    switch_to_redis(world.repo, key_ttl_seconds=-1)
    with pytest.raises(CheckFailed, match="business_history: its table has 10 entities and the online store 0; see"):
        world.materialize()
    assert not world.paths("materialize").report.exists()


def online_mean(world: OnlineWorld, user_id: str) -> float:
    store = world.store()
    got = store.get_online_features(["user_history:rating_mean"], [{"user_id": user_id}]).to_dict()
    return got["rating_mean"][0]


def test_what_lies_in_the_future_is_not_served(world: OnlineWorld) -> None:
    table = pq.read_table(world.table("user_history"))
    row = {name: table[name][:1] for name in table.column_names}
    row["event_timestamp"] = pa.chunked_array([pa.array([datetime(2999, 1, 1)], pa.timestamp("us", tz="UTC"))])
    late = pa.table(row | {"review_count": [99]}, schema=table.schema)
    unborn = pa.table(row | {"user_id": ["u99"]}, schema=table.schema)
    world.rewrite("user_history", pa.concat_tables([table, late, unborn]))
    told = world.materialize()["views"]["user_history"]
    assert told["rows"] == 24
    assert told["newest"] < "2021"
    assert world.parity()["missing"] == 0


def test_no_model_no_features_online(made: OnlineWorld, tmp_path: Path) -> None:
    world = made.copied(tmp_path / "copy")
    world.paths("materialize").model.unlink()
    with pytest.raises(UserError, match="no model to serve the features to; run `dvc repro train`"):
        world.materialize()
    assert not world.paths("materialize").report.exists()


def test_a_redis_that_is_not_there_is_one_line(
    made: OnlineWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    world = made.copied(tmp_path / "copy")
    switch_to_redis(world.repo)
    monkeypatch.setenv("MMREC_REDIS", "127.0.0.1:1,password=of-nobodys-business")
    assert exit_code_of(lambda: print(world.materialize())) == 2
    said = capsys.readouterr()
    (line,) = [line for line in said.err.splitlines() if line.startswith("error: ")]
    assert "online store redis" in line and "feature_store.yaml" in line
    assert "of-nobodys-business" not in said.err + said.out
    assert "Traceback" not in said.err


def test_an_online_store_that_cannot_be_written_is_one_line(made: OnlineWorld, tmp_path: Path) -> None:
    world = made.copied(tmp_path / "copy")
    world.materialize()
    with sqlite3.connect(world.database) as connection:
        connection.execute("DROP TABLE mmrec_user_text")
        connection.execute("CREATE VIEW mmrec_user_text AS SELECT 1 AS entity_key")
    with pytest.raises(UserError, match=r"^online store .*; [^\n]*$"):
        world.materialize()


def feast(world: OnlineWorld, where: str, *arguments: str) -> None:
    """Feast's own command line, from the root or from inside."""
    flags = ["-c", "feature_repo"] if where == "root" else []
    ended = subprocess.run(
        [str(Path(sys.executable).with_name("feast")), *flags, *arguments],
        cwd=world.root if where == "root" else world.repo,
        env={**os.environ, "PYTHONPATH": str(world.repo)},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.slow
@pytest.mark.parametrize("where", ["root", "inside"])
def test_feasts_own_commands_bring_a_newer_row_online(world: OnlineWorld, where: str) -> None:
    feast(world, where, "materialize", "2000-01-01T00:00:00Z", "2021-01-01T00:00:00Z")
    before = online_mean(world, "u07")
    table = pq.read_table(world.table("user_history"))
    newer = world.newest_row("user_history", "u07")
    newer |= {"event_timestamp": datetime(2021, 2, 3, 4, 5, 6, 789, tzinfo=UTC), "rating_mean": 2.5}
    world.rewrite("user_history", pa.concat_tables([table, pa.Table.from_pylist([newer], table.schema)]))
    feast(world, where, "materialize-incremental", "2021-02-01T00:00:00+00:00")
    assert online_mean(world, "u07") == before
    feast(world, where, "materialize-incremental", "2021-03-01T00:00:00+00:00")
    assert online_mean(world, "u07") == 2.5 != before
    (row,) = world.reader().read({"user_history": ["rating_mean"]}, ["u07"])["user_history"]
    assert row is not None
    assert world.parity()["mismatch"] == 0
