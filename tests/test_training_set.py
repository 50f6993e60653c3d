"""The training set: the history stage's features, through Feast, guarded by counts from the review table."""

import argparse
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from pipelines import history, register, split, training_set
from pipelines.core.errors import CheckFailed, UserError
from pipelines.core.params import Params, load_params
from pipelines.core.snapshots import read_histories
from pipelines.core.tables import (
    DESCRIPTIONS,
    PHOTOS,
    REVIEW_TEXT,
    REVIEWS,
    TRAINING_SET_KEYS,
    VIEWS_OF_STAGE,
    feature_tables,
    vector_column,
    write_table,
)
from pipelines.core.training_rows import SPLITS, training_set_schema
from tests.snapshot_tables import unit_vectors, write_snapshot_tables
from tests.test_feature_repo import ALL_READ, HISTORY

ROOT = Path(__file__).parents[1]
STAGE_OF = {name: stage for stage in VIEWS_OF_STAGE for name in feature_tables(stage)}


@dataclass(frozen=True)
class Workspace:
    """A copy of the feature repo with small tables around it, as DVC would lay them."""

    root: Path
    params: Params

    def features(self) -> Path:
        return self.root / "data/features"

    def args(self) -> argparse.Namespace:
        return argparse.Namespace(
            reviews=self.root / "data/tables/reviews.parquet",
            split=self.root / "data/split.parquet",
            text=self.root / "data/embeddings/review_text.parquet",
            photos=self.root / "data/tables/photos.parquet",
            descriptions=self.root / "data/photos/descriptions.parquet",
            features=self.features() / "history",
            repo=self.root / "feature_repo",
            registry=self.root / "results/registry.json",
            dump=self.root / "results/registry.json",
            out=self.root / "data/training_set",
        )

    def run(self) -> dict[str, pa.Table]:
        training_set.main(self.args(), self.params)
        return self.made()

    def made(self) -> dict[str, pa.Table]:
        return {name: pq.read_table(self.args().out / f"{name}.parquet") for name in SPLITS}


