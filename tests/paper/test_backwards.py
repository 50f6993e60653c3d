"""The label backwards: the features are the obvious twin's, and the label is found just where it is."""

import json
from argparse import Namespace
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings

from pipelines.core.tables import REVIEW_TEXT, REVIEWS, SPLIT, vector_column, write_table
from pipelines.core.training_rows import model_schema
from pipelines.obvious import Obvious, World, same
from pipelines.paper import backwards, leak
from pipelines.paper.backwards import Experiment, Judged, answers_of_trees, dealt_after, dealt_before, text_components
from pipelines.paper.gap import coin, explains, luck
from pipelines.paper.left_out import KINDS, VIEWS, Histories
from pipelines.paper.wording import name_of
from pipelines.split import split_reviews
from tests.histories import DAY, MEMBERS, history_params, rule_of, world_of, worlds
from tests.params import params_with

FEATURES = [
    *(
        f"{entity}_history__{name}"
        for entity in ("user", "business")
        for name in ("review_count", "rating_mean", "rating_std", "rating_trend", "newest_review_at")
    ),
    "user_text__embedding",
    "business_text__embedding",
]


def histories_of(world: World) -> Histories:
    members = pa.Table.from_pandas(world.members, schema=MEMBERS, preserve_index=False)
    return Histories(members, world.vectors["text"], history_params())


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=12, deadline=None)
@given(world=worlds())
def test_features_are_the_obvious_twins(kind, world):
    protocol = "point_in_time" if kind == "point_in_time" else "leave_one_out"
    twin = Obvious(world, rule_of(protocol, "fold" if kind == "fold" else "pair"))
    table = histories_of(world).training_set(kind, VIEWS).to_pandas()
    for _, row in table.iterrows():
        expected = twin.features(row["review_id"], FEATURES)
        for name in FEATURES:
            found = None if np.ndim(row[name]) == 0 and pd.isna(row[name]) else row[name]
            assert same(found, expected[name]), name


