"""Sentences that follow the numbers: what the data support, and what they do not."""

import pytest

from pipelines.paper.findings import above_floors, all_findings, differences, in_short
from pipelines.paper.pictures import ablation as ablation_picture
from tests.paper import made_up

RANDOM = {"image_weights": "random", "summaries": "extractive"}


def sentences(compare=None, sweep=None, leak=None, made_with=RANDOM):
    """(what is supported, what is not), each as one text."""
    supported, unsupported = all_findings(
        compare or made_up.compare(), sweep or made_up.sweep(), leak or made_up.leak(), made_with
    )
    return "\n".join(text for texts in supported.values() for text in texts), "\n".join(unsupported)


def one_pair(metric, difference, low, high, rows="all"):
    pair = {"a": "proposed", "b": "baseline", "rows": rows, "metric": metric}
    return made_up.compare() | {"paired": [pair | {"difference": difference, "low": low, "high": high}]}


@pytest.mark.parametrize(
    ("metric", "difference", "low", "high", "word"),
    [
        ("auc", 0.02, 0.01, 0.03, "better"),
        ("auc", -0.02, -0.03, -0.01, "worse"),
        ("log_loss", -0.02, -0.03, -0.01, "better"),
        ("fpr_at_tpr_90", 0.02, 0.01, 0.03, "worse"),
    ],
)
def test_an_interval_without_0_is_a_finding(metric, difference, low, high, word):
    found = list(differences(one_pair(metric, difference, low, high)))
    assert [one.told for one in found] == [True]
    assert found[0].text.startswith(f"Proposed is {word} than baseline: ")
    sign = "+" if difference > 0 else "−"
    assert f"{sign}0.020 ({low:.3f} to {high:.3f})".replace("-", "−") in found[0].text


def test_an_interval_that_holds_0_is_none():
    found = list(differences(one_pair("auc", 0.02, -0.01, 0.05)))
    assert [one.told for one in found] == [False]
    assert "AUC +0.020 (−0.010 to 0.050)" in found[0].text
    supported, unsupported = sentences(one_pair("auc", 0.02, -0.01, 0.05))
    assert found[0].text in unsupported and found[0].text not in supported


def test_the_variant_that_validation_prefers_stands_against_the_floors():
    compare = made_up.compare()
    best = compare["ablation"][3]
    best["validation_log_loss_of_mean"] = 0.1
    best["against"] = {
        "logistic": {"auc": 0.006, "low": -0.002, "high": 0.014},
        "gradient_boosting": {"auc": 0.03, "low": 0.02, "high": 0.04},
    }
    (silent,) = above_floors(compare)
    assert not silent.told
    assert "of 9 groups of features tried, validation prefers numbers and tags (log loss 0.1000 there)" in silent.text
    assert "on test the AUC of the mean of 5 networks differs from" in silent.text
    assert "logistic regression by +0.006 (−0.002 to 0.014), gradient boosting by +0.030" in silent.text
    # 1,501 rows x (0.008 / 0.006)^2
    assert "1,501 test rows 109 are cold" in silent.text
    assert "from about 2,700 such rows on" in silent.text
    best["against"]["logistic"]["low"] = 0.001
    (told,) = above_floors(compare)
    assert told.told
    best["against"]["logistic"] = {"auc": -0.01, "low": -0.02, "high": -0.001}
    (worse,) = above_floors(compare)
    assert not worse.told
    assert "such rows on" not in worse.text


def test_a_floor_without_an_auc_is_not_outdone():
    compare = made_up.compare()
    compare["ablation"][-1]["against"] = {floor: {"auc": None, "low": None, "high": None}
                                          for floor in ("logistic", "gradient_boosting")}  # fmt: skip
    assert list(above_floors(compare)) == []


