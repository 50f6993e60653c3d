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
from hypothesis import strategies as st

from models.bootstrap import draw_users
from models.columns import Unencodable
from models.metrics import auc, fpr_at_tpr
from pipelines.core.errors import UserError
from pipelines.core.progress import progress
from pipelines.core.tables import REVIEW_TEXT, REVIEWS, SPLIT, read_table, vector_column, write_table
from pipelines.core.training_rows import model_schema
from pipelines.obvious import Obvious, World, same
from pipelines.paper import backwards, chance, leak
from pipelines.paper.backwards import answers_of_trees, dealt_after, dealt_before, text_components
from pipelines.paper.chance import coin, redrawn_fpr
from pipelines.paper.experiment import Experiment, Judged
from pipelines.paper.gap import explains
from pipelines.paper.leak_findings import backwards as backwards_findings
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


TPR = 0.9


def made_up(features: str, held: float, test: float, seed: int | None = None) -> Experiment:
    """100 disliked rows a split, of which train recommends none and the others these shares, at any threshold.

    With a `seed` the liked rows' scores are random, so that thresholds are.
    """
    labels = np.repeat([0, 1], 100).astype(np.int8)
    liked = np.full(100, 0.5) if seed is None else np.random.default_rng(seed).random(100)
    scores = {
        split: np.concatenate([np.where(np.arange(100) < round(100 * share), 1.0, 0.0), liked])
        for split, share in (("train", 0.0), ("held", held), ("test", test))
    }
    judged = [Judged(dict.fromkeys(scores, labels), scores)]
    return Experiment("gradient_boosting", features, "true", "numbers", judged, dict.fromkeys(scores, np.arange(200)))


def test_the_gap_is_what_is_known_by_heart_and_what_is_read_backwards():
    found = explains([made_up("pair", 0.2, 0.6), made_up("point_in_time", 0.5, 0.55)])
    pair, past = found["ours"]
    assert (pair["gap"], pair["by_heart"], pair["held_to_test"]) == pytest.approx((0.6, 0.2, 0.4))
    assert past["held_to_test"] == pytest.approx(0.05)
    # Here no threshold moves: the luck is that of two shares.
    half = 1.96 * (0.2 * 0.8 / 100 + 0.6 * 0.4 / 100) ** 0.5
    assert list(pair["held_to_test_interval"].values()) == pytest.approx([0.4 - half, 0.4 + half], abs=0.03)
    assert (pair["beyond_past"], past["beyond_past"]) == (pytest.approx(0.35), None)
    assert past["beyond_past_interval"] == {"low": None, "high": None}
    assert found["paper"]["gap"] == pytest.approx(0.252)
    assert found["paper"]["train"]["tpr"] == pytest.approx(0.908, abs=0.001)
    told = " ".join(found["words"])
    assert "reading backwards adds 35.0 points" in told
    assert "gradient boosting on numbers and entity text: these data hold too few rows" in told


def test_rules_are_judged_on_the_same_draws():
    """Of rows that both rules rank alike, luck is none at all; as if independent, it would be 20 points."""
    pair, past = explains([made_up("pair", 0.2, 0.6, 1), made_up("point_in_time", 0.2, 0.6, 1)])["ours"]
    assert pair["beyond_past_interval"] == {"low": 0, "high": 0}
    assert past["held_to_test_interval"]["high"] - past["held_to_test_interval"]["low"] > 0.1


def test_what_points_the_other_way_is_not_called_nothing():
    told = " ".join(explains([made_up("pair", 0.5, 0.1), made_up("point_in_time", 0.1, 0.5)])["words"])
    assert "80.0 points more than where the pair is left out" in told
    assert "opposite of what reading backwards does" in told
    assert "nothing that so few rows could tell" not in told
    told = " ".join(explains([made_up("pair", 0.5, 0.5), made_up("point_in_time", 0.5, 0.52)])["words"])
    assert "nothing that so few rows could tell" in told


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 10**6), rows=st.integers(1, 30), pairs=st.integers(1, 12))
def test_a_redrawn_fpr_is_that_of_the_drawn_rows_written_out(seed, rows, pairs):
    random = np.random.default_rng(seed)
    labels, scores = random.integers(0, 2, rows).astype(np.int8), random.integers(0, 6, rows) / 5  # with ties
    units, draws = random.integers(0, pairs, rows), draw_users(pairs, 5, seed)
    found = redrawn_fpr(labels, scores, units, draws, TPR)
    for draw, fpr in zip(draws, found, strict=True):
        drawn = np.repeat(np.arange(rows), draw[units])
        expected = fpr_at_tpr(labels[drawn], scores[drawn], TPR)
        assert np.isnan(fpr) if expected is None else fpr == pytest.approx(expected)