def random_world(reviews: int, seed: int) -> Histories:
    """Ratings that nothing says anything about; businesses are told apart by how many reviews they have."""
    random = np.random.default_rng(seed)
    business = np.repeat(np.arange(60), np.linspace(4, 2 * reviews / 60 - 4, 60).astype(int))
    random.shuffle(business)
    rows = [
        (f"r{i:05}", f"u{user}", f"b{shop}", stars, hour, "train", 0, False)
        for i, (user, shop, stars, hour) in enumerate(
            zip(random.integers(0, reviews // 3, len(business)), business, random.integers(1, 6, len(business)),
                random.permutation(len(business)).tolist(), strict=True)
        )
    ]  # fmt: skip
    world = world_of(rows, seed)
    pair = pd.factorize(world.members["user_id"] + world.members["business_id"])[0]
    drawn = random.integers(0, 20, pair.max() + 1)[pair]
    world.members["split"] = np.where(drawn < 5, "test", "train")
    world.members["fold"] = (drawn % 5).astype(np.int8)
    return histories_of(world)


def test_who_knows_the_entity_reads_the_label_out_of_a_pair_wise_mean_and_nowhere_else():
    aucs: dict[str, list[list[float]]] = {kind: [] for kind in KINDS}
    for seed in range(2):
        histories = random_world(2400, seed)
        for kind in KINDS:
            judged = answers_of_trees(histories.rows(kind), {}, seed)
            aucs[kind].append([judged.auc(split) for split in ("train", "held", "test")])
    train, held, test = np.mean([aucs[kind] for kind in KINDS], axis=1).T
    # Of 2 times about 360 held and 600 test rows a coin's AUC has standard deviations of 0.022 and 0.017.
    assert held[0] > 0.7
    assert np.abs(held[1:] - 0.5).max() < 0.09
    assert np.abs(test - 0.5).max() < 0.07
    assert train.min() > 0.7  # by heart, under every rule


def test_labels_dealt_after_the_features_are_known_to_none_of_them():
    histories = random_world(2400, 3)
    splits = histories.rows("pair")
    dealt = dealt_after(splits, 1)
    for name, rows in dealt.items():
        assert rows.columns["user_history__rating_mean"] is splits[name].columns["user_history__rating_mean"]
    told, untold = (np.concatenate([some[name].labels for name in ("train", "held")]) for some in (splits, dealt))
    assert told.sum() == untold.sum()
    assert (told != untold).any()
    assert dealt["test"].labels.sum() == splits["test"].labels.sum()
    assert abs(answers_of_trees(dealt, {}, 0).auc("held") - 0.5) < 0.1


def test_ratings_dealt_before_move_the_numbers_and_no_text():
    world = world_of([(f"r{i}", f"u{i % 3}", f"b{i % 4}", 1 + i % 5, i, "train", i % 3, True) for i in range(40)])
    histories = histories_of(world)
    true = histories.rows("pair")
    dealt = dealt_before(histories, true, "pair", 0)
    assert sorted(histories.dealt(0).members["rating"].to_pylist()) == sorted(world.members["rating"])
    for name in ("train", "held"):
        assert dealt[name].columns["user_text__embedding"] is true[name].columns["user_text__embedding"]
    everyone = [np.concatenate([some[name].labels for name in ("train", "held")]) for some in (true, dealt)]
    assert everyone[0].sum() == everyone[1].sum()
    means = [some["train"].columns["business_history__rating_mean"] for some in (true, dealt)]
    assert not np.array_equal(*means, equal_nan=True)


def test_held_rows_are_train_rows_and_a_pair_is_held_whole():
    histories = random_world(2400, 4)
    parts = histories.parts()
    frame = histories.members.to_pandas()
    assert set(frame["split"].iloc[np.concatenate([parts["train"], parts["held"]])]) == {"train"}
    assert set(frame["split"].iloc[parts["test"]]) == {"test"}
    pair = frame["user_id"] + " " + frame["business_id"]
    pairs = {name: set(pair.iloc[at]) for name, at in parts.items()}
    assert not pairs["train"] & pairs["held"]
    assert 0.15 < len(parts["held"]) / (len(parts["train"]) + len(parts["held"])) < 0.25


def test_a_text_that_is_null_stands_at_trains_mean():
    world = world_of(
        [(f"r{i}", f"u{i}", f"b{i % 3}", 4, i, "test" if i > 24 else "train", 0, i % 3 > 0) for i in range(30)]
    )
    rows = histories_of(world).rows("point_in_time")
    components = text_components(rows)
    nobody = np.isnan(rows["train"].columns["user_text__embedding"]).all()
    unknown = np.isnan(rows["train"].columns["business_text__embedding"]).any(axis=1)
    assert nobody  # every user wrote once: nobody has a past
    assert np.abs(components["train"][unknown]).max() < 1e-6
    assert components["train"].shape[1] == 5  # as wide as the vectors; none for users


def made_up(features: str, held: float, test: float) -> Experiment:
    """100 disliked rows a split, of which train recommends none and the others these shares, at any threshold."""
    labels = np.repeat([0, 1], 100).astype(np.int8)
    scores = {
        split: np.concatenate([np.where(np.arange(100) < round(100 * share), 1.0, 0.0), np.full(100, 0.5)])
        for split, share in (("train", 0.0), ("held", held), ("test", test))
    }
    return Experiment("gradient_boosting", features, "true", "numbers", [Judged(dict.fromkeys(scores, labels), scores)])


def test_the_gap_is_what_is_known_by_heart_and_what_is_read_backwards():
    found = explains([made_up("pair", 0.2, 0.6), made_up("point_in_time", 0.5, 0.55)])
    pair, past = found["ours"]
    assert (pair["gap"], pair["by_heart"], pair["held_to_test"]) == pytest.approx((0.6, 0.2, 0.4))
    assert past["held_to_test"] == pytest.approx(0.05)
    assert pair["held_to_test_luck"] == pytest.approx(1.96 * (0.2 * 0.8 / 100 + 0.6 * 0.4 / 100) ** 0.5)
    assert found["paper"]["gap"] == pytest.approx(0.252)
    assert found["paper"]["train"]["tpr"] == pytest.approx(0.908, abs=0.001)
    told = " ".join(found["words"])
    assert "reading backwards adds 35.0 points" in told
    assert "gradient boosting on numbers and entity text: these data hold too few rows" in told


def test_only_what_no_coin_does_is_told_to_be_above_it():
    read, noise = made_up("pair", 0.2, 0.47), made_up("fold", 0.47, 0.47)
    # AUC is 1 - share here, and three standard deviations of 100 and 100 rows are 0.12.
    assert coin(read, "held") == pytest.approx(3 * (201 / 120_000) ** 0.5)
    told = " ".join(explains([replace(one, labels="permuted") for one in (read, noise)])["words"])
    assert f"{name_of('pair')} 0.800 and 0.530" in told
    assert f"above it: {name_of('pair')} on untold train rows." in told


def test_luck_of_nothing_is_unknown():
    assert luck([(None, 5)]) is None
    assert luck([(0.5, 0)]) is None


def write_stage(folder: Path, timed: bool) -> Namespace:
    """400 reviews of 30 users and 20 businesses as the stage reads them."""
    random = np.random.default_rng(5)
    stars = random.integers(1, 6, 400).astype(np.float32)
    instants = [DAY + timedelta(hours=i) if timed else None for i in range(400)]
    reviews = pd.DataFrame(
        {"review_id": [f"r{i:03}" for i in range(400)], "user_id": [f"u{i}" for i in random.integers(0, 30, 400)]}
        | {"business_id": [f"b{i}" for i in random.integers(0, 20, 400)], "rating": stars, "text": "words"}
        | {"event_timestamp": pd.Series(instants, dtype="datetime64[us, UTC]"), "label": (stars >= 4).astype("int8")}
    )
    params = params_with(folder)
    membership = split_reviews(reviews, "point_in_time" if timed else "leave_one_out", params.split)
    args = Namespace(
        training_set=folder / "set", reviews=folder / "reviews.parquet", split=folder / "split.parquet",
        text=folder / "text.parquet", out=folder / "leak.json",
    )  # fmt: skip
    vectors = random.normal(size=(400, 6)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    text = pa.table({"review_id": reviews["review_id"], "embedding": vector_column(vectors, np.ones(400, bool))})
    write_table(pa.Table.from_pandas(reviews, preserve_index=False), args.reviews, REVIEWS)
    write_table(pa.Table.from_pandas(membership, preserve_index=False), args.split, SPLIT)
    write_table(text, args.text, REVIEW_TEXT)
    members = leak.read_members(args.reviews, args.split)
    histories = Histories(members, leak.read_vectors(args.text, members["review_id"]), params.history)
    made = histories.training_set("point_in_time" if timed else "pair", VIEWS)
    schema = model_schema("baseline")
    made = made.append_column("business_photos__image_embedding", pa.nulls(len(made), pa.list_(pa.float32())))
    for split in ("train", "validation", "test"):
        rows = made.filter(pa.compute.equal(members["split"], split))
        write_table(rows, args.training_set / f"{split}.parquet", schema)
    return args


@pytest.mark.parametrize("timed", [True, False])
def test_the_stage_tells_the_leak_and_the_label_backwards(tmp_path, timed, monkeypatch):
    monkeypatch.setattr(backwards, "EPOCHS", 3)
    args = write_stage(tmp_path, timed)
    params = params_with(
        tmp_path, protocol="point_in_time" if timed else "leave_one_out",
        leak__seeds=2, leak__networks=2, leak__permutations=2, train__epochs=30,
    )  # fmt: skip
    leak.main(args, params)
    assert {path.name for path in tmp_path.iterdir() if path.is_file()} == {
        "params.yaml", "reviews.parquet", "split.parquet", "text.parquet", "leak.json",
    }  # fmt: skip
    content = json.loads(args.out.read_text())
    found = {(row["model"], row["features"]): row["auc"] for row in content["leak"]}
    for model in ("baseline without images", "numbers", "gradient_boosting"):
        assert found[model, "leaky"] > found[model, "honest"]
    assert found["numbers", "leaky"] > found["numbers", "honest"] + 0.05
    assert content["alone"]["user_mean_with_own"] > content["alone"]["user_mean_honest"]
    assert len(content["backwards"]) == 3 * 3 * 2 * 2
    missing = {row["features"] for row in content["backwards"] if row["test_auc"] is None}
    assert missing == (set() if timed else {"point_in_time"})
    assert all(("why" in row) == (row["test_auc"] is None) for row in content["backwards"])
    assert content["explains"]["words"]


def test_leaky_columns_go_to_the_rows_of_their_reviews(tmp_path):
    args = write_stage(tmp_path, timed=True)
    members = leak.read_members(args.reviews, args.split)
    honest = leak.read_splits(args.training_set, "baseline")
    numbers = {"user_history__rating_mean": members["rating"].to_numpy().astype(np.float64)}
    changed = leak.leaky(honest, members, numbers)
    ratings = dict(zip(members["review_id"].to_pylist(), members["rating"].to_pylist(), strict=True))
    for split, rows in changed.items():
        own = [ratings[name] for name in rows.table["review_id"].to_pylist()]
        assert rows.columns["user_history__rating_mean"].tolist() == own
        assert rows.labels is honest[split].labels
    assert replace(honest["test"]).columns["user_history__rating_mean"].tolist() != own
