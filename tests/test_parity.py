"""Parity holds on a small world, online in SQLite and in a real Redis; and each way to break it is caught and named."""

import os
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis
import views
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.infra.online_stores.helpers import _mmh3
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value

from models import saved
from pipelines.core.errors import CheckFailed, exit_code_of
from pipelines.core.tables import INSTANT, VIEWS_OF_STAGE
from pipelines.parity import SHOWN, TOLERANCE, Findings, Scores, compare_rows, differs, drawn
from serving.rows import RawRow
from tests.online_world import OnlineWorld, make_online_world, switch_to_redis
from tests.params import ROOT, params_with
from tests.serving.redis_server import redis_server

VECTORS = pa.list_(pa.float32())
NAMES = pa.list_(pa.string())
OTHER_NAN = struct.unpack("<d", struct.pack("<Q", 0x7FF8_0000_0000_0001))[0]
INSTANTS = [datetime(2020, 1, 1, tzinfo=UTC), datetime(2020, 1, 1, 0, 0, 0, 1, tzinfo=UTC)]

# type, one, other, whether they differ
CASES = [
    (pa.int64(), 3, 3, False),
    (pa.int64(), 3, 4, True),
    (pa.int64(), 0, None, True),
    (pa.int64(), None, None, False),
    (pa.float64(), 0.1, 0.1, False),
    (pa.float64(), 0.1, 0.1 + 2e-17, True),
    (pa.float64(), 0.0, -0.0, True),
    (pa.float64(), float("nan"), float("nan"), False),
    (pa.float64(), float("nan"), OTHER_NAN, True),
    (pa.float64(), float("nan"), None, True),
    (pa.string(), "fair", "fair", False),
    (pa.string(), "fair", "cheap", True),
    (pa.string(), "", None, True),
    (INSTANT, INSTANTS[0], INSTANTS[0], False),
    (INSTANT, INSTANTS[0], INSTANTS[1], True),
    (INSTANT, INSTANTS[0], None, True),
    (VECTORS, [1.0, 2.0], [1.0, 2.0], False),
    (VECTORS, [1.0, 2.0], [1.0, float(np.nextafter(np.float32(2), np.float32(3)))], True),
    (VECTORS, [1.0, 2.0], [1.0], True),
    (VECTORS, [0.0], [-0.0], True),
    (VECTORS, [], None, True),
    (VECTORS, [], [], False),
    (VECTORS, [None], [0.0], True),
    (NAMES, ["a", "b"], ["a", "b"], False),
    (NAMES, ["a", "b"], ["b", "a"], True),
    (NAMES, ["a", None], ["a", ""], True),
    (NAMES, [], None, True),
]


@pytest.mark.parametrize("type_", list(dict.fromkeys(case[0] for case in CASES)), ids=str)
def test_values_are_compared_bit_for_bit(type_: pa.DataType) -> None:
    """All cases of a type in one array, and both ways round."""
    cases = [case for case in CASES if case[0] == type_]
    one, other = (pa.array([case[which] for case in cases], type_) for which in (1, 2))
    assert differs(one, other).tolist() == differs(other, one).tolist() == [case[3] for case in cases]


def test_a_slice_is_compared_as_what_it_holds() -> None:
    values = pa.array([[1.0], None, [2.0, 3.0], [], [4.0]], VECTORS)
    assert differs(values[1:4], pa.array([None, [2.0, 3.0], []], VECTORS)).tolist() == [False, False, False]
    assert differs(values[1:4], pa.array([None, [2.0, 3.5], []], VECTORS)).tolist() == [False, True, False]


def test_any_flipped_bit_of_any_number_is_found() -> None:
    random = np.random.default_rng(2)
    lengths = random.integers(0, 6, 50)
    lists = [random.normal(size=n).astype(np.float32) for n in lengths]
    same = pa.array(lists, VECTORS)
    for _ in range(200):
        row = int(random.choice(np.flatnonzero(lengths)))
        other = [values.copy() for values in lists]
        other[row].view(np.uint32)[random.integers(lengths[row])] ^= np.uint32(1) << np.uint32(random.integers(32))
        assert np.flatnonzero(differs(same, pa.array(other, VECTORS))).tolist() == [row]


def test_the_same_entities_are_drawn_whatever_else_is_there() -> None:
    ids = [f"u{number}" for number in range(1000)]
    some = drawn(ids, 100, seed=7)
    assert len(some) == 100 and some == sorted(some) and set(some) <= set(ids)
    assert drawn(reversed(ids), 100, seed=7) == some
    assert drawn(ids, 100, seed=8) != some
    assert set(drawn(ids[:500], 100, seed=7)) >= set(some) & set(ids[:500])
    assert drawn(ids, 1000, seed=7) == sorted(ids)


