"""The leak prover: clean worlds pass, and every planted leak is caught."""

import json
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines import obvious as twin
from pipelines.core import feature_rows, snapshots, visibility
from pipelines.core.errors import CheckFailed
from pipelines.core.tables import (
    DESCRIPTIONS,
    PHOTOS,
    REVIEW_TEXT,
    REVIEWS,
    SPLIT,
    SUMMARIES,
    TAGS,
    vector_column,
    write_table,
)
from pipelines.obvious import FEATURES, SNAPSHOT_VIEWS, Obvious, Rule
from pipelines.perturbed import fast_features
from pipelines.prove import prove, sample
from pipelines.shown import Shown
from tests.histories import DAY, world_of
from tests.params import ROOT, params_with, write_params

PAIR_SPLITS = ["train", "train", "train", "validation", "test"]


@pytest.fixture(scope="module")
def world():
    """300 reviews of 25 users and 15 businesses at 60 instants, with ties and double pairs."""
    random = np.random.default_rng(0)
    rows = []
    for i in range(300):
        user, business = int(random.integers(25)), int(random.integers(15))
        place = PAIR_SPLITS[(user * 7 + business) % 5], (user + business) % 3
        stars, hour = int(random.integers(2, 11)) / 2, int(random.integers(60))
        rows.append((f"r{i}", f"u{user}", f"b{business}", stars, hour, *place, bool(random.integers(5))))
    return world_of(rows)


@pytest.fixture
def params(tmp_path):
    def make(protocol, leave_out="pair", rows=100):
        return params_with(
            tmp_path, protocol=protocol, history__leave_out=leave_out, prove__rows=rows, prove__perturbed=20
        )

    return make


def training_set_of(world, params):
    made = fast_features(world, world.members, Rule.of(params))
    return lambda review_ids: {review_id: made[review_id] for review_id in review_ids}


def beside(readings):
    """What stands beside snapshots, none of it held against a ledger."""
    return lambda snapshots: (readings, Shown())


MODES = [("point_in_time", "pair"), ("leave_one_out", "pair"), ("leave_one_out", "fold")]


@pytest.mark.parametrize(("protocol", "leave_out"), MODES)
def test_a_clean_world_has_no_leak(world, params, protocol, leave_out):
    told = params(protocol, leave_out)
    report = prove(world, training_set_of(world, told), FEATURES, beside({}), told)
    assert report["leaks"] == 0
    assert report["examples"] == []
    assert report["rows_checked"] == 100
    assert report["values_checked"] == 100 * len(FEATURES)
    apart = len(SNAPSHOT_VIEWS) if leave_out == "pair" and protocol == "leave_one_out" else 0
    assert report["values_perturbed"] == 3 * 20 * (len(FEATURES) + apart)
    assert all(report["hard_rows"].values())


def at_or_before(r, others, rule):
    return others["event_timestamp"] <= r["event_timestamp"]


def ties_in_file_order(r, others, rule):
    earlier = others["event_timestamp"] < r["event_timestamp"]
    return earlier | ((others["event_timestamp"] == r["event_timestamp"]) & (others["review_id"] < r["review_id"]))


def one_too_few(r, others, rule):
    earlier = others["event_timestamp"] < r["event_timestamp"]
    return earlier & (others["event_timestamp"] != others.loc[earlier, "event_timestamp"].max())


def one_too_many(r, others, rule):
    later = others["event_timestamp"] > r["event_timestamp"]
    return (others["event_timestamp"] < r["event_timestamp"]) | (
        others["event_timestamp"] == others.loc[later, "event_timestamp"].min()
    )


def own_pair(r, others, rule):
    return others["split"] == "train"


def only_itself_left_out(r, others, rule):
    return (others["split"] == "train") & (others["review_id"] != r["review_id"])


def sees_test_rows(r, others, rule):
    own = (others[["user_id", "business_id"]] == r[["user_id", "business_id"]]).all(axis=1)
    return others["split"].isin(["train", "test"]) & ~own


@pytest.mark.parametrize(
    ("protocol", "leak"),
    [
        ("point_in_time", at_or_before),
        ("point_in_time", ties_in_file_order),
        ("point_in_time", one_too_few),
        ("point_in_time", one_too_many),
        ("point_in_time", own_pair),
        ("leave_one_out", own_pair),
        ("leave_one_out", only_itself_left_out),
        ("leave_one_out", sees_test_rows),
    ],
)
def test_a_training_set_that_leaks_is_caught(world, params, monkeypatch, protocol, leak):
    told = params(protocol)
    with monkeypatch.context() as planted:
        planted.setattr(twin, "may_see", leak)
        obvious = Obvious(world, Rule.of(told))
        leaky = {review_id: obvious.features(review_id) for review_id in world.members["review_id"]}
    report = prove(world, lambda review_ids: {i: leaky[i] for i in review_ids}, FEATURES, beside({}), told)
    assert report["leaks"] > 0
    assert "recomputed" in report["examples"][0]


