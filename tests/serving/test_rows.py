"""What the readers read is what Feast says, on every store; and they notice whatever is written."""

import sqlite3
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
import redis
from feast import FeatureStore
from feast.types import from_feast_to_pyarrow_type

from serving.feast_rows import FeastRows
from serving.ranker import open_store
from serving.redis_rows import RedisRows
from serving.redis_tracking import AGAIN_S
from serving.rows import RowReader, Unreachable, open_reader
from serving.sqlite_rows import SqliteRows
from serving.values import arrow
from tests.serving.conftest import ServedWorld
from tests.serving.redis_server import redis_server
from tests.serving.stores import move_to_redis, name_redis, write_row

IDS = {"user": [f"u{i:02d}" for i in range(24)], "business": [f"b{i}" for i in range(10)]}
READERS = {"sqlite": SqliteRows, "redis": RedisRows}


@pytest.fixture(scope="module", params=["sqlite", "redis"])
def store(served: ServedWorld, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator:
    folder = tmp_path_factory.mktemp(request.param)
    world = served.copied(folder / "world")
    if request.param == "sqlite":
        yield open_store(world.repo)
        return
    with redis_server(folder / "redis") as address:
        move_to_redis(world, address)
        yield open_store(world.repo)


@pytest.fixture
def reader(store: FeatureStore) -> RowReader:
    made = open_reader(store)
    assert type(made) is READERS[store.config.online_store.type]
    return made


def online_views(store: FeatureStore) -> list:
    return [view for view in store.list_feature_views() if view.online]


def test_every_value_is_what_feast_says(store: FeatureStore, reader: RowReader) -> None:
    views = online_views(store)
    assert len(views) == 8
    for view in views:
        (join_key,) = view.join_keys
        entity = join_key.removesuffix("_id")
        ids = [*IDS[entity], "nobody", IDS[entity][0]]
        features = [field.name for field in view.features]
        rows = reader.read({view.name: features}, ids)[view.name]
        asked = [f"{view.name}:{feature}" for feature in features]
        said = store.get_online_features(asked, {join_key: ids}).to_arrow()
        assert rows[-2] is None and any(rows)
        for i, field in enumerate(view.features):
            type_ = from_feast_to_pyarrow_type(field.dtype)
            ours = arrow(type_, [row and row.values[i] for row in rows])
            theirs = said[field.name].combine_chunks()
            if pa.types.is_timestamp(type_):
                theirs = theirs.cast(type_)
            assert ours.to_pylist() == theirs.to_pylist(), (view.name, field.name)


def test_rows_and_their_instants_are_those_that_feast_reads(store: FeatureStore, reader: RowReader) -> None:
    feasts = FeastRows(store, store.provider.online_store)
    for view in online_views(store):
        entity = view.join_keys[0].removesuffix("_id")
        wanted = {view.name: [field.name for field in view.features]}
        for ours, theirs in zip(
            reader.read(wanted, [*IDS[entity], "nobody"])[view.name],
            feasts.read(wanted, [*IDS[entity], "nobody"])[view.name],
            strict=True,
        ):
            if ours is None:  # Feast makes an empty row of 1970 where Redis knows the entity from another view
                assert theirs is None or not any(theirs.values)
            else:
                assert theirs is not None
                assert (ours.values, ours.instant) == (theirs.values, theirs.instant)
                assert ours.instant.tzinfo is UTC


def test_several_views_at_once_and_a_part_of_their_features(reader: RowReader) -> None:
    wanted = {"business_tags": ["subtypes"], "business_history": ["rating_mean", "review_count"]}
    together = reader.read(wanted, IDS["business"])
    for view, features in wanted.items():
        assert together[view] == reader.read({view: features}, IDS["business"])[view]
        assert all(row is None or len(row.values) == len(features) for row in together[view])


def test_all_entities_are_listed_once(store: FeatureStore, reader: RowReader) -> None:
    for view in online_views(store):
        entity = view.join_keys[0].removesuffix("_id")
        first = view.features[0].name
        having = {
            one
            for one, row in zip(IDS[entity], reader.read({view.name: [first]}, IDS[entity])[view.name], strict=True)
            if row
        }
        listed = [one for block in reader.ids(view.name) for one in block]
        assert len(listed) == len(set(listed)) and set(listed) == having
        rows, newest = reader.newest(view.name)
        instants = [row.instant for row in reader.read({view.name: [first]}, sorted(having))[view.name] if row]
        assert (rows, newest) == (len(having), max(instants))


def test_more_ids_than_a_statement_takes(reader: RowReader) -> None:
    ids = [f"x{i}" for i in range(12_000)] + ["b3"]
    rows = reader.read({"business_history": ["review_count"]}, ids)["business_history"]
    assert [i for i, row in enumerate(rows) if row] == [12_000]


def test_the_version_tells_of_every_write(store: FeatureStore, reader: RowReader) -> None:
    """Also of one that leaves the row's instant as it was, and of a connection other than ours."""
    first = reader.version()
    assert first is not None and reader.version() == first
    reader.read({"user_history": ["review_count"]}, IDS["user"])
    assert reader.version() == first
    instant = datetime(2020, 5, 1, tzinfo=UTC)
    for count in (1, 2):
        write_row(open_store(store.repo_path), "user_history", "somebody", {"review_count": count}, instant)
        second = reader.version()
        assert second != first
        first = second


def test_a_store_that_is_gone_and_back(store: FeatureStore, tmp_path: Path, served: ServedWorld) -> None:
    if store.config.online_store.type == "sqlite":
        world = served.copied(tmp_path / "world")
        reader = open_reader(open_store(world.repo))
        wanted = {"user_history": ["review_count"]}
        before = reader.read(wanted, ["u00"])
        version = reader.version()
        aside = world.online.rename(world.online.with_suffix(".aside"))
        for call in (lambda: reader.read(wanted, ["u00"]), reader.version, lambda: list(reader.ids("user_history"))):
            with pytest.raises(Unreachable, match=r"online\.db: no such file; run `feast apply`"):
                call()
        aside.rename(world.online)
        assert reader.read(wanted, ["u00"]) == before
        assert reader.version() != version, "another file, for all one knows"
        return
    with redis_server(tmp_path / "first") as address:
        world = served.copied(tmp_path / "world")
        move_to_redis(world, address)
        reader = open_reader(open_store(world.repo), prompt=True)
        assert reader.version() is not None
    assert reader.version() is None
    begun = time.monotonic()
    for call in (lambda: reader.read({"user_history": ["x"]}, ["u00"]), lambda: list(reader.ids("user_history"))):
        with pytest.raises(Unreachable, match=r"online store redis: .*; see that the server"):
            call()
    assert time.monotonic() - begun < 1.0, "refused is refused, without asking again and again"


def test_a_view_that_was_never_applied(served: ServedWorld, tmp_path: Path) -> None:
    world = served.copied(tmp_path / "world")
    with sqlite3.connect(world.online) as connection:
        connection.execute("DROP TABLE mmrec_user_history")
    reader = open_reader(open_store(world.repo))
    with pytest.raises(Unreachable, match="no such table: mmrec_user_history; run `feast apply` and"):
        reader.read({"user_history": ["review_count"]}, ["u00"])
    assert reader.read({"business_history": ["review_count"]}, ["b0"])["business_history"][0]


def test_a_reader_is_not_locked_out_while_a_batch_is_written(served: ServedWorld, tmp_path: Path) -> None:
    world = served.copied(tmp_path / "world")
    reader = open_reader(open_store(world.repo))
    wanted = {"user_history": ["review_count"]}
    before = reader.read(wanted, IDS["user"])
    writer = sqlite3.connect(world.online, isolation_level=None)
    writer.execute("PRAGMA cache_size = 1")  # what does not fit is written at once, under an exclusive lock
    writer.execute("BEGIN IMMEDIATE")
    blob = bytes(4096)
    for i in range(500):
        row = (f"k{i}".encode(), "review_count", blob, 0)
        writer.execute(
            "INSERT INTO mmrec_user_history (entity_key, feature_name, value, event_ts) VALUES (?,?,?,?)", row
        )
    assert reader.read(wanted, IDS["user"]) == before
    writer.execute("ROLLBACK")
    writer.close()


@pytest.mark.parametrize("address", ["${MMREC_REDIS_OF_NOBODY}", "localhost", "password=secret", "localhost:port"])
def test_a_redis_that_is_not_named_is_one_line(broken: ServedWorld, address: str) -> None:
    name_redis(broken, address)
    with pytest.raises(Unreachable) as raised:
        reader = open_reader(open_store(broken.repo))
        reader.read({"user_history": ["review_count"]}, ["u00"])
    assert "online store redis: " in str(raised.value) and "secret" not in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1


def test_an_id_may_be_a_users_and_a_businesss(reader: RowReader) -> None:
    assert reader.read({"user_history": ["review_count"]}, ["u00", "b0"])["user_history"][1] is None
    businesses = reader.read({"business_history": ["review_count"]}, ["u00", "b0"])["business_history"]
    assert businesses[0] is None and businesses[1] is not None


def test_rows_that_are_taken_away_are_gone_and_no_others(store: FeatureStore, reader: RowReader) -> None:
    instant = datetime(2020, 5, 1, tzinfo=UTC)
    wanted = {"user_history": ["review_count"], "user_text": ["embedding"]}
    kept = reader.read(wanted, IDS["user"])
    for view, values in {"user_history": {"review_count": 1}, "user_text": {"embedding": [0.5] * 4}}.items():
        write_row(store, view, "somebody", values, instant)
    reader.remove("user_history", ["somebody", "nobody"])
    rows = reader.read(wanted, ["somebody"])
    assert rows["user_history"] == [None] and rows["user_text"][0] is not None
    reader.remove("user_text", ["somebody"])
    assert "somebody" not in {one for view in wanted for block in reader.ids(view) for one in block}
    assert reader.read(wanted, IDS["user"]) == kept


def test_a_version_that_the_client_does_not_read_past_us(served: ServedWorld, tmp_path: Path) -> None:
    """Nor takes for the old one after its connection was cut."""
    world = served.copied(tmp_path / "world")
    with redis_server(tmp_path / "redis") as address:
        move_to_redis(world, f"{address},health_check_interval=1")
        store = open_store(world.repo)
        reader = open_reader(store)
        client = redis.Redis.from_url(f"redis://{address}")
        instant = datetime(2020, 5, 1, tzinfo=UTC)
        seen = [reader.version()]
        for count in range(3):
            time.sleep(1.1)  # when the client would ask whether the server lives
            write_row(open_store(world.repo), "user_history", "somebody", {"review_count": count}, instant)
            seen.append(reader.version())
        client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        time.sleep(AGAIN_S)
        seen += [one for one in (reader.version() for _ in range(2)) if one is not None]
        write_row(open_store(world.repo), "user_history", "somebody", {"review_count": 9}, instant)
        time.sleep(AGAIN_S)
        seen.append(reader.version())
        assert None not in seen and len(set(seen[:4])) == 4 and seen[-1] not in seen[:-1]