def test_a_difference_is_shown_in_few_words() -> None:
    found = Findings("user_text")
    vectors = pa.array([[0.0] * 384] * 9, VECTORS)
    found.compare("embedding", [f"u{n}" for n in range(9)], vectors, pa.array([[0.0] * 383 + [0.5]] * 9, VECTORS))
    assert found.mismatch == 9
    assert found.examples[0] == "user_text__embedding of u0: [383] 0.0 online and [383] 0.5 offline"
    assert len(found.examples) == 3
    found = Findings("business_tags")
    found.compare("price_tag", ["b0"], pa.array(["x" * 999]), pa.array([None], pa.string()))
    assert len(found.examples[0]) < 2 * SHOWN + 60


def test_a_score_that_is_not_a_number_is_apart() -> None:
    scores = Scores.of("test", ["r0", "r1", "r2"], np.array([0.1, np.nan, 0.2]), np.array([0.1, 0.3, 0.2]))
    assert (scores.apart, scores.largest_difference) == (1, None)
    assert "r1" in scores.example
    near = Scores.of("test", ["r0", "r1"], np.array([0.5, 0.25]), np.array([0.5, 0.25 + TOLERANCE / 2]))
    assert near.apart == 0 and near.largest_difference == pytest.approx(TOLERANCE / 2)


def test_a_row_that_the_reader_lists_and_does_not_find_is_missing() -> None:
    """And the other way round: what is not compared is counted."""
    values = {("user_text", "embedding"): pa.array([[1.0], None], VECTORS)}
    online = [None, RawRow(0, (b"",), lambda stamp: INSTANTS[0])]
    found = Findings("user_text")
    compare_rows(views.user_text, ["u0", "u1"], {"u0"}, online, values, found)
    assert (found.missing, found.extra, found.entities) == ({"u0"}, {"u1"}, 0)


# --- the stage -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with redis_server(tmp_path_factory.mktemp("redis")) as address:
        yield address


