"""Membership: by ids and instants alone, whole pairs, everyone known in train."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.core.errors import UserError
from pipelines.core.params import Split
from pipelines.split import hash_pairs, split_reviews, without_singles

# What version 1 of the hash gives for sixteen pairs and seed 7.
PINNED_SPLITS = "tvtttttttttvtttt"
PINNED_FOLDS = [2, 2, 3, 1, 1, 4, 3, 3, 0, 0, 0, 1, 3, 4, 4, 2]

SPLIT = Split(seed=7, test_share=0.25, validation_share=0.2, folds=5)


def reviews_of(pairs: list[tuple[int, int]], hours: list[int] | None = None) -> pd.DataFrame:
    start = datetime(2020, 1, 1, tzinfo=UTC)
    instants = [start + timedelta(hours=int(h)) for h in hours] if hours else [pd.NaT] * len(pairs)
    return pd.DataFrame(
        {
            "review_id": [f"r{i:05}" for i in range(len(pairs))],
            "user_id": [f"u{u}" for u, _ in pairs],
            "business_id": [f"b{b}" for _, b in pairs],
            "event_timestamp": pd.Series(instants, dtype="datetime64[us, UTC]"),
        }
    )


def random_reviews(rows: int, users: int, businesses: int, seed: int = 0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    pairs = list(zip(random.integers(0, users, rows), random.integers(0, businesses, rows), strict=True))
    return reviews_of(pairs, list(random.integers(0, rows, rows)))


def test_shares_by_time():
    reviews = random_reviews(4000, 300, 80)
    rows = reviews.merge(split_reviews(reviews, "point_in_time", SPLIT), on="review_id")
    shares = rows["split"].value_counts(normalize=True)
    assert shares["test"] == pytest.approx(0.25, abs=0.005)
    assert shares["validation"] == pytest.approx(0.15, abs=0.005)
    span = rows.groupby("split")["event_timestamp"].agg(["min", "max"])
    assert span.loc["train", "max"] < span.loc["validation", "min"]
    assert span.loc["validation", "max"] < span.loc["test", "min"]
    assert len(rows) == len(reviews)


def test_shares_by_pair_and_everyone_is_known_in_train():
    reviews = random_reviews(4000, 300, 80)
    rows = reviews.merge(split_reviews(reviews, "leave_one_out", SPLIT), on="review_id")
    shares = rows["split"].value_counts(normalize=True)
    assert shares["test"] == pytest.approx(0.25, abs=0.005)
    assert shares["validation"] == pytest.approx(0.15, abs=0.005)
    train = rows[rows["split"] == "train"]
    for key in ("user_id", "business_id"):
        assert set(rows[key]) == set(train[key])
    assert (rows.groupby(["user_id", "business_id"])[["split", "fold"]].nunique() == 1).all(axis=None)
    assert rows["fold"].value_counts(normalize=True).between(0.15, 0.25).all()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=40))
def test_without_singles_equals_the_obvious(pairs):
    left = list(enumerate(pairs))
    while True:
        users, businesses = [u for _, (u, _) in left], [b for _, (_, b) in left]
        kept = [(i, (u, b)) for i, (u, b) in left if users.count(u) > 1 and businesses.count(b) > 1]
        if kept == left:
            break
        left = kept
    found = without_singles(reviews_of(pairs))
    assert list(found["review_id"]) == [f"r{i:05}" for i, _ in left]


@pytest.mark.parametrize("protocol", ["point_in_time", "leave_one_out"])
def test_the_order_of_rows_decides_nothing_and_the_seed_does(protocol):
    reviews = random_reviews(500, 40, 20)
    first = split_reviews(reviews, protocol, SPLIT)
    again = split_reviews(reviews.sample(frac=1, random_state=1), protocol, SPLIT)
    pd.testing.assert_frame_equal(first, again)
    other = split_reviews(reviews, protocol, SPLIT.model_copy(update={"seed": 8}))
    assert not first["fold"].equals(other["fold"])


def test_a_cut_never_goes_through_an_instant():
    reviews = reviews_of([(i, i % 3) for i in range(40)], [i // 7 for i in range(40)])
    rows = reviews.merge(split_reviews(reviews, "point_in_time", SPLIT), on="review_id")
    assert (rows.groupby("event_timestamp")["split"].nunique() == 1).all()


def test_membership_is_pinned():
    """A hash that changed between versions or machines would move rows between train and test."""
    reviews = reviews_of([(u, b) for u in range(4) for b in range(4)])
    rows = split_reviews(reviews, "leave_one_out", SPLIT)
    assert "".join(rows["split"].str[0]) == PINNED_SPLITS
    assert list(rows["fold"]) == PINNED_FOLDS


def test_refusals():
    with pytest.raises(UserError, match="3 of 3 reviews have no instant; a source without instants knows only `proto"):
        split_reviews(reviews_of([(0, 0), (1, 1), (2, 2)]), "point_in_time", SPLIT)
    with pytest.raises(UserError, match="no row for train, validation, test among 0 of 3 reviews under leave_one_out"):
        split_reviews(reviews_of([(0, 0), (1, 1), (2, 2)]), "leave_one_out", SPLIT)
    with pytest.raises(UserError, match="no row for train, validation among 5 of 5 reviews under point_in_time"):
        split_reviews(reviews_of([(i, 0) for i in range(5)], [3] * 5), "point_in_time", SPLIT)


def test_ids_that_joined_would_be_alike_stay_apart():
    users, businesses = pd.Series(["a", "a\nb", "a\\nb"]), pd.Series(["b\nc", "c", "c"])
    assert len(set(hash_pairs(users, businesses, 7, "split"))) == 3
