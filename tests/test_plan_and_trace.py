"""What will be asked, before it is asked; and where what was said comes from, afterwards."""

import argparse
import json
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from pipelines import describe_photos, plan, summarize, tag, trace
from pipelines.core.errors import exit_code_of
from pipelines.core.params import Params, load_params
from tests.llm.server import Response, Server, completion, echo
from tests.params import ROOT, write_params
from tests.small_world import Files, honest_reviews, write_world
from tests.tiny_encoder import save_tiny_encoder

pytestmark = pytest.mark.slow

STAGES = ("summarize", "tag", "describe_photos")
TABLES = (("summarize", "summaries"), ("tag", "tags"))
PHOTOS = 5


def answered(body, number: int) -> Response:
    """Texts told back, tags where tags are asked for, a caption for a photo."""
    if isinstance(body["messages"][-1]["content"], list):
        return Response(body=completion("a plate", body=body))
    if "response_format" in body:
        return Response(body=completion('{"price": "cheap", "types": ["thai_restaurant"]}', body=body))
    return echo(body, number)


@dataclass(frozen=True)
class World:
    files: Files
    params_file: Path
    server: Server
    reviews: pd.DataFrame

    @property
    def params(self) -> Params:
        return load_params(self.params_file)

    def run_stages(self) -> None:
        for stage in (summarize, tag, describe_photos):
            stage.main(self.files.stage(stage.__name__.split(".")[-1]), self.params)

    def rows_of_ledger(self) -> int:
        path = self.params.cache.folder() / "llm" / "ledger.sqlite"
        if not path.exists():
            return 0
        with sqlite3.connect(path) as ledger:
            return ledger.execute("SELECT count(*) FROM answers").fetchone()[0]

    def files_of_cache(self) -> list[str]:
        return sorted(str(path) for path in self.params.cache.folder().rglob("*"))


def world_in(folder: Path, server: Server, encoder: Path, reviews: pd.DataFrame) -> World:
    files = write_world(folder, reviews, photos=PHOTOS)
    params_file = write_params(
        folder / "params.yaml",
        ingest__photos=str(files.pictures),
        embed_reviews__encoder=str(encoder),
        summarize__provider="openai",
        summarize__own_words=20,  # of the reviews, a few have that little to say
        tag__provider="openai",
        describe_photos__captions="openai",
        llm__base_url=server.url,
        llm__limits__requests_per_minute=None,
        llm__limits__tokens_per_minute=None,
        llm__price={"input": 100.0, "output": 400.0},
        llm__budget={"calls": 5000, "tokens": None, "dollars": None},
        cache__dir=str(folder / "cache"),
    )
    return World(files, params_file, server, reviews)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(answered) as running:
        yield running


def some_reviews() -> pd.DataFrame:
    """Few words in some, so that they are their own summary."""
    reviews = honest_reviews(40, users=8, businesses=5)
    reviews.loc[::2, "text"] = [f"Short visit number {number}." for number in range(20)]
    return reviews


@pytest.fixture
def fresh(tmp_path: Path, server: Server, encoder: Path) -> World:
    """Nothing was asked about it."""
    return world_in(tmp_path / "fresh", server, encoder, some_reviews())


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, server: Server, encoder: Path) -> World:
    """All stages have run."""
    made = world_in(tmp_path_factory.mktemp("world"), server, encoder, some_reviews())
    made.run_stages()
    return made


def readings(world: World, stage: str, table: str) -> list[dict]:
    return pq.read_table(world.files.data / "features" / stage / f"{table}.parquet").to_pylist()


def planned(world: World, capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, float]]:
    """What `pipelines.plan` prints: stage -> column -> number."""
    capsys.readouterr()
    plan.main(world.files.stage("plan"), world.params)
    head, *lines, total, budget = capsys.readouterr().out.rstrip("\n").splitlines()
    assert budget.startswith("budget of a stage's run (`llm.budget`): calls 5,000;")
    names = re.split(r" {2,}", head.strip())[1:]
    assert names == list(plan.COLUMNS)
    rows = {}
    for line in lines:
        stage, *cells = re.split(r" {2,}", line.strip())
        rows[stage] = dict(zip(names, (float(cell.replace(",", "")) for cell in cells), strict=True))
    assert list(rows) == [f"{stage} (openai)" for stage in STAGES]
    name, dollars = total.split()
    assert name == "all"
    assert float(dollars) == pytest.approx(sum(row["dollars"] for row in rows.values()), abs=0.02)
    return {stage.split()[0]: row for stage, row in rows.items()}


