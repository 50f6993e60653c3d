"""Why: what moved a probability, against asking row by row; and where each thing that the model read is from."""

import json
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from models.history_numbers import PAPER
from pipelines import summarize
from pipelines.core.errors import UserError
from pipelines.core.ledger import Entry, Ledger, ledger_file
from pipelines.core.provenance import calls_of, readings, row_of
from pipelines.core.providers import ledger_of
from pipelines.core.tables import SUMMARIES, TAGS
from serving.contributions import groups, moved
from serving.ranker import Ranker, open_ranker
from serving.why import why
from tests.llm.server import Server
from tests.models.networks import encoding_of
from tests.models.training_sets import MODELS, rows_of, table
from tests.serving.conftest import ServedWorld
from tests.tiny_encoder import save_tiny_encoder

LATER = datetime(2020, 3, 1, 12, 30, tzinfo=UTC)
# What the proposed model reads, in the words of a person.
OF_PROPOSED = """
all numbers of the user's history: user_history__review_count user_history__rating_mean user_history__rating_std
 user_history__rating_trend user_history__newest_review_at
how many reviews the user's history has, and so how much their stars count: user_history__review_count
stars of the user's reviews: user_history__rating_mean
spread of the stars of the user's reviews: user_history__rating_std
trend of the stars of the user's reviews: user_history__rating_trend
age of the user's newest review: user_history__newest_review_at
all numbers of the business's history: business_history__review_count business_history__rating_mean
 business_history__rating_std business_history__rating_trend business_history__newest_review_at
how many reviews the business's history has, and so how much their stars count: business_history__review_count
stars of the business's reviews: business_history__rating_mean
spread of the stars of the business's reviews: business_history__rating_std
trend of the stars of the business's reviews: business_history__rating_trend
age of the business's newest review: business_history__newest_review_at
summary of the user's reviews: user_summary__embedding
summary of the business's reviews: business_summary__embedding
the business's price tag: business_tags__price_tag
the business's types: business_tags__subtypes
captions of the business's photos: business_photos__caption_embedding
"""
OF_BASELINE = """
texts of the user's reviews: user_text__embedding
texts of the business's reviews: business_text__embedding
the business's photos: business_photos__image_embedding
"""
OF_PAPER = """
stars of the user's reviews: user_history__rating_mean
all numbers of the business's history: business_history__review_count business_history__rating_mean
how many reviews the business's history has: business_history__review_count
stars of the business's reviews: business_history__rating_mean
"""


@pytest.fixture(scope="module")
def rankers(served: ServedWorld) -> dict[str, Ranker]:
    return {name: open_ranker(served.model(name), served.repo, served.params(model=name)) for name in MODELS}


@pytest.fixture(scope="module")
def ranker(rankers: dict[str, Ranker]) -> Ranker:
    return rankers["proposed"]