def leaky_ties(key, instant):
    """Ties enter one by one, in file order."""
    return original_running_rows(key, np.arange(len(instant)))


original_running_rows = visibility.running_rows
original_cuts_over_time = visibility.cuts_over_time


def keep_own_part(key, part, is_train, vectors):
    totals = visibility.sums_by(key[is_train], vectors[is_train], int(key.max(initial=-1)) + 1)
    return totals[key]


def float_totals(key, part, is_train, vectors):
    """Totals less one's own in float32: right on paper, but the own bits stay behind."""
    exact = visibility.sums_left_out(key, part, is_train, vectors)
    own = np.where(is_train[:, None], vectors, 0).astype(np.float32)
    return ((exact.astype(np.float32) + own) - own).astype(np.int64)


def cuts_within_ties(key, instant, growth):
    return original_cuts_over_time(key, np.arange(len(instant)), growth)


def fold_kept(key, fold, is_train):
    """Summaries of all training reviews, also for the reviews that they are made of."""
    cuts = original_cuts_left_out(key, fold, is_train)
    whole = {cut.key: cut.holds for cut in cuts if cut.fold is None}
    return [visibility.Cut(cut.key, whole[cut.key], cut.fold) for cut in cuts]


original_cuts_left_out = visibility.cuts_left_out


@pytest.mark.parametrize(
    ("protocol", "module", "name", "leak"),
    [
        ("point_in_time", feature_rows, "running_rows", leaky_ties),
        ("leave_one_out", feature_rows, "sums_left_out", keep_own_part),
        ("leave_one_out", feature_rows, "sums_left_out", float_totals),
        ("point_in_time", snapshots, "cuts_over_time", cuts_within_ties),
        ("leave_one_out", snapshots, "cuts_left_out", fold_kept),
    ],
)
def test_fast_code_that_leaks_is_caught(world, params, monkeypatch, protocol, module, name, leak):
    told = params(protocol)
    broken = type("visibility", (), {**vars(visibility), name: staticmethod(leak)})
    monkeypatch.setattr(module, "visibility", broken)
    report = prove(world, training_set_of(world, told), FEATURES, beside({}), told)
    assert report["leaks"] > 0


def test_a_summary_that_saw_more_than_its_fold_allows_is_caught_by_changing_it(world, params, monkeypatch):
    """Recomputed it agrees, when the twin is as wrong as the code: then only another world can tell."""
    told = params("leave_one_out")
    broken = type("visibility", (), {**vars(visibility), "cuts_left_out": staticmethod(fold_kept)})
    monkeypatch.setattr(snapshots, "visibility", broken)
    leaky = training_set_of(world, told)
    monkeypatch.setattr(twin.Rule, "by_fold", lambda rule: rule)
    monkeypatch.setattr(Obvious, "features", lambda self, review_id, names: leaky([review_id])[review_id])
    report = prove(world, leaky, FEATURES, beside({}), told)
    assert report["leaks"] > 0
    assert all("after hidden reviews were" in example for example in report["examples"])


def test_a_value_is_traced_to_its_snapshot(world, params):
    told = params("point_in_time")
    honest = training_set_of(world, told)
    names = [*FEATURES, "user_summary__embedding", "business_tags__subtypes"]

    def read(review_ids):
        rows = honest(review_ids)
        for row in rows.values():
            of_user, of_business = row["user_summary__snapshot_id"], row["business_tags__snapshot_id"]
            row["user_summary__embedding"] = None if of_user is None else np.array([len(of_user)], np.float32)
            row["business_tags__subtypes"] = None if of_business is None else [of_business]
        return rows

    readings = {}
    for row in read(list(world.members["review_id"])).values():
        for view, feature in (("user_summary", "embedding"), ("business_tags", "subtypes")):
            readings[f"{view} {row[f'{view}__snapshot_id']}"] = {feature: row[f"{view}__{feature}"]}
    assert prove(world, read, names, beside(readings), told)["leaks"] == 0
    for other in ({}, {name: dict.fromkeys(row, np.array([0], np.float32)) for name, row in readings.items()}):
        report = prove(world, read, names, beside(other), told)
        assert report["leaks"] > 0
        assert all("traced" in example for example in report["examples"])


def test_a_feature_without_a_twin_is_not_trained_on(world, params):
    with pytest.raises(CheckFailed, match="no obvious twin of user_history__rating_median"):
        prove(world, lambda ids: {}, [*FEATURES, "user_history__rating_median"], beside({}), params("point_in_time"))


