"""Sentences of the sweep: intervals are over seeds, and what flatters is apart from what a criterion does."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from pipelines.paper.sweep_findings import flattery, model_gap, pairs_of
from tests.paper import made_up
from tests.paper.test_findings import sentences


def moved(sweep, **by):
    """The same sweep, proposed's validation-selected test figures moved."""
    for run in sweep["runs"]:
        if run["model"] == "proposed":
            for figure, amount in by.items():
                run["validation_selected"]["test"][figure] += amount
    return sweep


def test_a_lower_fpr_at_a_lower_tpr_is_a_moved_threshold():
    assert "where the threshold stands; a better ranking does not show" in sentences()[0]


def test_a_lower_fpr_at_one_tpr_is_a_better_ranking():
    supported = sentences(sweep=moved(made_up.sweep(), fpr_at_tpr_90=-0.1))[0]
    assert "The proposed model ranks better there." in supported
    supported = sentences(sweep=moved(made_up.sweep(), fpr_at_tpr_90=0.1))[0]
    assert "The baseline model ranks better there." in supported


def over_seeds(figures):
    """(mean, low, high) of (seed, value)s, the obvious way: a mean a seed, then Student's interval of these."""
    means = pd.DataFrame(figures, columns=["seed", "value"]).groupby("seed")["value"].mean()
    return means.mean(), *stats.t.interval(0.95, len(means) - 1, means.mean(), stats.sem(means))


def test_what_the_choice_of_the_set_flatters_is_apart_from_what_the_criterion_does():
    runs = made_up.sweep()["runs"]
    fpr = {name: [run[name]["test"]["fpr"] for run in runs]
           for name in ("test_selected", "validation_fpr_selected", "validation_selected")}  # fmt: skip
    for run, least, honest in zip(runs, fpr["test_selected"], fpr["validation_fpr_selected"], strict=True):
        run["seed"] = run["seed"] + 7
        assert honest != least
    steps = []
    for one, other in (
        ("validation_fpr_selected", "test_selected"),
        ("validation_selected", "validation_fpr_selected"),
    ):
        figures = [(run["seed"], a - b) for run, a, b in zip(runs, fpr[one], fpr[other], strict=True)]
        steps.append([f"{100 * value:.1f}" for value in over_seeds(figures)])
    (found,) = flattery(runs)
    (gap, low, high), (moved, below, above) = steps
    assert found.told
    assert f"shows a test FPR {gap} points ({low} to {high}) below what choosing by the FPR of validation" in found.text
    assert f"the test FPR moves by +{moved} points ({below} to {above})" in found.text
    assert "mean of 5 seeds, 60 runs" in found.text


def test_without_epochs_of_least_validation_fpr_nobody_knows_what_flatters():
    sweep = made_up.sweep()
    for run in sweep["runs"]:
        del run["validation_fpr_selected"]
    assert list(flattery(sweep["runs"])) == []
    assert "Choosing the epoch" not in "\n".join(sentences(sweep=sweep))


def test_flattery_that_luck_can_make_is_not_told():
    sweep = made_up.sweep(repeats=2)
    for run in sweep["runs"]:  # one seed's large, the other's nothing
        fpr = run["test_selected"]["test"]["fpr"]
        run["validation_fpr_selected"]["test"]["fpr"] = fpr + 0.1 * run["seed"]
    (found,) = flattery(sweep["runs"])
    assert not found.told
    assert "flatters: 5.0 points of test FPR (−58.5 to 68.5; mean of 2 seeds" in found.text


def test_the_six_runs_of_one_seed_are_no_repeats_of_each_other():
    """They share initial weights and batches: an effect of the seed that is common to them is luck of one draw."""
    runs = made_up.sweep()["runs"]
    luck = np.random.default_rng(1).normal(0, 0.05, 5)
    for run in runs:
        if run["model"] == "proposed":
            run["validation_selected"]["test"]["fpr"] += luck[run["seed"]]
    gap = model_gap(pairs_of(runs), "fpr")
    theirs = {(run["class_weights"], run["dropout"], run["seed"]): run for run in runs if run["model"] == "baseline"}
    figures = [
        (run["seed"], run["validation_selected"]["test"]["fpr"]
         - theirs[run["class_weights"], run["dropout"], run["seed"]]["validation_selected"]["test"]["fpr"])
        for run in runs if run["model"] == "proposed"
    ]  # fmt: skip
    assert len(figures) == 30
    assert [gap[name] for name in ("mean", "low", "high")] == pytest.approx(over_seeds(figures))
    assert gap["n"] == 5
    naive = stats.t.interval(0.95, 29, 0, stats.sem([value for _, value in figures]))
    assert gap["high"] - gap["low"] > 2 * (naive[1] - naive[0])


def test_runs_are_paired_by_their_seed_wherever_they_stand():
    runs = made_up.sweep()["runs"]
    expected = model_gap(pairs_of(runs), "fpr")
    mixed = [runs[i] for i in np.random.default_rng(0).permutation(len(runs))]
    assert model_gap(pairs_of(mixed), "fpr") == pytest.approx(expected)
    alone = [run for run in runs if (run["model"], run["seed"]) != ("baseline", 3)]
    assert len(pairs_of(alone)) == 24 and model_gap(pairs_of(alone), "fpr")["n"] == 4
