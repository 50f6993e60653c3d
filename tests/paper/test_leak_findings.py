"""Sentences of the leak: controls are coins as wide as their own rows make them."""

import pytest
from scipy import stats

from pipelines.paper.chance import coin
from tests.paper import made_up
from tests.paper.test_findings import sentences


def line_of(leak, **wanted):
    wanted = {"model": "DLRM", "reads": "numbers"} | wanted
    return next(row for row in leak["backwards"] if all(row[name] == value for name, value in wanted.items()))


def test_controls_that_are_coins_say_so():
    supported = sentences()[0]
    assert "Control, labels permuted: test AUC is 0.510 on 12 lines" in supported
    assert "Control, labels permuted after: untold train rows' AUC is" in supported
    assert supported.count("coins, as must be") == 2


@pytest.mark.parametrize(("labels", "split"), [("permuted", "test"), ("permuted after", "held")])
def test_a_control_that_is_no_coin_is_cried_out(labels, split):
    leak = made_up.leak()
    line_of(leak, labels=labels, features="point_in_time")[f"{split}_auc"] = 0.62
    assert "NO coin: point in time, numbers (DLRM) 0.620 (" in sentences(leak=leak)[0]


def test_a_coin_is_as_wide_as_the_controls_own_rows_make_it():
    """Not as test's of another experiment: what is a leak on many rows is luck on few."""
    leak = made_up.leak()
    row = line_of(leak, labels="permuted", features="pair")
    row["test_auc"] = 0.5 + 0.9 * coin(row["counts"]["test"], row["seeds"])
    assert "NO coin" not in sentences(leak=leak)[0]
    row["counts"] = {split: [10 * n for n in counts] for split, counts in row["counts"].items()}
    assert "NO coin: pair-wise leave-one-out, numbers (DLRM)" in sentences(leak=leak)[0]
    row["counts"] = {split: [n // 100 for n in counts] for split, counts in row["counts"].items()}
    row["test_auc"] = 0.6
    assert "NO coin" not in sentences(leak=leak)[0]


def test_without_counts_nobody_knows_how_wide_a_coin_is():
    leak = made_up.leak()
    for row in leak["backwards"]:
        del row["counts"]
    supported = sentences(leak=leak)[0]
    assert supported.count("(a coin: 0.5 ± n/a by luck of the rows): how wide a coin is, is not known of all.") == 2
    assert "coins, as must be" not in supported and "NO coin" not in supported


def test_without_untold_rows_train_and_test_stand_beside_each_other():
    leak = made_up.leak()
    assert "AUC from numbers (DLRM)" not in sentences(leak=leak)[0]
    for row in leak["backwards"]:
        del row["held_auc"]
    half = stats.t.ppf(0.975, 2) * 0.01 / 3**0.5
    text = f"AUC from numbers (DLRM): pair-wise leave-one-out 0.940 ({0.94 - half:.3f} to {0.94 + half:.3f}) on train, "
    assert f"{text}0.640 (" in sentences(leak=leak)[0]


def test_point_in_time_without_instants_says_why():
    leak = made_up.leak()
    for row in leak["backwards"]:
        if row["features"] == "point_in_time":
            row |= made_up.nothing(row) | {"why": "the source has no instants"}
    supported, unsupported = sentences(leak=leak)
    assert unsupported.count("What point in time features carry of the label: the source has no instants.") == 1
    assert "on 8 lines" in supported