@pytest.fixture
def asked(served: ServedWorld, ranker: Ranker, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """`why` of the proposed model over the world's tables, with a ledger of its own that nobody has made."""
    params = served.params(cache__dir=str(tmp_path / "cache"))

    def ask(user_id: str, business_id: str, at: datetime | None = LATER) -> dict[str, Any]:
        return why(ranker, user_id, business_id, at, served.data, params)

    return ask


def grouped(text: str) -> dict[str, list[str]]:
    """What -> columns, of a block of lines; those that begin with a space go on."""
    lines = text.strip().replace("\n ", " ").splitlines()
    return {what: names.split() for what, names in (line.split(": ") for line in lines)}


def by_view(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {view["view"]: view for view in found["views"]}


def features_of(view: dict[str, Any]) -> dict[str, Any]:
    return {feature["name"].split("__")[1]: feature["value"] for feature in view["features"]}


def made_unknown(name: str, value: np.ndarray) -> np.ndarray:
    """One row's column as Feast's null comes to the model, by its name."""
    if name.endswith("__review_count"):
        return np.array([0])
    if name.endswith("__newest_review_at"):
        return np.array(["NaT"], "datetime64[us]")
    if name.endswith(("__price_tag", "__subtypes")):
        return np.array([None], object)
    return value * np.nan


# --- what moved it ---------------------------------------------------------------------------------------------------


def test_groups_are_all_that_a_model_reads(rankers: dict[str, Ranker]) -> None:
    proposed, baseline = (rankers[name].model.encoding for name in ("proposed", "baseline"))
    assert {group.what: list(group.columns) for group in groups(proposed)} == grouped(OF_PROPOSED)
    histories = {what: names for what, names in grouped(OF_PROPOSED).items() if "_history__" in names[0]}
    assert {group.what: list(group.columns) for group in groups(baseline)} == histories | grouped(OF_BASELINE)
    for encoding in (proposed, baseline):
        read = {name for group in groups(encoding) for name in group.columns}
        assert read == set(encoding.columns) - {"event_timestamp"}


def test_a_model_of_three_numbers_is_told_three(rankers: dict[str, Ranker]) -> None:
    encoding = encoding_of("proposed", rows_of(table(60, 1, "proposed")).columns, "paper")
    assert encoding.numbers.names == PAPER
    found = {group.what: list(group.columns) for group in groups(encoding)}
    assert {what: names for what, names in found.items() if "_history__" in names[0]} == grouped(OF_PAPER)


@pytest.mark.parametrize("name", MODELS)
def test_a_change_is_that_row_asked_without(name: str, rankers: dict[str, Ranker], served: ServedWorld) -> None:
    """Each group by itself, in a row of its own that is made by hand."""
    ranker = rankers[name]
    for user_id, business_id in (("u00", "b0"), ("u07", "b3"), ("u07", "nowhere")):
        found = why(ranker, user_id, business_id, LATER, served.data, served.params())
        row, _ = ranker.columns(user_id, business_id, LATER)
        assert found["probability"] == pytest.approx(ranker.model.probabilities(row)[0], abs=1e-6)
        for group in found["moved"]:
            other = row | {column: made_unknown(column, row[column]) for column in group["features"]}
            assert group["without"] == pytest.approx(ranker.model.probabilities(other)[0], abs=1e-6), group["what"]
            assert group["change"] == pytest.approx(found["probability"] - group["without"], abs=1e-12)
        changes = [abs(group["change"]) for group in found["moved"]]
        assert changes == sorted(changes, reverse=True) and changes[0] > 1e-4
        assert len(changes) == len(groups(ranker.model.encoding))


def test_it_explains_the_probability_that_is_ranked_by(
    asked: Callable[..., dict[str, Any]], ranker: Ranker, served: ServedWorld
) -> None:
    ids = [f"b{number}" for number in range(10)]
    ranking = ranker.rank("u03", ids, LATER)
    for business_id, probability in zip(ids, ranking.probabilities, strict=True):
        assert asked("u03", business_id)["probability"] == pytest.approx(probability, abs=1e-6)
    found = asked("u03", "b2", None)
    again = ranker.rank("u03", ["b2"])
    assert datetime.fromisoformat(found["at"]) == again.at
    assert found["probability"] == pytest.approx(again.probabilities[0], abs=1e-6)


def test_without_an_instant_it_is_never_before_what_is_known(served: ServedWorld) -> None:
    """`serve.as_of` may lie before a row that was written since: then it is about that row's newest review."""
    params = served.params(serve__as_of="2020-01-01T00:00:00Z")
    ranker = open_ranker(served.model(), served.repo, params)
    found = why(ranker, "u03", "b2", None, served.data, params)
    newest = max(
        datetime.fromisoformat(features_of(by_view(found)[view])["newest_review_at"])
        for view in ("user_history", "business_history")
    )
    assert datetime.fromisoformat(found["at"]) == newest > ranker.now()


def test_what_the_model_ignores_moves_nothing(ranker: Ranker) -> None:
    """A number that was constant in train says 0 whatever comes; an embedding that nobody had is 0 wide."""
    model = ranker.model
    numbers = model.encoding.numbers
    scales = tuple(0.0 if "std" in name else scale for name, scale in zip(numbers.names, numbers.scales, strict=True))
    deaf = replace(model, encoding=replace(model.encoding, numbers=replace(numbers, scales=scales)))
    row, _ = ranker.columns("u00", "b0", LATER)
    _, found = moved(deaf, row)
    changes = {group["what"]: group["change"] for group in found if group["known"]}
    ignored = {what: change for what, change in changes.items() if what.startswith("spread")}
    assert len(ignored) == 2 and set(ignored.values()) == {0.0}
    assert sum(change != 0 for change in changes.values()) >= len(changes) - 3


def test_of_a_stranger_nothing_is_known_and_nothing_moves(asked: Callable[..., dict[str, Any]], ranker: Ranker) -> None:
    found = asked("nobody", "nowhere")
    assert found["name"] is None
    assert found["probability"] == pytest.approx(ranker.rank("nobody", ["nowhere"], LATER).probabilities[0], abs=1e-6)
    for view in found["views"]:
        assert view["instant"] is view["age_seconds"] is view["reading"] is None
        assert set(features_of(view).values()) <= {0, None}
    assert {(group["change"], group["without"], group["known"]) for group in found["moved"]} == {
        (0.0, found["probability"], False)
    }
    assert all(group["what"].endswith(" (unknown)") for group in found["moved"])


def test_known_users_at_a_place_that_nobody_knows(asked: Callable[..., dict[str, Any]]) -> None:
    """Nothing is nothing, to the last bit: a row at the end of a batch gets another one than the same row before it."""
    for number in range(10):
        found = asked(f"u{number:02}", "nowhere")
        of_place = [group for group in found["moved"] if group["features"][0].startswith("business_")]
        assert len(of_place) == 10
        assert {(group["change"], group["without"]) for group in of_place} == {(0.0, found["probability"])}


def test_a_cold_user_at_a_known_place(asked: Callable[..., dict[str, Any]]) -> None:
    found = asked("nobody", "b0")
    for group in found["moved"]:
        of_user = group["features"][0].startswith("user_")
        assert group["known"] != of_user and group["what"].endswith(" (unknown)") == of_user
        assert not of_user or group["change"] == 0.0
    assert any(group["change"] != 0 for group in found["moved"])
    views = by_view(found)
    assert [views[view]["reviews"] for view in ("user_history", "user_summary", "business_history")][:2] == [0, None]


# --- what was read, and where it is from -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_rows_are_those_of_the_tables(name: str, rankers: dict[str, Ranker], served: ServedWorld) -> None:
    """Each entity's newest row, as the feature tables have it; SQLite's instants in whole seconds."""
    found = why(rankers[name], "u05", "b4", LATER, served.data, served.params())
    json.dumps(found, allow_nan=False)
    assert (found["user_id"], found["business_id"], found["name"]) == ("u05", "b4", "Place 4")
    assert found["at"] == "2020-03-01T12:30:00Z"
    assert found["feature_service"] == f"{name}_point_in_time"
    assert found["model"] == rankers[name].digest
    assert {view["view"] for view in found["views"]} == set(rankers[name].views)
    for view in found["views"]:
        assert (view["entity"], view["entity_id"]) in (("user", "u05"), ("business", "b4"))
        [path] = served.data.glob(f"features/*/{view['view']}.parquet")
        rows = pq.read_table(path).to_pandas()
        row = rows[rows[f"{view['entity']}_id"] == view["entity_id"]].sort_values("event_timestamp").iloc[-1]
        instant = row["event_timestamp"].floor("s")
        assert datetime.fromisoformat(view["instant"]) == instant
        assert view["age_seconds"] == (LATER - instant).total_seconds() > 0
        features = features_of(view)
        assert list(features) == list(rankers[name].views[view["view"]])
        for feature, value in features.items():
            assert value == told_obviously(row[feature]), feature


def told_obviously(value: Any) -> Any:
    if isinstance(value, np.ndarray) and value.dtype == np.float32:
        length = float(sum(float(number) ** 2 for number in value)) ** 0.5
        return {"length": len(value), "norm": pytest.approx(length)}
    if hasattr(value, "isoformat"):
        return value.isoformat().replace("+00:00", "Z")
    return list(value) if isinstance(value, np.ndarray) else value


def test_reviews_are_counted_where_they_are_known(
    asked: Callable[..., dict[str, Any]], served: ServedWorld, rankers: dict[str, Ranker]
) -> None:
    reviews = pq.read_table(served.data / "tables" / "reviews.parquet").to_pandas()
    of_place = reviews[reviews["business_id"] == "b4"]
    views = by_view(asked("u05", "b4"))
    assert views["user_history"]["reviews"] == (reviews["user_id"] == "u05").sum()
    assert views["business_history"]["reviews"] == len(of_place)
    for view in ("business_summary", "business_tags"):
        then = datetime.fromisoformat(views[view]["instant"]) + timedelta(seconds=1)
        seen = of_place[(of_place["event_timestamp"] < then) & (of_place["text"] != "")]
        assert views[view]["reviews"] == views[view]["reading"]["reviews"] == len(seen)
    assert views["business_photos"]["reviews"] is None
    others = by_view(why(rankers["baseline"], "u05", "b4", LATER, served.data, served.params()))
    assert others["business_text"]["reviews"] is None


@pytest.fixture(scope="module")
def entries() -> Callable[[str], Entry]:
    """What a model answered to a call, made up."""
    return lambda key: Entry(
        key, "ok", "openai", "a-model", "summarize_business/1", {"asked": key}, {"said": key}, f"answer {key}",
        input_tokens=90, output_tokens=12, dollars=0.0007,
    )  # fmt: skip


def test_a_reading_is_the_table_s_and_its_call_the_ledger_s(
    served: ServedWorld, ranker: Ranker, tmp_path: Path, entries: Callable[[str], Entry]
) -> None:
    params = served.params(cache__dir=str(tmp_path / "cache"))
    ledger = ledger_of(params)
    read = 0
    for business_id in ("b1", "b6"):
        views = by_view(why(ranker, "u02", business_id, LATER, served.data, params))
        for view, file, column in (
            ("user_summary", "summarize/summaries", "summary"),
            ("business_summary", "summarize/summaries", "summary"),
            ("business_tags", "tag/tags", "price_tag"),
        ):
            table_ = pq.read_table(served.data / "features" / f"{file}.parquet")
            snapshot_id = features_of(views[view])["snapshot_id"]
            [row] = table_.filter(pc.equal(table_["snapshot_id"], snapshot_id)).to_pylist()
            reading = views[view]["reading"]
            assert reading["snapshot_id"] == snapshot_id
            assert row[column] == reading["text" if column == "summary" else "price_tag"]
            assert reading["subtypes"] == row.get("subtypes")
            assert [reading[name] for name in ("source", "model", "prompt")] == [
                row[name] for name in ("source", "model", "prompt")
            ]
            for key in row["calls"]:
                ledger.put(entries(key))
            again = by_view(why(ranker, "u02", business_id, LATER, served.data, params))[view]["reading"]
            for key, call in zip(row["calls"], again["calls"], strict=True):
                kept = ledger.entry(key)
                assert kept is not None
                assert call == {"key": key} | {name: getattr(kept, name) for name in list(call)[1:]}
                assert (call["provider"], call["input_tokens"], call["dollars"]) == ("openai", 90, 0.0007)
                read += 1
    assert read >= 4
    ledger.close()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as running:
        yield running


def test_a_summary_that_an_endpoint_wrote_is_led_back_to_it(
    broken: ServedWorld, server: Server, tmp_path: Path
) -> None:
    """The stage asks a server that repeats what it is shown; names of snapshots stay, so the online rows do."""
    params = broken.params(
        embed_reviews__encoder=str(save_tiny_encoder(tmp_path / "encoder")),
        cache__dir=str(tmp_path / "cache"), summarize__provider="openai", summarize__own_words=0,
        llm__base_url=server.url, llm__limits__requests_per_minute=None, llm__limits__tokens_per_minute=None,
        llm__price={"input": 100.0, "output": 400.0},
    )  # fmt: skip
    args = SimpleNamespace(
        reviews=broken.data / "tables" / "reviews.parquet",
        split=broken.data / "split.parquet",
        features=broken.data / "features" / "summarize",
    )
    summarize.main(args, params)  # type: ignore[arg-type]
    ranker = open_ranker(broken.model(), broken.repo, params)
    reading = by_view(why(ranker, "u02", "b1", LATER, broken.data, params))["business_summary"]["reading"]
    [row] = readings(broken.data, reading["snapshot_id"], "business_summary")
    reviews = pq.read_table(args.reviews).to_pandas().set_index("review_id")
    assert reading["text"] == " | ".join(reviews.loc[row["review_ids"], "text"])
    assert (reading["source"], reading["model"], reading["note"]) == ("openai", "real-name", None)
    [call] = reading["calls"]
    assert [call[name] for name in ("status", "provider", "prompt")] == ["ok", "openai", reading["prompt"]]
    assert call["input_tokens"] > 100 and call["dollars"] > 0 and call["time"].startswith("20")


WHO_WROTE = {
    "review": ({"calls": [], "model": None, "prompt": None}, "one short review is its own summary: nobody was asked"),
    "extractive": ({}, "made of the reviews' own words by an algorithm: no language model was asked"),
    "openai": ({}, None),
    "openai, in vain": ({"summary": None, "failure": "an empty summary"}, "no answer: an empty summary"),
}


@pytest.mark.parametrize("who", WHO_WROTE)
def test_who_wrote_it_or_that_nobody_did(who: str, broken: ServedWorld, tmp_path: Path) -> None:
    params = broken.params(cache__dir=str(tmp_path / "cache"))
    ranker = open_ranker(broken.model(), broken.repo, params)
    path = broken.data / "features" / "summarize" / "summaries.parquet"
    changes, note = WHO_WROTE[who]
    rows = [row | {"source": who.split(",")[0]} | changes for row in pq.read_table(path).to_pylist()]
    pq.write_table(pa.Table.from_pylist(rows, SUMMARIES), path)
    reading = by_view(why(ranker, "u02", "b1", LATER, broken.data, params))["business_summary"]["reading"]
    assert (reading["source"], reading["note"]) == (who.split(",")[0], note)
    assert bool(reading["calls"]) == (who != "review")
    assert (reading["text"] is None) == ("in vain" in who)


def test_what_this_machine_has_not_is_said(served: ServedWorld, ranker: Ranker, tmp_path: Path) -> None:
    """No tables, no ledger: the answer comes without them, and nothing is made."""
    cache, data = tmp_path / "cache", tmp_path / "data"
    params = served.params(cache__dir=str(cache))
    found = why(ranker, "u02", "b1", LATER, data, params)
    assert found["name"] is None and found["probability"] > 0
    note = by_view(found)["business_summary"]["reading"]["note"]
    assert note == f"{data}/features/summarize/summaries.parquet: no such table; run `dvc repro` to make it"
    reading = by_view(why(ranker, "u02", "b1", LATER, served.data, params))["business_summary"]["reading"]
    assert reading["text"]
    assert [call["status"] for call in reading["calls"]] == [
        f"no ledger on this machine at {ledger_file(params.cache.folder())}"
    ]
    assert reading["calls"][0]["provider"] is None
    assert not cache.exists() and not data.exists()
    ledger_of(params).close()
    reading = by_view(why(ranker, "u02", "b1", LATER, served.data, params))["business_summary"]["reading"]
    assert [call["status"] for call in reading["calls"]] == ["not in this machine's ledger"]


def test_tables_of_another_run_and_broken_ones_are_said(broken: ServedWorld, tmp_path: Path) -> None:
    params = broken.params(cache__dir=str(tmp_path / "cache"))
    ranker = open_ranker(broken.model(), broken.repo, params)
    summaries, tags = (broken.data / "features" / name for name in ("summarize/summaries.parquet", "tag/tags.parquet"))
    pq.write_table(SUMMARIES.empty_table(), summaries)
    tags.write_bytes(b"PAR1 no more")
    ledger_file(params.cache.folder()).parent.mkdir(parents=True)
    ledger_file(params.cache.folder()).write_bytes(b"not a database" * 100)
    views = by_view(why(ranker, "u02", "b1", LATER, broken.data, params))
    assert "holds no reading of this snapshot" in views["business_summary"]["reading"]["note"]
    assert "not a readable Parquet file" in views["business_tags"]["reading"]["note"]
    assert features_of(views["business_tags"])["price_tag"] is not None
    assert "the ledger cannot be used" in calls_of(["a"], params)[0]["status"]
    ledger_file(params.cache.folder()).unlink()
    with sqlite3.connect(ledger_file(params.cache.folder())) as other:
        other.execute("CREATE TABLE answers (key TEXT, status TEXT)")  # opens, but is none of ours
    assert "the ledger cannot be used" in calls_of(["a"], params)[0]["status"]


def test_an_instant_before_what_is_known_is_refused(asked: Callable[..., dict[str, Any]]) -> None:
    with pytest.raises(UserError, match="2020-01-01"):
        asked("u02", "b1", datetime(2020, 1, 1, 12, tzinfo=UTC))


# --- one row of a large table ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("group_size", [7, 50, 20_000])
def test_a_row_is_found_wherever_it_lies(group_size: int, tmp_path: Path) -> None:
    """Over row groups of every size, beside what a filter over the whole table finds."""
    count = 20_000
    ids = [f"s{number * 7919 % count:05}" for number in range(count)]
    columns: dict[str, Any] = {field.name: pa.nulls(count, field.type) for field in TAGS}
    columns |= {"snapshot_id": ids, "price_tag": [f"tag {one}" for one in ids], "calls": [[one] * 2 for one in ids]}
    rows = pa.table({name: columns[name] for name in TAGS.names}, pa.schema([f.with_nullable(True) for f in TAGS]))
    pq.write_table(rows, tmp_path / "tags.parquet", row_group_size=group_size)
    names = ["price_tag", "calls"]
    for one in (ids[0], ids[6], ids[7], ids[8_191], ids[8_192], ids[13_333], ids[-1]):
        [expected] = rows.filter(pc.equal(rows["snapshot_id"], one)).select(names).to_pylist()
        assert row_of(tmp_path / "tags.parquet", TAGS, names, "snapshot_id", one) == expected
    assert row_of(tmp_path / "tags.parquet", TAGS, names, "snapshot_id", "s") is None
    with pytest.raises(UserError, match=r"lacks the columns \['summary'\]"):
        row_of(tmp_path / "tags.parquet", SUMMARIES, ["summary"], "snapshot_id", ids[0])


def test_the_ledger_that_is_looked_at_is_the_one_that_is_kept(served: ServedWorld, tmp_path: Path) -> None:
    params = served.params(cache__dir=str(tmp_path))
    ledger = ledger_of(params)
    assert isinstance(ledger, Ledger) and ledger.path == ledger_file(params.cache.folder())
    ledger.close()