def small_reviews(count: int, seed: int) -> pa.Table:
    """Few users and businesses, many ties in time, double pairs, texts that say nothing, and users of one pair."""
    random = np.random.default_rng(seed)
    days = random.integers(0, 60, count) * 86_400_000_000 + 1_500_000_000_000_000
    rating = random.integers(1, 6, count)
    users, businesses = random.integers(0, count // 8, count), random.integers(0, count // 12, count)
    users[:20] = 1000 + np.arange(20) // 2
    businesses[:20] = np.arange(20) // 2
    return pa.table(
        {
            "review_id": [f"r{number:05d}" for number in random.permutation(count)],
            "user_id": [f"u{number}" for number in users],
            "business_id": [f"b{number}" for number in businesses],
            "rating": rating.astype("float32"),
            "text": random.choice(["good", "bad", "", " \n\u00a0"], count),
            "event_timestamp": pa.array(days, REVIEWS.field("event_timestamp").type),
            "label": (rating >= 4).astype("int8"),
        }
    )


def small_photos(reviews: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Photos of every fifth review, two each, some without caption, some without file; and one of no review."""
    rows, described = [], []
    for number, (review_id, business_id) in enumerate(
        zip(reviews["review_id"].to_pylist()[::5], reviews["business_id"].to_pylist()[::5], strict=True)
    ):
        for which in range(2):
            photo = {"photo_id": f"p{number}.{which}", "review_id": review_id, "business_id": business_id}
            vectors = unit_vectors([f"caption {photo['photo_id']}", f"image {photo['photo_id']}"], width=6)
            rows.append(photo)
            described.append({
                "photo_id": photo["photo_id"],
                "caption_embedding": vectors[0] if number % 3 else None,
                "image_embedding": vectors[1] if number % 4 and which else None,
            })  # fmt: skip
    rows.append({"photo_id": "p of none", "review_id": None, "business_id": "b0"})
    described.append({"photo_id": "p of none", "caption_embedding": vectors[0], "image_embedding": vectors[1]})
    return pa.Table.from_pylist(rows, PHOTOS), pa.Table.from_pylist(described, DESCRIPTIONS)


def make_workspace(root: Path, protocol: str, leave_out: str = "pair") -> Workspace:
    params = load_params(ROOT / "params.yaml")
    of_history = params.history.model_copy(update={"leave_out": leave_out})
    workspace = Workspace(root, params.model_copy(update={"protocol": protocol, "history": of_history}))
    shutil.copytree(ROOT / "feature_repo", root / "feature_repo", ignore=shutil.ignore_patterns("__pycache__"))
    args = workspace.args()
    reviews = small_reviews(400, seed=3)
    write_table(reviews, args.reviews, REVIEWS)
    split.write_split(args.reviews, args.split, workspace.params)
    vectors = np.random.default_rng(5).normal(size=(len(reviews), 8)).astype("float32")
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    known = pc.not_equal(pc.utf8_trim_whitespace(reviews["text"]), "").to_numpy()
    text = pa.table({"review_id": reviews["review_id"], "embedding": vector_column(vectors, known)})
    write_table(text, args.text, REVIEW_TEXT)
    photos, descriptions = small_photos(reviews)
    write_table(photos, args.photos, PHOTOS)
    write_table(descriptions, args.descriptions, DESCRIPTIONS)
    write_snapshot_tables(read_histories(args.reviews, args.split), workspace.features(), workspace.params)
    history.main(args, workspace.params)
    register.main(args, workspace.params)
    workspace.run()
    return workspace


@pytest.fixture(scope="module", params=["point_in_time pair", "leave_one_out pair", "leave_one_out fold"])
def workspace(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return make_workspace(tmp_path_factory.mktemp("workspace"), *request.param.split())


def test_holds_every_member_once_with_the_agreed_columns(workspace: Workspace) -> None:
    made = workspace.made()
    members = pq.read_table(workspace.args().split).to_pandas()
    reviews = pq.read_table(workspace.args().reviews).to_pandas().set_index("review_id")
    for name, table in made.items():
        assert table.schema.equals(training_set_schema())
        assert table.column_names == [*TRAINING_SET_KEYS.names, *HISTORY, *ALL_READ]
        ids = table["review_id"].to_pylist()
        assert ids == sorted(members[members["split"] == name]["review_id"])
        own = table.select(["user_id", "business_id", "event_timestamp", "label"]).to_pandas()
        expected = reviews.loc[ids, own.columns.tolist()].reset_index(drop=True)
        pd.testing.assert_frame_equal(own, expected)
        types = {field.name: field.type for field in table.schema}
        for entity in ("user", "business"):
            assert types[f"{entity}_history__review_count"] == pa.int64()
            assert types[f"{entity}_history__rating_mean"] == pa.float64()
            assert types[f"{entity}_history__newest_review_at"] == pa.timestamp("us", tz="UTC")
            assert table[f"{entity}_history__review_count"].null_count == 0


def visible_ratings(rows: pd.DataFrame, row: pd.Series, key: str, params: Params) -> pd.Series:
    """The obvious way: the stars of the reviews that `row` sees of its `key`."""
    same = rows[rows[key] == row[key]]
    if params.protocol == "point_in_time":
        return same[same["event_timestamp"] < row["event_timestamp"]]["rating"]
    same = same[same["split"] == "train"]
    if row["split"] != "train":
        return same["rating"]
    if params.history.leave_out == "fold":
        return same[same["fold"] != row["fold"]]["rating"]
    return same[(same["user_id"] != row["user_id"]) | (same["business_id"] != row["business_id"])]["rating"]


def test_counts_and_means_are_those_of_the_visible_reviews(workspace: Workspace) -> None:
    rows = pq.read_table(workspace.args().reviews).to_pandas().merge(pq.read_table(workspace.args().split).to_pandas())
    made = pa.concat_tables(workspace.made().values()).to_pandas().set_index("review_id")
    for _, row in rows.iterrows():
        for entity in ("user", "business"):
            seen = visible_ratings(rows, row, f"{entity}_id", workspace.params)
            got = made.loc[row["review_id"]]
            assert got[f"{entity}_history__review_count"] == len(seen)
            assert got[f"{entity}_history__rating_mean"] == pytest.approx(seen.mean(), nan_ok=True)


@pytest.mark.parametrize("model", ["proposed", "baseline"])
def test_same_inputs_give_same_bytes_whatever_the_model(workspace: Workspace, model: str) -> None:
    first = {name: (workspace.args().out / f"{name}.parquet").read_bytes() for name in SPLITS}
    replace(workspace, params=workspace.params.model_copy(update={"model": model})).run()
    assert first == {name: (workspace.args().out / f"{name}.parquet").read_bytes() for name in SPLITS}


def test_photos_and_snapshots_say_something_where_they_can_be_seen(workspace: Workspace) -> None:
    """Of both kinds there are rows with and without: a test that saw none would prove nothing."""
    table = pa.concat_tables(workspace.made().values())
    for name in ALL_READ:
        assert 0 < table[name].null_count < len(table), name


def one_more(table: pa.Table) -> pa.Table:
    return _with(table, "review_count", pc.add(table["review_count"], 1))


def no_mean(table: pa.Table) -> pa.Table:
    return _with(table, "rating_mean", pa.nulls(len(table), pa.float64()))


def some_mean(table: pa.Table) -> pa.Table:
    return _with(table, "rating_mean", pc.fill_null(table["rating_mean"], 3.0))


def no_vector(table: pa.Table) -> pa.Table:
    return _with(table, "embedding", pa.nulls(len(table), pa.list_(pa.float32())))


def one_microsecond_early(table: pa.Table) -> pa.Table:
    """The off-by-one that lets a review see itself."""
    earlier = pc.subtract(table["event_timestamp"].cast(pa.int64()), 1).cast(table["event_timestamp"].type)
    return _with(table, "event_timestamp", earlier)


def half_of_it(table: pa.Table) -> pa.Table:
    return table.slice(0, len(table) // 2)


def half_seen(table: pa.Table) -> pa.Table:
    """Without the rows of every other key."""
    return table.take(np.flatnonzero([int(key[1:]) % 2 for key in table.column(0).to_pylist()]))


def _with(table: pa.Table, name: str, column: pa.Array | pa.ChunkedArray) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, column)


@pytest.mark.parametrize(
    "entity, group, spoil, protocols, said",
    [
        ("user", "history", one_more, "both", "_history__review_count: "),
        ("user", "history", no_mean, "both", "_history__rating_mean is null: True"),
        ("user", "history", some_mean, "leave_one_out", "_history__rating_mean is null: False"),
        ("user", "history", half_of_it, "both", "_history__review_count: 0"),
        ("user", "history", one_microsecond_early, "point_in_time", "_history__review_count: "),
        ("business", "text", no_vector, "both", "_text__embedding is null: True"),
        ("business", "text", half_of_it, "both", "_text__embedding is null: True"),
        ("business", "text", one_microsecond_early, "point_in_time", "_text__embedding is null: False"),
        ("business", "photos", half_seen, "both", "_photos__"),
        ("business", "photos", one_microsecond_early, "point_in_time", "_photos__"),
        ("user", "summary", half_seen, "both", "_summary__snapshot_id is null: True"),
        ("business", "tags", half_seen, "both", "_tags__snapshot_id is null: True"),
    ],
)
def test_spoilt_features_are_refused_and_nothing_is_written(
    workspace: Workspace,
    entity: str,
    group: str,
    spoil: Callable[[pa.Table], pa.Table],
    protocols: str,
    said: str,
) -> None:
    if protocols not in ("both", workspace.params.protocol):
        pytest.skip(f"{spoil.__name__} is no mistake under {workspace.params.protocol}")
    name = f"{entity}_{group}" + ("" if workspace.params.protocol == "point_in_time" else "_by_review")
    path = workspace.features() / STAGE_OF[name] / f"{name}.parquet"
    before = path.read_bytes()
    made = {file.name: file.read_bytes() for file in workspace.args().out.iterdir()}
    try:
        spoilt = spoil(pq.read_table(path))
        assert not spoilt.equals(pq.read_table(path))
        write_table(spoilt, path, feature_tables(STAGE_OF[name])[name])
        with pytest.raises(CheckFailed) as error:
            workspace.run()
    finally:
        path.write_bytes(before)
    assert f"{entity}{said}" in str(error.value) and "\n" not in str(error.value)
    assert {file.name: file.read_bytes() for file in workspace.args().out.iterdir()} == made
    assert [file for file in workspace.args().out.parent.iterdir() if file.name.startswith(".")] == []


def test_a_missing_feature_table_is_named(workspace: Workspace) -> None:
    name = "user_history" if workspace.params.protocol == "point_in_time" else "user_history_by_review"
    path = workspace.features() / "history" / f"{name}.parquet"
    away = path.rename(path.with_suffix(".away"))
    try:
        with pytest.raises(UserError, match=f"{name}.parquet: no such feature table; run `dvc repro`"):
            workspace.run()
    finally:
        away.rename(path)


def test_a_missing_registry_is_made_again(workspace: Workspace) -> None:
    made = workspace.made()
    shutil.rmtree(workspace.root / "data/feast")
    assert {name: table.equals(made[name]) for name, table in workspace.run().items()} == dict.fromkeys(SPLITS, True)


def test_a_stale_dump_is_refused(workspace: Workspace) -> None:
    dump = workspace.args().registry
    text = dump.read_text()
    dump.write_text(text.replace("rating_mean", "rating_median"))
    try:
        with pytest.raises(
            UserError, match=r"registry\.json: not what .*feature_repo defines; run `dvc repro register`"
        ):
            workspace.run()
    finally:
        dump.write_text(text)


def test_reviews_without_instants_know_only_leave_one_out(tmp_path: Path) -> None:
    reviews = small_reviews(40, seed=1)
    reviews = _with(reviews, "event_timestamp", pa.nulls(40, REVIEWS.field("event_timestamp").type))
    write_table(reviews, tmp_path / "reviews.parquet", REVIEWS)
    rows = {"review_id": reviews["review_id"], "split": ["train"] * 40, "fold": pa.array([0] * 40, pa.int8())}
    pq.write_table(pa.table(rows), tmp_path / "split.parquet")
    with pytest.raises(UserError, match=r"40 of 40 reviews have no instant.*`protocol: leave_one_out`"):
        training_set.read_members(tmp_path / "reviews.parquet", tmp_path / "split.parquet", "point_in_time")
    members = training_set.read_members(tmp_path / "reviews.parquet", tmp_path / "split.parquet", "leave_one_out")
    assert members.num_rows == 40


def test_a_member_that_is_no_review_is_refused(tmp_path: Path) -> None:
    write_table(small_reviews(40, seed=1), tmp_path / "reviews.parquet", REVIEWS)
    rows = {"review_id": ["r00001", "nobody"], "split": ["train"] * 2, "fold": pa.array([0, 0], pa.int8())}
    pq.write_table(pa.table(rows), tmp_path / "split.parquet")
    with pytest.raises(CheckFailed, match=r"split\.parquet: 2 rows, of which .*reviews\.parquet has 1"):
        training_set.read_members(tmp_path / "reviews.parquet", tmp_path / "split.parquet", "leave_one_out")


@pytest.mark.parametrize(
    "spoil, said",
    [
        (lambda got: got.slice(1), "asked Feast for 3 rows and got 2"),
        (lambda got: got.take([1, 0, 2]), "row 0 came back as review b, asked was a; 2 rows differ"),
        (lambda got: got.drop(["x__y"]), "expected"),
        (
            lambda got: _with(got, "x__y", pa.array([1.0, 2.0, 3.0])),
            "x__y has type double, the feature view says int64",
        ),
    ],
)
def test_rows_lost_moved_or_of_another_shape_are_refused(spoil: Callable[[pa.Table], pa.Table], said: str) -> None:
    ids = ["a", "b", "c"]
    asked = pd.DataFrame({"review_id": ids, "user_id": ids, "business_id": ids})
    got = pa.table({"review_id": ids, "user_id": ids, "business_id": ids, "x__y": [1, 2, 3]})
    training_set.check_rows(asked, got, [pa.field("x__y", pa.int64())])
    with pytest.raises(CheckFailed, match=said):
        training_set.check_rows(asked, spoil(got), [pa.field("x__y", pa.int64())])


def test_what_two_models_read_is_there_once() -> None:
    ids = pa.chunked_array([["a", "b"]])
    both = pa.chunked_array([[3.0], [None]], pa.float64())
    one = pa.table({"x__both": both, "x__one": ["p", "q"]})
    other = pa.table({"y__other": ["v", "w"], "x__both": both.combine_chunks()})
    joined = training_set.side_by_side(ids, {"one": one, "other": other})
    assert joined.to_pydict() == {"x__both": [3.0, None], "x__one": ["p", "q"], "y__other": ["v", "w"]}


@pytest.mark.parametrize("found", [2.5000000000000004, None])
def test_a_feature_that_two_models_do_not_share_is_refused(found: float | None) -> None:
    ids = pa.chunked_array([["a", "b", "c"]])
    one = pa.table({"x__y": [1.0, 2.5, None]})
    other = pa.table({"x__y": pa.array([1.0, found, None], pa.float64())})
    with pytest.raises(CheckFailed, match=f"review b, x__y: 2.5 to the model one and {found} to other; give both"):
        training_set.side_by_side(ids, {"one": one, "other": other})


@pytest.mark.parametrize("spoilt", ["baseline", "proposed"])
def test_a_service_whose_history_is_another_is_refused(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, spoilt: str
) -> None:
    """Feast's answer to one model has the rows of another view under the shared name."""
    asked_before = training_set.ask
    name = "user_history__rating_mean"

    def ask(store: Any, service: Any, asked: pd.DataFrame) -> pa.Table:
        answer = asked_before(store, service, asked)
        if service.name.startswith(spoilt):
            answer = _with(answer, name, pc.add(answer[name], 0.01))
        return answer

    monkeypatch.setattr(training_set, "ask", ask)
    made = {file.name: file.read_bytes() for file in workspace.args().out.iterdir()}
    with pytest.raises(CheckFailed, match=rf"training_set: review r\d+, {name}: .* give both the same view"):
        workspace.run()
    assert {file.name: file.read_bytes() for file in workspace.args().out.iterdir()} == made
