"""What a review may see: specified by small tables, proved by the obvious twin on random histories."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.core.feature_rows import whole_entities
from pipelines.core.visibility import VECTOR_UNIT, mean_of, quantise, sums_by
from pipelines.obvious import FEATURES, Obvious, same
from pipelines.perturbed import fast_features, original_name, perturbed_worlds, surroundings
from tests.histories import rule_of, shuffled, world_of, worlds

# review user business stars hour split, then what it may see: of its user, of its business.
POINT_IN_TIME = {
    "a first review sees nothing": """
        r1 ann cafe 5 0 train | -     | -
    """,
    "a later review sees the earlier ones, of its user and of its business": """
        r1 ann cafe 5 0 train | -     | -
        r2 ann deli 3 1 train | r1    | -
        r3 bob cafe 1 2 train | -     | r1
        r4 ann cafe 2 3 test  | r1 r2 | r1 r3
    """,
    "a tie sees nothing of each other": """
        r1 ann cafe 5 0 train | -  | -
        r2 ann deli 3 1 train | r1 | -
        r3 ann cafe 1 1 train | r1 | r1
    """,
    "two reviews of one pair: the later sees the earlier": """
        r1 ann cafe 5 0 train | -  | -
        r2 ann cafe 1 1 train | r1 | r1
    """,
    "two reviews of one pair at one instant see nothing": """
        r1 ann cafe 5 0 train | - | -
        r2 ann cafe 1 0 train | - | -
    """,
    "everything at one instant: nobody sees anything": """
        r1 ann cafe 5 7 train      | - | -
        r2 bob cafe 1 7 validation | - | -
        r3 ann deli 3 7 test       | - | -
    """,
    "a test row sees test rows before it: time decides, not the split": """
        r1 ann cafe 5 0 train | -     | -
        r2 ann deli 3 1 test  | r1    | -
        r3 ann cafe 1 2 test  | r1 r2 | r1
    """,
    "the order of rows in the file decides nothing": """
        r3 ann cafe 1 2 test  | r1 r2 | r1
        r1 ann cafe 5 0 train | -     | -
        r2 ann deli 3 1 train | r1    | -
    """,
}
LEAVE_ONE_OUT = {
    "a user with one review sees nothing of it": """
        r1 ann cafe 5 0 train | - | -
    """,
    "the future is seen, the own pair is not": """
        r1 ann cafe 5 0 train | r2 | r3
        r2 ann deli 3 1 train | r1 | -
        r3 bob cafe 1 2 train | -  | r1
    """,
    "two reviews of one pair see neither each other nor themselves": """
        r1 ann cafe 5 0 train | r3    | -
        r2 ann cafe 1 1 train | r3    | -
        r3 ann deli 3 2 train | r1 r2 | -
    """,
    "a test or validation row sees the whole training set and nothing else": """
        r1 ann cafe 5 0 train      | r2    | -
        r2 ann deli 3 1 train      | r1    | -
        r3 ann diner 1 2 test      | r1 r2 | -
        r4 ann bar 1 3 validation  | r1 r2 | -
        r5 bob cafe 4 3 test       | -     | r1
    """,
    "everything at one instant: instants decide nothing": """
        r1 ann cafe 5 7 train | r3 | r2
        r2 bob cafe 1 7 train | -  | r1
        r3 ann deli 3 7 train | r1 | -
    """,
}


def parse(table: str):
    rows, seen = [], {}
    for line in table.strip().splitlines():
        review, of_user, of_business = (part.split() for part in line.split("|"))
        name, user, business, stars, hour, split = review
        rows.append((name, user, business, float(stars), int(hour), split, 0, True))
        seen[name] = {"user": set(of_user) - {"-"}, "business": set(of_business) - {"-"}}
    return world_of(rows), seen


@pytest.mark.parametrize(
    ("protocol", "title"),
    [("point_in_time", t) for t in POINT_IN_TIME] + [("leave_one_out", t) for t in LEAVE_ONE_OUT],
)
def test_specification(protocol, title):
    world, seen = parse((POINT_IN_TIME if protocol == "point_in_time" else LEAVE_ONE_OUT)[title])
    ids = list(world.members["review_id"])
    stars = dict(zip(ids, world.members["rating"], strict=True))
    vector = dict(zip(ids, world.vectors["text"].values, strict=True))
    made = fast_features(world, world.members, rule_of(protocol))
    for review_id in ids:
        for entity in ("user", "business"):
            expected, found = sorted(seen[review_id][entity]), made[review_id]
            where = f"{title}: {review_id}, {entity}"
            assert found[f"{entity}_history__review_count"] == len(expected), where
            if not expected:
                assert found[f"{entity}_history__rating_mean"] is None, where
                assert found[f"{entity}_text__embedding"] is None, where
                continue
            assert found[f"{entity}_history__rating_mean"] == np.mean([stars[i] for i in expected]), where
            mean = np.mean([vector[i].astype(np.float64) for i in expected], axis=0) / VECTOR_UNIT
            np.testing.assert_allclose(found[f"{entity}_text__embedding"], mean, rtol=1e-6, err_msg=where)


def test_a_fold_is_left_out_whole():
    world = world_of(
        [
            ("r1", "ann", "cafe", 5.0, 0, "train", 0, True),
            ("r2", "ann", "deli", 3.0, 1, "train", 0, True),
            ("r3", "ann", "bar", 1.0, 2, "train", 1, True),
            ("r4", "ann", "pub", 1.0, 2, "test", 0, True),
        ]
    )
    made = fast_features(world, world.members, rule_of("leave_one_out", "fold"))
    counts = [made[f"r{i}"]["user_history__review_count"] for i in (1, 2, 3, 4)]
    assert counts == [1, 1, 2, 3]  # r4 is no training row: it sees its own fold too


MODES = st.sampled_from([("point_in_time", "pair"), ("leave_one_out", "pair"), ("leave_one_out", "fold")])


@settings(max_examples=40, deadline=None)
@given(worlds(), MODES, st.integers(0, 99))
def test_fast_equals_obvious_whatever_the_order(world, mode, seed):
    obvious = Obvious(world, rule_of(*mode))
    mixed = shuffled(world, seed)
    made = fast_features(mixed, mixed.members, rule_of(*mode))
    for review_id in world.members["review_id"]:
        expected = obvious.features(review_id)
        for name in FEATURES:
            assert same(expected[name], made[review_id][name]), (review_id, name, expected[name], made[review_id][name])


@settings(max_examples=15, deadline=None)
@given(worlds(), MODES)
def test_what_a_review_must_not_see_moves_no_bit_of_it(world, mode):
    rule = rule_of(*mode)
    before = fast_features(world, world.members, rule)
    ids = list(world.members["review_id"])
    copies = surroundings(Obvious(world, rule), ids)
    for done, changed in perturbed_worlds(copies, rule.protocol):
        after = fast_features(changed, copies.asked, rule, name_of=original_name)
        for number, review_id in enumerate(ids):
            for name in FEATURES:
                assert same(before[review_id][name], after[f"{number}:{review_id}"][name]), (done, review_id, name)


def test_half_stars_and_long_histories_are_exact():
    rows = [(f"r{i:03}", "ann", f"b{i}", 1 + (i % 9) / 2, i, "train", 0, i % 3 > 0) for i in range(200)]
    world = world_of(rows)
    made = fast_features(world, world.members, rule_of("point_in_time"))
    ratings = [row[3] for row in rows[:-1]]
    assert made["r199"]["user_history__rating_mean"] == sum(ratings) / len(ratings)
    assert made["r199"]["user_history__rating_std"] == pytest.approx(np.std(ratings), abs=1e-12)
    assert made["r199"]["user_history__rating_trend"] == pytest.approx(np.mean(ratings[-10:]) - np.mean(ratings))


def test_pieces_hold_whole_entities():
    key = np.array([2, 0, 1, 1, 0, 1, 3, 3])
    pieces = [list(key[rows]) for rows in whole_entities(key, size=3)]
    assert pieces == [[0, 0], [1, 1, 1], [2, 3, 3]]
    assert [list(key[rows]) for rows in whole_entities(key, size=1)] == [[0, 0], [1, 1, 1], [2], [3, 3]]


def test_sums_and_means():
    values = np.array([[1], [2], [4]], np.int32)
    np.testing.assert_array_equal(sums_by(np.array([2, 0, 2]), values, 4), [[2], [0], [5], [0]])
    np.testing.assert_array_equal(quantise(np.array([[1.0, -0.5]], np.float32)), [[VECTOR_UNIT, -VECTOR_UNIT // 2]])
    np.testing.assert_array_equal(mean_of(np.array([[VECTOR_UNIT], [0]]), np.array([2, 0])), [[0.5], [0.0]])


def test_ratings_finer_than_a_hundredth_are_rounded_alike():
    """An eighth ends on a half of a hundredth, where Python's and SQL's rounding part."""
    rows = [(f"r{i}", "ann", f"b{i}", stars, i, "train", 0, True) for i, stars in enumerate([1.125, 3.375, 4.125, 2])]
    world = world_of(rows)
    made = fast_features(world, world.members, rule_of("point_in_time"))
    expected = Obvious(world, rule_of("point_in_time")).features("r3")
    assert made["r3"]["user_history__rating_mean"] == expected["user_history__rating_mean"] == (113 + 338 + 413) / 300
