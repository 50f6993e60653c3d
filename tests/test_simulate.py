"""The simulated world: same seed, same bytes; shares, tails, ties; a signal that a history can learn."""

import json
from argparse import Namespace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from pipelines import simulate
from pipelines.core.params import Simulate
from pipelines.simulation_text import CLOSING, DISHES, FOOD
from pipelines.simulation_world import CUISINES, simulate_world
from tests.formats.running import PARAMS, run

SMALL = Simulate(seed=3, reviews=400, users=90, businesses=20, photos=25, negative_share=0.2)


def write(out: Path, settings: Simulate = SMALL, seed: int = 3) -> Path:
    settings = settings.model_copy(update={"seed": seed})
    simulate.main(Namespace(out=out), PARAMS.model_copy(update={"simulate": settings}))
    return out


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture(scope="module")
def default(tmp_path_factory) -> Path:
    """The default world, as `dvc repro` makes it."""
    return write(tmp_path_factory.mktemp("default") / "synthetic", PARAMS.simulate, PARAMS.simulate.seed)


@pytest.fixture(scope="module")
def truth(default):
    return pq.read_table(default / "truth" / "reviews.parquet").to_pandas()


def test_same_seed_same_bytes_and_another_seed_other_bytes(tmp_path):
    first, again, other = write(tmp_path / "a"), write(tmp_path / "b"), write(tmp_path / "c", seed=4)
    assert contents(first) == contents(again)
    assert contents(first)["reviews.jsonl"] != contents(other)["reviews.jsonl"]


def test_an_older_world_is_replaced_whole(tmp_path):
    out = write(tmp_path / "out")
    (out / "left over").write_text("x")
    assert "left over" not in contents(write(out))
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("share", [0.115, 0.3, 0.5])
@pytest.mark.parametrize("seed", [0, 1])
def test_negative_share(share, seed):
    world = simulate_world(np.random.default_rng(seed), reviews=2000, users=300, businesses=40, negative_share=share)
    assert abs((world.rating < 4).mean() - share) < 0.01
    assert set(world.rating) == {1, 2, 3, 4, 5}


def test_smallest_world(tmp_path):
    smallest = Simulate(seed=3, reviews=50, users=5, businesses=5, photos=0, negative_share=0.115)
    found = run(tmp_path, "synthetic", write(tmp_path / "out", smallest))
    assert found.report["records"] == 50


def test_more_users_than_reviews(tmp_path):
    found = run(tmp_path, "synthetic", write(tmp_path / "out", SMALL.model_copy(update={"users": 1000})))
    assert found.report["users"] == 400


def test_ingest_reads_it_and_the_truth_agrees(tmp_path, default, truth):
    found = run(tmp_path, "synthetic", default, photos=default / "photos")
    assert found.rejects == []
    assert [review["user_id"] for review in found.reviews] == truth.user_id.tolist()
    assert [review["rating"] for review in found.reviews] == truth.rating.tolist()
    assert [review["event_timestamp"].timestamp() * 1000 for review in found.reviews] == pytest.approx(truth.time_ms)
    assert found.report["photo_files"] == found.report["captions"] == PARAMS.simulate.photos
    named = {business["business_id"] for business in found.businesses}
    assert {photo["business_id"] for photo in found.photos} <= named


def test_tails_ties_and_repeated_pairs(truth):
    by_user, by_business = truth.groupby("user_id").size(), truth.groupby("business_id").size()
    assert (by_user <= 2).mean() > 0.4
    assert by_user.max() > 30
    assert by_business.max() > 8 * by_business.median()
    assert 0.02 < truth.time_ms.duplicated(keep=False).mean() < 0.15
    pairs = truth.duplicated(["user_id", "business_id"], keep=False).mean()
    assert 0.02 < pairs < 0.2
    assert truth.duplicated(["business_id", "time_ms"], keep=False).sum() > 20


def test_bursts(truth):
    """Somewhere a business has far more reviews in a day than its year would let expect."""
    days = truth.assign(day=truth.time_ms // 86_400_000).groupby(["business_id", "day"]).size()
    assert days.max() >= 8


def test_what_a_history_can_learn(truth):
    """The truth ranks well but not perfectly, and so do plain means of earlier reviews: there is something to learn."""
    ordered = truth.sort_values("time_ms", kind="stable")
    label = (ordered.rating >= 4).astype(float)

    def earlier_mean(key: str) -> np.ndarray:
        count = ordered.groupby(key).cumcount()
        total = label.groupby(ordered[key]).cumsum() - label
        return ((total + 3 * label.mean()) / (count + 3)).to_numpy()

    assert 0.83 < roc_auc_score(label, ordered.expected_utility) < 0.95
    for key in ("user_id", "business_id"):
        assert roc_auc_score(label, earlier_mean(key)) > 0.6
    assert roc_auc_score(label, earlier_mean("user_id") + earlier_mean("business_id")) < 0.9


def test_texts_say_what_the_stars_mean(default):
    reviews = [json.loads(line) for line in (default / "reviews.jsonl").read_text().splitlines()]
    texts = [(review["rating"], review["text"]) for review in reviews if review["text"]]
    words = np.array([len(text.split()) for _, text in texts])
    assert words.min() >= 5
    assert words.max() <= 60
    assert words.std() > 5
    assert len({text for _, text in texts}) > 0.9 * len(texts)
    assert 0.02 < 1 - len(texts) / len(reviews) < 0.06
    own = {stars: [sentence.split("{dish}")[-1] for sentence in FOOD[stars]] + list(CLOSING[stars]) for stars in FOOD}
    assert all(any(piece in text for piece in own[stars]) for stars, text in texts)
    assert set(DISHES) == set(CUISINES)


def test_photos_differ_by_cuisine(default):
    """The mean colours of two cuisines' photos lie apart, or no encoder could tell them."""
    owner = {
        url.split("/p/")[1].split("=")[0]: review["gmap_id"]
        for review in map(json.loads, (default / "reviews.jsonl").read_text().splitlines())
        for pic in review["pics"] or []
        for url in pic["url"]
    }
    businesses = pq.read_table(default / "truth" / "businesses.parquet").to_pandas().set_index("business_id").cuisine
    centres: dict[str, list[np.ndarray]] = {}
    for path in sorted((default / "photos").glob("*.png")):
        with Image.open(path) as image:
            assert image.size == (64, 64)
            centre = np.asarray(image, dtype=float)[16:48, 16:48].mean(axis=(0, 1))
        centres.setdefault(businesses[owner[path.stem]], []).append(centre / centre.sum())
    means = np.array([np.mean(centres[cuisine], axis=0) for cuisine in CUISINES])
    between = means.std(axis=0).max()
    assert between > 0.01
