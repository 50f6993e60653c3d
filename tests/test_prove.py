"""The leak prover: clean worlds pass, and every planted leak is caught."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines import prove as prover
from pipelines.core import feature_rows, visibility
from pipelines.core.tables import REVIEW_TEXT, REVIEWS, SPLIT, vector_column, write_table
from pipelines.prove import FEATURES, Obvious, fast_features, prove, sample
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
    def make(protocol, leave_out="pair", rows=200):
        return params_with(
            tmp_path, protocol=protocol, history__leave_out=leave_out, prove__rows=rows, prove__perturbed=20
        )

    return make


def training_set_of(world, params):
    made = fast_features(world, world.members, params.protocol, params.history)
    return lambda review_ids: {review_id: made[review_id] for review_id in review_ids}


MODES = [("point_in_time", "pair"), ("leave_one_out", "pair"), ("leave_one_out", "fold")]


@pytest.mark.parametrize(("protocol", "leave_out"), MODES)
def test_a_clean_world_has_no_leak(world, params, protocol, leave_out):
    told = params(protocol, leave_out)
    report = prove(world, training_set_of(world, told), told)
    assert report["leaks"] == 0
    assert report["examples"] == []
    assert report["rows_checked"] == 200
    assert report["values_checked"] == 200 * len(FEATURES)
    assert report["values_perturbed"] == 3 * 20 * len(FEATURES)
    assert all(report["hard_rows"].values())


def at_or_before(r, others, protocol, history):
    return others["event_timestamp"] <= r["event_timestamp"]


def ties_in_file_order(r, others, protocol, history):
    earlier = others["event_timestamp"] < r["event_timestamp"]
    return earlier | ((others["event_timestamp"] == r["event_timestamp"]) & (others["review_id"] < r["review_id"]))


def one_too_few(r, others, protocol, history):
    earlier = others["event_timestamp"] < r["event_timestamp"]
    return earlier & (others["event_timestamp"] != others.loc[earlier, "event_timestamp"].max())


def one_too_many(r, others, protocol, history):
    later = others["event_timestamp"] > r["event_timestamp"]
    return (others["event_timestamp"] < r["event_timestamp"]) | (
        others["event_timestamp"] == others.loc[later, "event_timestamp"].min()
    )


def own_pair(r, others, protocol, history):
    return others["split"] == "train"


def only_itself_left_out(r, others, protocol, history):
    return (others["split"] == "train") & (others["review_id"] != r["review_id"])


def sees_test_rows(r, others, protocol, history):
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
        planted.setattr(prover, "may_see", leak)
        obvious = Obvious(world, protocol, told.history)
        leaky = {review_id: obvious.features(review_id) for review_id in world.members["review_id"]}
    report = prove(world, lambda review_ids: {i: leaky[i] for i in review_ids}, told)
    assert report["leaks"] > 0
    assert "recomputed" in report["examples"][0]


def leaky_ties(key, instant):
    """Ties enter one by one, in file order."""
    return original_running_rows(key, np.arange(len(instant)))


original_running_rows = visibility.running_rows


def keep_own_part(key, part, is_train, vectors):
    totals = visibility.sums_by(key[is_train], vectors[is_train], int(key.max(initial=-1)) + 1)
    return totals[key]


def float_totals(key, part, is_train, vectors):
    """Totals less one's own in float32: right on paper, but the own bits stay behind."""
    exact = visibility.sums_left_out(key, part, is_train, vectors)
    own = np.where(is_train[:, None], vectors, 0).astype(np.float32)
    return ((exact.astype(np.float32) + own) - own).astype(np.int64)


@pytest.mark.parametrize(
    ("protocol", "name", "leak"),
    [
        ("point_in_time", "running_rows", leaky_ties),
        ("leave_one_out", "sums_left_out", keep_own_part),
        ("leave_one_out", "sums_left_out", float_totals),
    ],
)
def test_fast_code_that_leaks_is_caught(world, params, monkeypatch, protocol, name, leak):
    told = params(protocol)
    broken = type("visibility", (), {**vars(visibility), name: staticmethod(leak)})
    monkeypatch.setattr(feature_rows, "visibility", broken)
    report = prove(world, training_set_of(world, told), told)
    assert report["leaks"] > 0


def test_the_sample_holds_the_hard_rows(world):
    ids, hard = sample(world.members, 80, seed=1)
    assert len(ids) == len(set(ids)) == 80
    assert all(count >= 10 for count in hard.values())
    assert sample(world.members, 80, seed=1)[0] == ids != sample(world.members, 80, seed=2)[0]
    assert len(sample(world.members, 10_000, seed=1)[0]) == len(world.members)


def write_world(world, folder, training):
    """The files that the stage reads."""
    members = world.members
    texts = pd.Series("words", index=members.index)
    reviews = members.assign(text=texts, label=(members["rating"] >= 4).astype("int8"))
    write_table(pa.Table.from_pandas(reviews, preserve_index=False), folder / "reviews.parquet", REVIEWS)
    write_table(pa.Table.from_pandas(members, preserve_index=False), folder / "split.parquet", SPLIT)
    vectors = (world.vectors.values / visibility.VECTOR_UNIT).astype(np.float32)
    text = pa.table({"review_id": members["review_id"], "embedding": vector_column(vectors, world.vectors.known)})
    write_table(text, folder / "text.parquet", REVIEW_TEXT)
    made = training(list(members["review_id"]))
    (folder / "training_set").mkdir()
    for split in ("train", "validation", "test"):
        ids = list(members.loc[members["split"] == split, "review_id"])
        columns = {"review_id": pa.array(ids)}
        for name in FEATURES:
            values = [made[i][name] for i in ids]
            columns[name] = pa.array([v.tolist() if isinstance(v, np.ndarray) else v for v in values])
        pq.write_table(pa.table(columns), folder / "training_set" / f"{split}.parquet")


@pytest.mark.parametrize("leaks", [False, True])
def test_the_stage_stops_at_a_leak(world, params, tmp_path, leaks):
    told = params("point_in_time")
    training = training_set_of(world, told)
    if leaks:
        honest = training

        def training(ids):
            made = honest(ids)
            made["r7"]["user_history__rating_mean"] = 4.75
            return made

    write_world(world, tmp_path, training)
    write_params(tmp_path / "params.yaml", prove__rows=300, prove__perturbed=10, history__as_of=DAY.isoformat())
    flags = {
        "reviews": "reviews.parquet", "split": "split.parquet", "text": "text.parquet",
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
        assert "values leak or differ under point_in_time; the first: review r7, user_history__rating_mean" in said[0]
        assert "Traceback" not in ended.stderr
        assert report["leaks"] >= 1
    else:
        assert (ended.returncode, report["leaks"]) == (0, 0), ended.stderr
        assert "300 rows, 3600 values recomputed and 360 perturbed under point_in_time, no leak" in ended.stdout