def test_a_plan_asks_nothing_and_is_what_the_stages_then_ask(fresh: World, capsys: pytest.CaptureFixture[str]) -> None:
    so_far = len(fresh.server.requests)
    before = planned(fresh, capsys)
    assert len(fresh.server.requests) == so_far
    assert fresh.rows_of_ledger() == 0
    for row in before.values():
        assert row["known"] == 0
        assert row["to ask"] == row["calls"] > 0
        assert row["tokens in"] > 100 and row["tokens out"] > 0
        assert row["dollars"] == pytest.approx((row["tokens in"] * 100 + row["tokens out"] * 400) / 1e6, abs=0.006)
    assert before["describe_photos"]["calls"] == PHOTOS
    assert before["summarize"]["own words"] > 0
    assert before["tag"]["own words"] == 0

    fresh.run_stages()
    asked = len(fresh.server.requests) - so_far
    assert asked == sum(row["calls"] for row in before.values()) == fresh.rows_of_ledger()
    for stage, column in TABLES:
        made = pq.read_table(fresh.files.data / "features" / stage / f"{column}.parquet", columns=["source"])
        sources = made["source"].to_pylist()
        assert len(sources) == before[stage]["snapshots"]
        assert sources.count("review") == before[stage]["own words"]

    cache = fresh.files_of_cache()
    after = planned(fresh, capsys)
    for stage, row in after.items():
        assert row["to ask"] == row["tokens in"] == row["tokens out"] == row["dollars"] == 0
        assert row["known"] == row["calls"] == before[stage]["calls"]
    assert len(fresh.server.requests) - so_far == asked == fresh.rows_of_ledger()
    assert fresh.files_of_cache() == cache