def test_many_rows_are_redrawn_in_parts(monkeypatch):
    random = np.random.default_rng(0)
    labels, scores = random.integers(0, 2, 50).astype(np.int8), random.random(50)
    draws = draw_users(50, 20, 0)
    whole = redrawn_fpr(labels, scores, np.arange(50), draws, TPR)
    monkeypatch.setattr(chance, "CELLS", 150)
    assert np.array_equal(redrawn_fpr(labels, scores, np.arange(50), draws, TPR), whole)


def test_luck_counts_a_threshold_that_is_drawn_too_and_a_pair_as_one():
    """Of random scores FPR at a TPR varies with liked rows too: a share's own luck would be too narrow by far."""
    random = np.random.default_rng(1)
    labels = np.repeat([0, 1], [400, 100]).astype(np.int8)
    true = [fpr_at_tpr(labels, random.random(500), 0.5) for _ in range(1000)]
    scores = random.random(500)
    redrawn = redrawn_fpr(labels, scores, np.arange(500), draw_users(500, 500, 0), 0.5)
    assert redrawn.std() == pytest.approx(np.std(true), rel=0.35)
    assert redrawn.std() > 1.5 * (0.5 * 0.5 / 400) ** 0.5
    twice = [np.concatenate([some, some]) for some in (labels, scores, np.arange(500))]
    assert np.array_equal(redrawn_fpr(*twice, draw_users(500, 500, 0), 0.5), redrawn)


def test_only_what_no_coin_does_is_told_to_be_none():
    read, noise = made_up("pair", 0.2, 0.47), made_up("fold", 0.47, 0.47)
    # AUC is 1 - share here, and three standard deviations of 100 and 100 rows are 0.12.
    assert coin(read.counts()["held"], 1) == pytest.approx(3 * (201 / 120_000) ** 0.5)
    told = " ".join(explains([replace(one, labels="permuted") for one in (read, noise)])["words"])
    assert f"{name_of('pair')} 0.800 (± 0.123) and 0.530 (± 0.123)" in told
    assert f"Beyond a coin: {name_of('pair')} on untold train rows." in told


@pytest.mark.parametrize("test", [0.3, 0.38, 0.5, 0.62, 0.7])
def test_both_who_tell_of_a_control_say_the_same(test):
    """Test rows under ratings dealt anew, on either side of a coin's width."""
    one = replace(made_up("pair", 0.5, test), labels="permuted")
    said = " ".join(explains([one])["words"])
    (finding,) = [found.text for found in backwards_findings({"backwards": [one.line()]}) if "Control" in found.text]
    assert (f"{name_of('pair')} on test rows" in said) == ("NO coin" in finding) == (abs(test - 0.5) > 0.123)


def test_a_lines_own_rows_make_its_coin():
    few = made_up("pair", 0.5, 0.5)
    one = few.judged[0]
    half = Judged(
        {**one.labels, "test": np.array([0, 1, 1], np.int8)}, {**one.probabilities, "test": np.array([0.1, 0.2, 0.3])}
    )
    assert replace(few, judged=[half]).line()["counts"] == {"train": [100, 100], "held": [100, 100], "test": [1, 2]}
    assert coin([1, 2], 1) > coin([100, 100], 1) > coin([100, 100], 4) == coin([100, 100], 1) / 2
    assert coin([0, 5], 3) is None


def test_a_coins_width_is_three_standard_deviations_of_random_scores():
    random = np.random.default_rng(3)
    labels = (np.arange(300) < 60).astype(np.int8)
    aucs = [np.mean([auc(labels, random.random(300)) for _ in range(3)]) for _ in range(400)]
    assert coin([240, 60], 3) == pytest.approx(3 * np.std(aucs), rel=0.1)


def test_rows_of_one_user_and_business_are_one_pair():
    rows = random_world(2400, 5).rows("pair")["train"]
    frame, pairs = rows.table.to_pandas(), backwards.pairs_of(rows)
    names = frame["user_id"] + " " + frame["business_id"]
    assert pairs.max() + 1 == names.nunique() < len(names)
    assert (pd.Series(pairs).groupby(names.to_numpy()).nunique() == 1).all()