def test_what_the_data_have_none_of_is_no_finding_and_said_once():
    compare = made_up.without_data(made_up.compare(), "numbers+captions", "numbers+image")
    compare["data"] = compare["data"] | {"source": "zomato"}
    supported, unsupported = sentences(compare)
    assert unsupported.count("Anything about what captions and image would add: these data have none.") == 1
    assert "weights are random" not in unsupported
    assert "summaries +0.0" in supported + unsupported
    for absent in ("captions", "image"):
        assert f"{absent} +" not in supported + unsupported and f"{absent} n/a" not in supported + unsupported
    assert "Each of the ablation's 6 intervals" in unsupported
    assert "of 7 groups of features tried" in supported + unsupported
    drawn = ablation_picture(compare).alt
    assert "captions" not in drawn and "image" not in drawn and "tags" in drawn


def test_no_interval_is_no_finding():
    assert [one.told for one in differences(one_pair("auc", 0.02, None, None))] == [False]


def test_simulated_data_prove_mechanics_alone():
    assert "synthetic data prove mechanics, never quality" in sentences()[1]
    real = made_up.compare()
    real["data"] = real["data"] | {"source": "zomato"}
    assert "never quality" not in sentences(real)[1]


def test_random_image_weights_and_extractive_summaries_are_named():
    unsupported = sentences()[1]
    assert "weights are random" in unsupported and "no model wrote them" in unsupported
    unsupported = sentences(made_with={"image_weights": "imagenet", "summaries": "gpt-4o-mini"})[1]
    assert "weights are random" not in unsupported and "other than gpt-4o-mini" in unsupported


def test_few_disliked_places_bound_an_fpr():
    assert "of 169 disliked test places, a share of a half is known to ± 7.5 %" in sentences()[1]


def test_missing_and_few_rows_are_named():
    compare = made_up.compare()
    for model in compare["models"].values():
        model["rows"]["warm"] = {"auc": None, "n": 0}
    unsupported = sentences(compare)[1]
    assert "Any figure of warm rows: there are none." in unsupported
    assert "Fine differences on cold rows: there are 109." in unsupported


def test_a_threshold_without_enough_disliked_places():
    compare = made_up.compare()
    compare["models"]["proposed"]["threshold"] |= {"threshold": None, "negatives": 12, "needed": 29}
    supported, unsupported = sentences(compare)
    assert "it needs 29 disliked places in validation, where there are 12" in unsupported
    assert "Recommending above 0.950, baseline holds FPR at 10 % with 95 % confidence" in supported


def test_what_a_threshold_promises_is_under_a_condition():
    supported = sentences()[0]
    promises = [line for line in supported.splitlines() if line.startswith("Recommending above")]
    assert len(promises) == 2
    for promise in promises:
        assert "above the promise" not in promise
        for word in (
            "exchangeable",
            "rows are independent",
            "no epoch was chosen on the same rows (the networks' was)",
        ):
            assert word in promise


def test_a_promise_that_test_breaks_says_so():
    compare = made_up.compare()
    compare["models"]["proposed"]["threshold"]["test_fpr"] = 0.2
    assert "an FPR of 20.0 %, above the promise" in sentences(compare)[0]


def test_in_short_speaks_of_the_claim_the_floors_and_the_leak():
    short = "\n".join(in_short(made_up.compare(), made_up.sweep(), made_up.leak()))
    for word in ("baseline", "logistic regression", "gradient boosting", "points", "A leak is worth"):
        assert word in short
    untold = in_short(one_pair("auc", 0.02, -0.01, 0.05), made_up.sweep(), made_up.leak())
    assert untold[0].startswith("These data do not tell whether proposed or baseline is better: AUC +0.020")


@pytest.mark.parametrize("preferred", ["proposed", "baseline"])
def test_in_short_the_network_that_validation_prefers_stands_against_the_floors(preferred):
    """Whichever is better on test."""
    compare = made_up.compare()
    for row in compare["ablation"]:
        row["validation_log_loss_of_mean"] = {preferred: 0.25, "everything": 0.1}.get(row["name"], 0.3)
    text = "\n".join(in_short(compare, made_up.sweep(), made_up.leak())).lower()
    other = {"proposed": "baseline", "baseline": "proposed"}[preferred]
    assert f"{preferred} is better than gradient boosting" in text
    assert f"{other} is better than gradient boosting" not in text
    assert f"{other} or logistic" not in text
