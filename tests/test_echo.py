"""Everything that a model is shown, told back: the stages and Feast, with an endpoint that answers with its question.

A summary then holds each word of each review that was read for it, a tag and a caption are sums over what was shown; so
a feature that saw a review it must not see says so, or moves when that review does. The server is real, and so are the
provider `openai`, the ledger, the stages and Feast.
"""

import argparse
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipelines import describe_photos, embed_reviews, history, register, split, summarize, tag, training_set
from pipelines.core.params import Params
from pipelines.core.tables import PHOTOS, REVIEWS, write_table
from pipelines.core.vocabulary import PRICE_TAGS, restaurant_types
from pipelines.obvious import Rule, may_see
from tests.llm.server import Response, Server, completion, echo
from tests.params import ROOT, params_with

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
SPLITS = ("train", "validation", "test")
KEYS = ["review_id", "user_id", "business_id", "event_timestamp", "label"]


def told_back(body: Mapping[str, Any], number: int) -> Response:
    """Summaries repeat their texts; tags and captions are made of a sum over all that was shown."""
    shown = body["messages"][-1]["content"]
    drawn = int(hashlib.sha256(json.dumps(shown).encode()).hexdigest(), 16)
    if isinstance(shown, list):
        return Response(body=completion(f"a picture of {drawn:x}", body=body))
    if "response_format" not in body:
        return echo(body, number)
    types = restaurant_types()
    tags = {"price": PRICE_TAGS[drawn % 4], "types": [types[drawn % 179], types[(drawn >> 20) % 179]]}
    return Response(body=completion(json.dumps(tags), body=body))


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(told_back) as running:
        yield running


@dataclass(frozen=True)
class Source:
    """Reviews, their split, and photos with their files."""

    reviews: pd.DataFrame
    split: pd.DataFrame
    photos: dict[str, tuple[str, int]]  # photo id -> its review, the seed of its picture


def source_of(params: Params) -> Source:
    """90 reviews of 12 users and 6 businesses at 40 instants, a word of its own in each, photos of every third."""
    random = np.random.default_rng(4)
    count = 90
    stars = random.integers(1, 6, count).astype(np.float32)
    at = pd.to_datetime(1_500_000_000 + 86_400 * random.integers(0, 40, count), unit="s", utc=True).as_unit("us")
    reviews = pd.DataFrame(
        {
            "review_id": [f"r{number:03}" for number in range(count)],
            "user_id": [f"u{number}" for number in random.integers(0, 12, count)],
            "business_id": [f"b{number}" for number in random.integers(0, 6, count)],
            "rating": stars,
            "text": [f"word{number:03}" if number % 9 else "" for number in range(count)],
            "event_timestamp": at,
            "label": (stars >= 4).astype("int8"),
        }
    )
    members = split.split_reviews(reviews, params.protocol, params.split)
    photos = {f"p{number:03}": (f"r{number:03}", number) for number in range(0, count, 3)}
    return Source(reviews, members, photos)