# Features that are null in the newest row of an entity, beside b1's empty list of types.
NULLS = [
    ("user_history", "u03", "newest_review_at"),
    ("user_history", "u03", "rating_std"),
    ("user_text", "u04", "embedding"),
    ("business_tags", "b0", "price_tag"),
    ("business_tags", "b0", "subtypes"),
    ("business_photos", "b2", "image_embedding"),
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> OnlineWorld:
    """Online in SQLite, with nulls of every type."""
    world = make_online_world(tmp_path_factory.mktemp("online") / "world")
    for view, entity_id, feature in NULLS:
        with_newest(world, view, entity_id, {feature: None})
    with_newest(world, "business_tags", "b1", {"subtypes": []})
    world.materialize()
    return world


def with_newest(world: OnlineWorld, view: str, entity_id: str, values: dict[str, Any]) -> None:
    """Other values in the newest row that the view's table has of the entity."""
    table = pq.read_table(world.table(view))
    newest = world.newest_row(view, entity_id)
    rows = [row | values if row == newest else row for row in table.to_pylist()]
    world.rewrite(view, pa.Table.from_pylist(rows, table.schema))


@pytest.fixture
def sqlite_world(made: OnlineWorld, tmp_path: Path) -> OnlineWorld:
    return made.copied(tmp_path / "copy")


@pytest.fixture
def redis_world(made: OnlineWorld, tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> OnlineWorld:
    client_of(server).flushall()
    monkeypatch.setenv("MMREC_REDIS", server)
    world = made.copied(tmp_path / "copy")
    switch_to_redis(world.repo)
    world.materialize()
    return world


@pytest.fixture(params=["sqlite", "redis"])
def world(request: pytest.FixtureRequest) -> OnlineWorld:
    """Online, and a test may break it."""
    return request.getfixturevalue(f"{request.param}_world")


def client_of(address: str) -> redis.Redis:
    host, port = address.split(":")
    return redis.Redis(host=host, port=int(port))


def refused(world: OnlineWorld, capsys: pytest.CaptureFixture[str]) -> tuple[dict[str, Any], str]:
    """The report of a stage that failed with exit code 2, and the one line that it said."""
    world.paths("parity").report.unlink(missing_ok=True)
    capsys.readouterr()
    assert exit_code_of(lambda: print(world.parity())) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: parity: "), line
    return world.parity_report(), line


def test_parity_holds(world: OnlineWorld) -> None:
    """And everything was compared: as many values as the tables' newest rows have."""
    report = world.parity()
    assert [report[name] for name in ("mismatch", "missing", "extra", "scores_apart")] == [0, 0, 0, 0]
    assert report["examples"] == []
    features = {view: len(fields) for views in VIEWS_OF_STAGE.values() for view, fields in views.items()}
    assert report["views"].keys() == features.keys()
    for view, counts in report["views"].items():
        entities = len(world.offline_ids(view))
        assert counts == {
            "entities": entities, "compared": entities * (features[view] + 1), "mismatch": 0, "missing": 0, "extra": 0
        }  # fmt: skip
    for split in ("validation", "test"):
        rows = pq.read_metadata(world.paths("parity").training_set / f"{split}.parquet").num_rows
        assert report["splits"][split]["rows"] == rows > 20
        assert 0 < report["splits"][split]["largest_difference"] <= TOLERANCE
    assert report["entities"] == sum(len(world.offline_ids(view)) for view in features)


# what is written online by Feast -> what the line says of it
VALUES: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "a count": ("user_history", "u05", {"review_count": 999}, "user_history__review_count of u05: 999 online and"),
    "a mean": ("business_history", "b2", {"rating_mean": None}, "business_history__rating_mean of b2: null online and"),
    "an instant": (
        "user_history",
        "u05",
        {"newest_review_at": datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC)},
        "user_history__newest_review_at of u05: 2020-01-02T03:04:05+00:00 online and",
    ),
    "a tag": ("business_tags", "b2", {"price_tag": "free"}, "business_tags__price_tag of b2: 'free' online and"),
    "no types where there are none": (
        "business_tags",
        "b0",
        {"subtypes": []},
        "business_tags__subtypes of b0: [] online and null offline",
    ),
    "an instant where there is none": (
        "user_history",
        "u03",
        {"newest_review_at": datetime(1970, 1, 1, tzinfo=UTC)},
        "user_history__newest_review_at of u03: 1970-01-01T00:00:00+00:00 online and null offline",
    ),
    "no types": ("business_tags", "b2", {"subtypes": None}, "business_tags__subtypes of b2: null online and"),
    "a vector's width": ("user_text", "u05", {"embedding": [0.5]}, "user_text__embedding of u05: [0.5] online and ["),
    "what the trained model does not read": (
        "business_photos",
        "b3",
        {"image_embedding": [1.0] * 2048},
        "business_photos__image_embedding of b3: [0] 1.0 online and [0] ",
    ),
}