def write_stage(folder: Path, timed: bool, strangers: bool = False) -> Namespace:
    """400 reviews of 30 users and 20 businesses as the stage reads them; `strangers` wrote one each."""
    random = np.random.default_rng(5)
    stars = random.integers(1, 6, 400).astype(np.float32)
    instants = [DAY + timedelta(hours=i) if timed else None for i in range(400)]
    reviews = pd.DataFrame(
        {"review_id": [f"r{i:03}" for i in range(400)]}
        | {"user_id": [f"u{i}" for i in (range(400) if strangers else random.integers(0, 30, 400))]}
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
    rows = content["data"]["rows"]
    assert content["data"] | {"rows": None} == {
        "source": params.ingest.source, "protocol": params.protocol, "rows": None,
        "negative_share": {name: pytest.approx(1 - share_liked(args, name)) for name in rows},
    }  # fmt: skip
    assert sum(rows.values()) == 400
    assert list(rows) == ["test", "train", "validation"]
    for row in content["backwards"]:
        counted = row["counts"]["test"] is not None
        assert counted == ("why" not in row)
        if counted and row["labels"] == "true":
            disliked, liked = np.sum([row["counts"][name] for name in ("train", "held", "test")], axis=0)
            assert 200 < disliked + liked < 400  # without validation
            assert row["counts"]["held"] < row["counts"]["train"]


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


def share_liked(args: Namespace, split: str) -> float:
    return float(np.mean(leak.read_splits(args.training_set, "baseline")[split].labels))


FEW = {"leak__seeds": 2, "leak__networks": 2, "leak__permutations": 2, "train__epochs": 2}


def test_data_that_the_papers_protocol_takes_nothing_of_are_told_so(tmp_path, capsys):
    """Nobody wrote twice: nobody has a mean either, and the figures that have no meaning are printed as such."""
    args = write_stage(tmp_path, timed=True, strangers=True)
    leak.main(args, params_with(tmp_path, protocol="point_in_time", **FEW))
    content = json.loads(args.out.read_text())
    assert len(content["backwards"]) == 3 * 3 * 2 * 2
    assert {row["why"] for row in content["backwards"]} == {content["backwards"][0]["why"]}
    assert "0 of 400 reviews" in content["backwards"][0]["why"]
    assert content["explains"]["ours"] == []
    assert any("These data cannot show" in word and "0 of 400" in word for word in content["explains"]["words"])
    assert not any("With ratings dealt anew" in word for word in content["explains"]["words"])
    assert content["alone"]["user_mean_honest"] is None
    assert len(content["leak"]) == 6
    assert "leak: numbers, leaky: test AUC 0." in capsys.readouterr().out


def test_fewer_of_a_label_than_can_be_dealt_is_too_few():
    world = world_of([(f"r{i:02}", f"u{i}", f"b{i}", 5 if i else 1, i, "train", 0, True) for i in range(60)])
    world.members["split"] = np.where(np.arange(60) > 40, "test", "train")
    assert backwards.too_few(histories_of(world)) == ("disliked reviews: 1, liked ones: 59; of either there must be 10")
    world.members["rating"] = np.where(np.arange(60) > 29, 5, 1).astype(np.float32)
    assert backwards.too_few(histories_of(world)) is None
    world.members["split"] = "train"
    assert "no test rows" in backwards.too_few(histories_of(world))


def test_trees_of_numbers_that_are_all_the_same_know_the_share():
    world = world_of([(f"r{i:02}", f"u{i}", f"b{i}", 5 - 4 * (i % 2), i, "train", 0, False) for i in range(60)])
    world.members["split"] = np.where(np.arange(60) > 40, "test", "train")
    judged = answers_of_trees(histories_of(world).rows("pair"), {}, 0)
    assert np.unique(judged.probabilities["test"]).tolist() == [judged.labels["train"].mean()]


def test_a_figure_without_meaning_is_printed_and_what_no_model_can_take_is_a_line(tmp_path, capsys, monkeypatch):
    args, params = write_stage(tmp_path, timed=True, strangers=True), params_with(tmp_path, **FEW)
    test = args.training_set / "test.parquet"
    liked = read_table(test, model_schema("baseline"))
    at = liked.schema.get_field_index("label")
    ones = pa.array(np.ones(len(liked), np.int8))
    write_table(liked.set_column(at, liked.schema.field(at), ones), test, model_schema("baseline"))
    leak.main(args, params)
    assert capsys.readouterr().out.count("test AUC n/a") == 6
    monkeypatch.setattr(leak, "learn", lambda *told, **more: raised(Unencodable("`x` is 3 wide, the model wants 5")))
    with pytest.raises(UserError, match=r"set: `x` is 3 wide, the model wants 5; run `dvc repro`"):
        leak.main(args, params)


def raised(error: Exception) -> None:
    raise error


@pytest.mark.parametrize("timed", [True, False])
def test_bars_count_every_experiment(tmp_path, monkeypatch, timed):
    monkeypatch.setattr(backwards, "EPOCHS", 2)
    bars = []

    def seen(*told, **more):
        bars.append(progress(*told, **more))
        return bars[-1]

    monkeypatch.setattr(leak, "progress", seen)
    args = write_stage(tmp_path, timed)
    leak.main(args, params_with(tmp_path, protocol="point_in_time" if timed else "leave_one_out", **FEW))
    leaks, of_labels = bars
    assert leaks.n == leaks.total == 7
    # A rule: 2 learners of 2 sets of columns, and of both dealt labels the same for 2 permutations.
    assert of_labels.n == of_labels.total == (3 if timed else 2) * 2 * (2 + 2 * 2 * 2)