def training_sets(source: Source, folder: Path, params: Params) -> pd.DataFrame:
    """The features of both models, through all stages and Feast; beside them what each snapshot was told."""
    shutil.copytree(ROOT / "feature_repo", folder / "feature_repo", ignore=shutil.ignore_patterns("__pycache__"))
    pictures = folder / "pictures"
    pictures.mkdir()
    rows = []
    of = source.reviews.set_index("review_id")["business_id"]
    for photo_id, (review_id, seed) in source.photos.items():
        path = pictures / f"{photo_id}.png"
        Image.fromarray(np.random.default_rng(seed).integers(0, 255, (32, 32, 3), np.uint8)).save(path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        photo = {"photo_id": photo_id, "review_id": review_id, "business_id": of[review_id]}
        rows.append(photo | {"path": str(path), "sha256": digest})
    args = argparse.Namespace(
        reviews=folder / "reviews.parquet",
        split=folder / "split.parquet",
        text=folder / "text.parquet",
        photos_table=folder / "photos.parquet",
        descriptions=folder / "descriptions.parquet",
        rejects=folder / "rejects.parquet",
        repo=folder / "feature_repo",
        registry=folder / "registry.json",
        dump=folder / "registry.json",
    )

    def run(stage: Any, **changes: Path) -> None:
        stage.main(argparse.Namespace(**{**vars(args), **changes}), params)

    write_table(pa.Table.from_pandas(source.reviews, preserve_index=False), args.reviews, REVIEWS)
    pq.write_table(pa.Table.from_pandas(source.split, preserve_index=False), args.split)
    write_table(pa.Table.from_pylist(rows, PHOTOS), args.photos_table, PHOTOS)
    run(embed_reviews, out=args.text)
    run(describe_photos, photos=pictures, out=args.descriptions)
    features = folder / "data" / "features"
    run(history, photos=args.photos_table, features=features / "history")
    run(summarize, features=features / "summarize")
    run(tag, features=features / "tag")
    run(register)
    run(training_set, photos=args.photos_table, out=folder / "training_set")
    table = pa.concat_tables(pq.read_table(folder / "training_set" / f"{name}.parquet") for name in SPLITS)
    frame = table.to_pandas().set_index("review_id").drop(columns=KEYS[1:]).sort_index()
    read = pq.read_table(features / "summarize" / "summaries.parquet", columns=["snapshot_id", "summary"]).to_pandas()
    summaries = read.set_index("snapshot_id")["summary"]
    for entity in ("user", "business"):
        frame[f"{entity}_told"] = frame[f"{entity}_summary__snapshot_id"].map(summaries)
    return frame


@pytest.fixture(scope="module", params=["point_in_time", "leave_one_out"])
def params(request: pytest.FixtureRequest, server: Server, tmp_path_factory: pytest.TempPathFactory) -> Params:
    folder = tmp_path_factory.mktemp("params")
    return params_with(
        folder,
        protocol=request.param,
        summarize__provider="openai",
        summarize__own_words=0,
        tag__provider="openai",
        describe_photos__captions="openai",
        llm__base_url=server.url,
        llm__limits__requests_per_minute=None,
        llm__limits__tokens_per_minute=None,
        llm__context_tokens=1200,
        cache__dir=str(folder / "cache"),
    )


@pytest.fixture(scope="module")
def source(params: Params) -> Source:
    return source_of(params)


@pytest.fixture(scope="module")
def before(source: Source, params: Params, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    return training_sets(source, tmp_path_factory.mktemp("before"), params)


def test_a_summary_holds_words_of_visible_reviews_alone(source: Source, params: Params, before: pd.DataFrame) -> None:
    members = source.reviews.merge(source.split, on="review_id")
    rule = Rule.of(params).by_fold()
    told = 0
    for _, r in members.iterrows():
        for entity in ("user", "business"):
            others = members[members[f"{entity}_id"] == r[f"{entity}_id"]]
            seen = set(others.loc[may_see(r, others, rule), "text"]) - {""}
            said = before.loc[r["review_id"], f"{entity}_told"]
            words = set() if not isinstance(said, str) else set(said.replace("|", " ").split())
            assert words <= seen, (r["review_id"], entity)
            assert bool(words) == bool(seen), (r["review_id"], entity)
            told += len(words)
    assert told > 300  # else nothing was shown, and nothing is proved


def changed(source: Source, hidden: set[str]) -> Source:
    """Other stars, words and pictures for the reviews `hidden`."""
    reviews = source.reviews.copy()
    rows = reviews["review_id"].isin(hidden)
    reviews.loc[rows, "rating"] = 6 - reviews.loc[rows, "rating"]
    reviews.loc[rows, "text"] = "another " + reviews.loc[rows, "review_id"]
    photos = {name: (of, seed + 1000 if of in hidden else seed) for name, (of, seed) in source.photos.items()}
    return replace(source, reviews=reviews, photos=photos)


def added(source: Source, hidden: set[str]) -> Source:
    """The reviews `hidden` once more under other ids, with other words and a photo each."""
    other = changed(source, hidden)
    more = other.reviews[other.reviews["review_id"].isin(hidden)]
    places = source.split[source.split["review_id"].isin(hidden)]
    photos = {f"{name} again": (f"{name} again", 2000 + number) for number, name in enumerate(more["review_id"])}
    return Source(
        pd.concat([source.reviews, more.assign(review_id=more["review_id"] + " again")], ignore_index=True),
        pd.concat([source.split, places.assign(review_id=places["review_id"] + " again")], ignore_index=True),
        source.photos | photos,
    )


def removed(source: Source, hidden: set[str]) -> Source:
    return Source(
        source.reviews[~source.reviews["review_id"].isin(hidden)].reset_index(drop=True),
        source.split[~source.split["review_id"].isin(hidden)].reset_index(drop=True),
        {name: (of, seed) for name, (of, seed) in source.photos.items() if of not in hidden},
    )


def hidden_from_many(source: Source, protocol: str) -> tuple[set[str], set[str]]:
    """Reviews, and those that must see nothing of them (themselves among these, but for the removed)."""
    reviews = source.reviews
    if protocol == "point_in_time":
        ties = reviews.loc[reviews.duplicated("event_timestamp", keep=False), "event_timestamp"].sort_values()
        at = ties.iloc[len(ties) // 2]
        hidden = set(reviews.loc[reviews["event_timestamp"] >= at, "review_id"])
        return hidden, set(reviews.loc[reviews["event_timestamp"] <= at, "review_id"])
    # A fold of training pairs sees nothing of itself, for models; what is not train is nobody's to see.
    members = reviews.merge(source.split, on="review_id")
    return set(members.loc[members["split"] != "train", "review_id"]), set(members["review_id"])


@pytest.mark.parametrize("how", [changed, added, removed])
def test_no_feature_moves_when_what_it_must_not_see_does(
    source: Source, params: Params, before: pd.DataFrame, tmp_path: Path, how: Callable[[Source, set[str]], Source]
) -> None:
    hidden, unmoved = hidden_from_many(source, params.protocol)
    after = training_sets(how(source, hidden), tmp_path, params)
    rows = sorted((unmoved & set(before.index)) - (hidden if how is removed else set()))
    assert len(rows) > 20
    assert_same(before.loc[rows], after.loc[rows])
    if params.protocol == "point_in_time":  # and it does move what may see it, else the test could not fail
        others = sorted(set(before.index) & set(after.index) - set(rows))
        if others:
            assert any(not same_column(before.loc[others, name], after.loc[others, name]) for name in before)


def test_a_fold_sees_nothing_of_itself(source: Source, params: Params, before: pd.DataFrame, tmp_path: Path) -> None:
    """What models say for the training reviews of a fold does not move when the whole fold's words do."""
    if params.protocol == "point_in_time":
        pytest.skip("folds are leave_one_out's")
    members = source.reviews.merge(source.split, on="review_id")
    fold = set(members.loc[(members["split"] == "train") & (members["fold"] == 1), "review_id"])
    after = training_sets(changed(source, fold), tmp_path, params)
    rows, others = sorted(fold), sorted(set(members["review_id"]) - fold)
    names = [name for name in before if "_summary__" in name or "_tags__" in name or name.endswith("_told")]
    assert len(rows) > 5
    assert_same(before.loc[rows, names], after.loc[rows, names])
    assert not same_column(before.loc[others, "business_told"], after.loc[others, "business_told"])


def assert_same(one: pd.DataFrame, other: pd.DataFrame) -> None:
    for name in one.columns:
        assert same_column(one[name], other[name]), name


def same_column(one: pd.Series, other: pd.Series) -> bool:
    return pa.array(list(one), from_pandas=True).equals(pa.array(list(other), from_pandas=True))


def test_a_second_run_asks_nothing_and_a_changed_review_little(
    source: Source, params: Params, before: pd.DataFrame, server: Server, tmp_path: Path
) -> None:
    asked = len(server.chats)
    (tmp_path / "again").mkdir()
    again = training_sets(source, tmp_path / "again", params)
    assert len(server.chats) == asked
    assert_same(before, again)
    one = source.reviews.loc[source.reviews["text"] != "", "review_id"].iloc[7]
    (tmp_path / "other").mkdir()
    training_sets(changed(source, {one}), tmp_path / "other", params)
    shown = [json.dumps(request.body["messages"][-1]["content"]) for request in server.chats[asked:]]
    texts = [text for text in shown if "image_url" not in text]
    assert texts
    assert all("another" in text for text in texts)


def test_what_strangers_write_is_shown_as_data(server: Server, params: Params, before: pd.DataFrame) -> None:
    """Nothing but the prompt and the texts goes out: no ids, no stars, no instants."""
    for request in server.chats:
        sent = json.dumps(request.body)
        assert "review_id" not in sent and '"u1' not in sent and "event_timestamp" not in sent