@pytest.mark.parametrize("what", VALUES)
def test_a_changed_value_is_a_mismatch(
    sqlite_world: OnlineWorld, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    view, entity_id, values, expected = VALUES[what]
    sqlite_world.write_online(view, entity_id, values)
    report, line = refused(sqlite_world, capsys)
    assert (report["mismatch"], report["missing"], report["extra"]) == (1, 0, 0)
    assert report["views"][view]["mismatch"] == 1
    assert report["examples"][0].startswith(expected)
    assert f"the first: {report['examples'][0]}" in line and "`make materialize`" in line


def test_each_of_several_changed_values_counts(world: OnlineWorld, capsys: pytest.CaptureFixture[str]) -> None:
    for user in ("u01", "u02", "u03", "u04", "u05"):
        world.write_online("user_history", user, {"review_count": 999, "rating_mean": 0.5})
    world.write_online("business_text", "b2", {"embedding": None})
    report, line = refused(world, capsys)
    assert (report["mismatch"], report["missing"], report["extra"]) == (11, 0, 0)
    assert {view: counts["mismatch"] for view, counts in report["views"].items() if counts["mismatch"]} == {
        "user_history": 10,
        "business_text": 1,
    }
    assert "11 of" in line
    world.materialize()
    assert world.parity()["mismatch"] == 0


def key_of(join_key: str, entity_id: str) -> bytes:
    key = EntityKey(join_keys=[join_key], entity_values=[Value(string_val=entity_id)])
    return serialize_entity_key(key, entity_key_serialization_version=3)


def stored_bit_flipped(value: bytes) -> bytes:
    """The last number's least bit, as the protobuf has it."""
    return value[:-4] + bytes([value[-4] ^ 1]) + value[-3:]


def test_one_bit_in_sqlites_own_table(sqlite_world: OnlineWorld, capsys: pytest.CaptureFixture[str]) -> None:
    where = ("embedding", key_of("user_id", "u05"))
    with sqlite3.connect(sqlite_world.database) as connection:
        query = "FROM mmrec_user_summary WHERE feature_name = ? AND entity_key = ?"
        ((value,),) = connection.execute(f"SELECT value {query}", where).fetchall()
        connection.execute(
            f"UPDATE mmrec_user_summary SET value = ? {query.removeprefix('FROM mmrec_user_summary ')}",
            (stored_bit_flipped(value), *where),
        )
    report, line = refused(sqlite_world, capsys)
    assert (report["mismatch"], report["missing"], report["extra"]) == (1, 0, 0)
    assert "user_summary__embedding of u05: [383] " in line


def test_one_bit_in_rediss_own_hash(redis_world: OnlineWorld, server: str, capsys: pytest.CaptureFixture[str]) -> None:
    key, name = key_of("user_id", "u05") + b"mmrec", _mmh3("user_summary:embedding")
    client = client_of(server)
    client.hset(key, name, stored_bit_flipped(client.hget(key, name)))
    report, line = refused(redis_world, capsys)
    assert (report["mismatch"], report["missing"], report["extra"]) == (1, 0, 0)
    assert "user_summary__embedding of u05: [383] " in line


def test_a_row_that_is_gone_is_missing(world: OnlineWorld, capsys: pytest.CaptureFixture[str]) -> None:
    remove_row(world, "user_text", "user_id", "u05", "embedding")
    report, line = refused(world, capsys)
    assert (report["mismatch"], report["missing"], report["extra"]) == (0, 1, 0)
    assert "user_text of u05: a row offline and none online" in line
    assert report["views"]["user_text"] == {"entities": 23, "compared": 46, "mismatch": 0, "missing": 1, "extra": 0}
    world.materialize()
    assert world.parity()["missing"] == 0


def remove_row(world: OnlineWorld, view: str, join_key: str, entity_id: str, *features: str) -> None:
    store = world.store()
    if store.config.online_store.type == "sqlite":
        with sqlite3.connect(world.database) as connection:
            connection.execute(f"DELETE FROM mmrec_{view} WHERE entity_key = ?", (key_of(join_key, entity_id),))
        return
    client = client_of(os.environ["MMREC_REDIS"])
    fields = [f"_ts:{view}".encode(), *(_mmh3(f"{view}:{feature}") for feature in features)]
    assert client.hdel(key_of(join_key, entity_id) + b"mmrec", *fields) == len(fields)


def test_a_row_that_lacks_a_value_is_a_mismatch_even_of_a_null(
    sqlite_world: OnlineWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    with sqlite3.connect(sqlite_world.database) as connection:
        connection.execute(
            "DELETE FROM mmrec_business_photos WHERE feature_name = 'image_embedding' AND entity_key = ?",
            (key_of("business_id", "b2"),),
        )
    report, line = refused(sqlite_world, capsys)
    assert (report["mismatch"], report["missing"], report["extra"]) == (1, 0, 0)
    assert "business_photos__image_embedding of b2: not in its row online" in line


def test_an_unknown_entitys_row_is_extra_until_the_next_materialize(
    world: OnlineWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    world.write_online("user_text", "nobody", {"embedding": [1.0]})
    report, line = refused(world, capsys)
    assert (report["mismatch"], report["missing"], report["extra"]) == (0, 0, 1)
    assert "user_text of nobody: a row online and none offline" in line
    world.materialize()
    assert world.parity()["extra"] == 0


def test_a_newer_row_offline_is_a_mismatch(world: OnlineWorld, capsys: pytest.CaptureFixture[str]) -> None:
    table = pq.read_table(world.table("user_history"))
    newer = world.newest_row("user_history", "u05")
    newer |= {"event_timestamp": newer["event_timestamp"] + timedelta(days=1), "review_count": 77}
    world.rewrite("user_history", pa.concat_tables([table, pa.Table.from_pylist([newer], table.schema)]))
    report, line = refused(world, capsys)
    assert (report["mismatch"], report["missing"], report["extra"]) == (2, 0, 0)  # its instant, too
    assert "user_history__review_count of u05: " in line and " and 77 offline" in line


def test_a_row_at_another_instant_is_a_mismatch(world: OnlineWorld, capsys: pytest.CaptureFixture[str]) -> None:
    """By it `serve.as_of: newest`, ages and readiness go."""
    instant = world.newest_row("user_history", "u05")["event_timestamp"] + timedelta(days=3000)
    world.write_online("user_history", "u05", {"event_timestamp": instant})
    report, line = refused(world, capsys)
    assert (report["mismatch"], report["missing"], report["extra"]) == (1, 0, 0)
    assert "user_history__event_timestamp of u05: 20" in line


def test_of_many_a_sample_is_compared_and_all_are_looked_for(
    made: OnlineWorld, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    params = made.params.model_copy(update={"parity": made.params.parity.model_copy(update={"entities": 4})})
    world = OnlineWorld(made.copied(tmp_path / "copy").root, params)
    report = world.parity()
    assert {counts["entities"] for counts in report["views"].values()} <= {3, 4}
    assert report["views"]["user_history"]["compared"] == 4 * 6
    for user in sorted(world.offline_ids("user_text"))[:12]:
        remove_row(world, "user_text", "user_id", user)
    report, _ = refused(world, capsys)
    assert report["missing"] == 12


def without_database(world: OnlineWorld) -> None:
    for file in world.database.parent.glob("online.db*"):
        file.unlink()


def without_a_view(world: OnlineWorld) -> None:
    with sqlite3.connect(world.database) as connection:
        connection.execute("DELETE FROM mmrec_user_text")


@pytest.mark.parametrize(
    ("empty", "said"), [(without_database, "business_history, "), (without_a_view, "of user_text: ")]
)
def test_what_has_nothing_online_is_materialized_first(
    sqlite_world: OnlineWorld,
    capsys: pytest.CaptureFixture[str],
    empty: Callable[[OnlineWorld], None],
    said: str,
) -> None:
    """A copy of the workspace has the report that DVC brought, and no online store."""
    empty(sqlite_world)
    assert sqlite_world.parity()["missing"] == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "materialized first" in line]
    assert line.startswith("parity: nothing is online of ") and said in line


def weight_moved(path: Path) -> None:
    """The output's bias, by a thousandth; the file is otherwise the same."""
    tensors, about = saved.load(path, "model")
    name = "dlrm.over_arch.logit.bias"
    saved.save(path, {**tensors, name: tensors[name] + 1e-3}, about)


def test_a_score_that_moved_is_caught(sqlite_world: OnlineWorld, capsys: pytest.CaptureFixture[str]) -> None:
    weight_moved(sqlite_world.paths("parity").model)
    report, line = refused(sqlite_world, capsys)
    test = report["splits"]["test"]
    assert test["apart"] > 0.9 * test["rows"]
    assert 1e-5 < test["largest_difference"] < 1e-3
    assert report["splits"]["validation"]["apart"] == 0  # both are asked of the model that stands
    assert (report["mismatch"], report["scores_apart"]) == (0, test["apart"])
    assert "the first: test review r" in line and "`dvc repro --force evaluate`" in line


def test_predictions_of_other_reviews_are_refused(
    sqlite_world: OnlineWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    path = sqlite_world.paths("parity").predictions
    pq.write_table(pq.read_table(path)[1:], path)
    assert exit_code_of(lambda: print(sqlite_world.parity())) == 2
    assert "not of the reviews in the test set; run `dvc repro evaluate`" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{"protocol": "leave_one_out"}, {"model": "baseline"}, {"networks": 3}], ids=str)
def test_parity_holds_of_other_variants(tmp_path: Path, changes: dict[str, Any]) -> None:
    world = make_online_world(tmp_path / "world", **changes)
    world.materialize()
    report = world.parity()
    assert report["compared"] > 300
    assert max(split["largest_difference"] for split in report["splits"].values()) <= TOLERANCE


@pytest.mark.slow
def test_the_command_ends_with_exit_code_2(sqlite_world: OnlineWorld) -> None:
    """And in one line, beside what it wrote."""
    params_with(sqlite_world.root)
    sqlite_world.write_online("user_history", "u05", {"review_count": 999})
    flags = ["repo", "registry", "training-set", "model", "predictions", "report", "details"]
    paths = vars(sqlite_world.paths("parity"))
    arguments = [part for flag in flags for part in (f"--{flag}", str(paths[flag.replace("-", "_")]))]
    ended = subprocess.run(
        [sys.executable, "-m", "pipelines.parity", *arguments],
        cwd=sqlite_world.root, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert ended.returncode == 2
    assert "user_history__review_count of u05: 999 online and" in ended.stderr.splitlines()[-1]
    assert "Warning" not in ended.stderr and "Traceback" not in ended.stderr
    assert sqlite_world.parity_report()["mismatch"] == 1


def test_the_report_is_written_before_the_stage_fails(sqlite_world: OnlineWorld) -> None:
    sqlite_world.write_online("user_history", "u05", {"review_count": 999})
    with pytest.raises(CheckFailed):
        sqlite_world.parity()
    assert sqlite_world.parity_report()["examples"]