def test_one_changed_review_is_planned_for_alone(
    world: World, server: Server, encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    held = {stage: [row for row in readings(world, *stage) if row["source"] == "openai"] for stage in TABLES}
    changed = next(row["review_ids"][1] for row in held[TABLES[1]] if len(row["review_ids"]) == 2)
    other = world.reviews.copy()
    other.loc[other["review_id"] == changed, "text"] += " And now, years later, we think better of all of it." * 3
    again = world_in(tmp_path / "again", server, encoder, other)
    raw = yaml.safe_load(again.params_file.read_text())
    raw["cache"]["dir"] = str(world.params.cache.folder())
    again.params_file.write_text(yaml.safe_dump(raw))
    asked = len(server.requests)
    rows = planned(again, capsys)
    assert len(server.requests) == asked
    for stage in TABLES:
        holding = sum(changed in row["review_ids"] for row in held[stage])
        assert 0 < holding <= rows[stage[0]]["to ask"] <= holding + 2  # its own words may have become too many
        assert rows[stage[0]]["known"] == len(held[stage]) - holding
    assert rows["describe_photos"]["to ask"] == 0
    again.run_stages()
    assert len(server.requests) - asked == sum(row["to ask"] for row in rows.values())


def arguments(world: World, *words: str) -> argparse.Namespace:
    return trace.parser().parse_args([*words, "--data", str(world.files.data), "--params", str(world.params_file)])


def traced(world: World, capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, list[dict]]:
    capsys.readouterr()
    assert exit_code_of(lambda: trace.main(arguments(world, *words))) == 0
    return json.loads(capsys.readouterr().out)


def texts_in(world: World, review_ids: list[str]) -> list[str]:
    return [world.reviews.set_index("review_id").loc[name, "text"] for name in review_ids]


def test_a_snapshot_is_traced_to_its_reviews_and_its_call(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    asked = len(world.server.chats)
    summary = next(row for row in readings(world, "summarize", "summaries") if len(row["review_ids"]) == 4)
    [found] = traced(world, capsys, "--snapshot", summary["snapshot_id"])["snapshot"]
    assert [review["text"] for review in found["reviews"]] == texts_in(world, summary["review_ids"])
    assert found["summary"] == summary["summary"]
    assert "embedding" not in found
    [call] = found["calls"]
    assert call["status"] == "ok" and call["provider"] == "openai" and call["model"] == "real-name"
    assert call["prompt"] == f"summarize_{summary['entity']}/1"
    assert call["text"] == " | ".join(texts_in(world, summary["review_ids"]))
    assert call["input_tokens"] > 0 and call["dollars"] > 0 and call["time"]

    own = next(row for row in readings(world, "summarize", "summaries") if row["source"] == "review")
    found = traced(world, capsys, "--snapshot", own["snapshot_id"])["snapshot"]
    reading = next(row for row in found if "summary" in row)
    assert reading["calls"] == [] and reading["summary"] == reading["reviews"][0]["text"]
    assert len(world.server.chats) == asked


def test_a_snapshot_that_both_stages_read_has_both(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    tags = readings(world, "tag", "tags")[-1]
    found = traced(world, capsys, "--snapshot", tags["snapshot_id"])["snapshot"]
    assert [("summary" in row, "price_tag" in row) for row in found] == [(True, False), (False, True)]
    assert (found[1]["price_tag"], found[1]["subtypes"]) == ("cheap", ["thai_restaurant"])
    assert found[0]["reviews"] == found[1]["reviews"]


def test_a_review_is_traced_to_all_that_it_read(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a training set as Feast gives it: a column of snapshots a view, null where there was none to read."""
    by_entity = {row["entity"]: row for row in readings(world, "summarize", "summaries")}
    tags = readings(world, "tag", "tags")[0]
    rows = {
        "review_id": ["r001", "r002"],
        "user_summary__snapshot_id": [by_entity["user"]["snapshot_id"], None],
        "business_summary__snapshot_id": [by_entity["business"]["snapshot_id"], None],
        "business_tags__snapshot_id": [tags["snapshot_id"], None],
    }
    folder = world.files.data / "training_set"
    folder.mkdir()
    for split in ("train", "validation", "test"):
        part = pa.table(rows).slice(0, 2 if split == "validation" else 0)
        pq.write_table(part.cast(pa.schema([(name, pa.string()) for name in rows])), folder / f"{split}.parquet")
    found = traced(world, capsys, "--review", "r001")
    assert set(found) == {"user_summary", "business_summary", "business_tags"}
    for view, snapshot in (("user_summary", by_entity["user"]), ("business_tags", tags)):
        texts = [review["text"] for review in found[view][0]["reviews"]]
        assert texts == texts_in(world, snapshot["review_ids"])
    assert traced(world, capsys, "--review", "r002") == {}
    capsys.readouterr()
    assert exit_code_of(lambda: trace.main(arguments(world, "--review", "r9"))) == 2
    ended = capsys.readouterr()
    assert ended.out == ""
    assert ended.err == f"error: --review r9: no row of the training set in {folder}\n"


def test_the_command_prints_json_or_one_line(world: World) -> None:
    snapshot = readings(world, "tag", "tags")[0]["snapshot_id"]
    for wanted, code in ((snapshot, 0), ("f" * 32, 2)):
        ended = subprocess.run(
            [sys.executable, "-m", "pipelines.trace", "--snapshot", wanted, "--params", str(world.params_file)],
            cwd=world.files.data.parent, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        )  # fmt: skip
        assert ended.returncode == code, ended.stderr
        if code:
            assert ended.stdout == ""
            assert ended.stderr == (
                f"error: snapshot {wanted}: not in features/summarize/summaries.parquet or features/tag/tags.parquet; "
                "copy it from a feature row\n"
            )
        else:
            assert ended.stderr == ""
            assert json.loads(ended.stdout)["snapshot"][-1]["snapshot_id"] == wanted