def test_the_sample_holds_the_hard_rows(world):
    ids, hard = sample(world.members, 80, seed=1)
    assert len(ids) == len(set(ids)) == 80
    assert all(count >= 10 for count in hard.values())
    assert sample(world.members, 80, seed=1)[0] == ids != sample(world.members, 80, seed=2)[0]
    assert len(sample(world.members, 10_000, seed=1)[0]) == len(world.members)


def write_world(world, folder, training):
    """The files that the stage reads; no summaries and tags, as nothing in this training set is traced to them."""
    members, unit = world.members, visibility.VECTOR_UNIT
    reviews = members.assign(label=(members["rating"] >= 4).astype("int8"))
    write_table(pa.Table.from_pandas(reviews, preserve_index=False), folder / "reviews.parquet", REVIEWS)
    write_table(pa.Table.from_pandas(members, preserve_index=False), folder / "split.parquet", SPLIT)
    text = world.vectors["text"]
    vectors, known = np.zeros((len(members), 5), np.float32), np.zeros(len(members), bool)
    vectors[text.owner], known[text.owner] = text.values / unit, True
    table = pa.table({"review_id": members["review_id"], "embedding": vector_column(vectors, known)})
    write_table(table, folder / "text.parquet", REVIEW_TEXT)
    photos, described = [], []
    for kind in ("caption_embedding", "image_embedding"):
        for number, (owner, values) in enumerate(
            zip(world.vectors[kind].owner, world.vectors[kind].values, strict=True)
        ):
            photo = {"photo_id": f"{kind}{number:04}", "business_id": members.loc[owner, "business_id"]}
            photos.append(photo | {"review_id": members.loc[owner, "review_id"]})
            described.append({"photo_id": photo["photo_id"], kind: (values / unit).astype(np.float32)})
    write_table(pa.Table.from_pylist(photos, PHOTOS), folder / "photos.parquet", PHOTOS)
    write_table(pa.Table.from_pylist(described, DESCRIPTIONS), folder / "descriptions.parquet", DESCRIPTIONS)
    write_table(SUMMARIES.empty_table(), folder / "summaries.parquet", SUMMARIES)
    write_table(TAGS.empty_table(), folder / "tags.parquet", TAGS)
    made = training(list(members["review_id"]))
    (folder / "training_set").mkdir()
    for split in ("train", "validation", "test"):
        ids = list(members.loc[members["split"] == split, "review_id"])
        columns = {"review_id": pa.array(ids)}
        for name in FEATURES:
            values = [made[i][name] for i in ids]
            columns[name] = pa.array([v.tolist() if isinstance(v, np.ndarray) else v for v in values])
        pq.write_table(pa.table(columns), folder / "training_set" / f"{split}.parquet")


LEAKY = {"user_history__rating_mean": 4.75, "business_photos__image_embedding": np.full(3, 0.25, np.float32)}


@pytest.mark.parametrize("leaks", [None, *LEAKY])
def test_the_stage_stops_at_a_leak(world, params, tmp_path, leaks):
    """Also at one in what `model` does not read: the training set is every model's."""
    told = params("point_in_time")
    training = training_set_of(world, told)
    if leaks:
        honest = training

        def training(ids):
            made = honest(ids)
            made["r7"][leaks] = LEAKY[leaks]
            return made

    write_world(world, tmp_path, training)
    write_params(
        tmp_path / "params.yaml", prove__rows=300, prove__perturbed=10, history__as_of=DAY.isoformat(), tag__growth=2.0
    )
    flags = {
        "reviews": "reviews.parquet", "split": "split.parquet", "text": "text.parquet",
        "photos": "photos.parquet", "descriptions": "descriptions.parquet", "summaries": "summaries.parquet",
        "tags": "tags.parquet",
        "training-set": "training_set", "report": "leaks.json", "params": "params.yaml",
    }  # fmt: skip
    command = [sys.executable, "-m", "pipelines.prove"]
    for flag, name in flags.items():
        command += [f"--{flag}", str(tmp_path / name)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    report = json.loads((tmp_path / "leaks.json").read_text())
    if leaks:
        assert ended.returncode == 2
        said = [line for line in ended.stderr.splitlines() if line.startswith("error:")]
        assert f"values leak or differ under point_in_time; the first: review r7, {leaks}" in said[0]
        assert "Traceback" not in ended.stderr
        assert report["leaks"] >= 1
    else:
        assert (ended.returncode, report["leaks"]) == (0, 0), ended.stderr
        values = f"{300 * len(FEATURES)} values recomputed and {30 * len(FEATURES)} perturbed"
        said = f"300 rows, {values}, 0 readings held against the ledger under point_in_time, no leak"
        assert said in ended.stdout
