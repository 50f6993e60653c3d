"""The report: sentences that follow the numbers, and a page that stands alone."""

import argparse
import copy
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from pipelines.core.errors import UserError
from pipelines.paper import report
from pipelines.paper.findings import above_floors, all_findings, differences, in_short
from pipelines.paper.leak_findings import coin_width
from tests.paper import made_up
from tests.params import ROOT, params_with

RANDOM = {"image_weights": "random", "summaries": "extractive"}
ALONE = {"br", "meta", "img", "link", "hr", "input"}


def inputs():
    language = json.loads((ROOT / "results/language.json").read_text())
    return {
        "sweep": made_up.sweep(),
        "compare": made_up.compare(),
        "leak": made_up.leak(),
        "language": language,
        "metrics": made_up.metrics(),
        "leaks": made_up.leaks(),
    }


@pytest.fixture(scope="module")
def params(tmp_path_factory):
    return params_with(tmp_path_factory.mktemp("params"))


@pytest.fixture(scope="module")
def html(params):
    return report.page(inputs(), params)


class Page(HTMLParser):
    """Every element in its place; what pictures, tables and links say."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements = [], []
        self.feed(text)
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in ALONE:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes another"

    def of(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]


def sentences(compare=None, sweep=None, leak=None, made_with=RANDOM):
    """(what is supported, what is not), each as one text."""
    supported, unsupported = all_findings(
        compare or made_up.compare(), sweep or made_up.sweep(), leak or made_up.leak(), made_with
    )
    return "\n".join(text for texts in supported.values() for text in texts), "\n".join(unsupported)


# --- the page --------------------------------------------------------------------------------------------------------


def test_the_page_stands_alone(html):
    page = Page(html)
    assert not page.of("script") and not page.of("link") and not page.of("iframe")
    assert all(image["src"].startswith("data:image/") for image in page.of("img"))
    assert all(link["href"].startswith("#") for link in page.of("a"))
    assert "url(" not in html and "@import" not in html
    assert len(html.encode()) < 1.5e6


def test_links_lead_somewhere(html):
    page = Page(html)
    names = {attrs["id"] for _, attrs in page.elements if "id" in attrs}
    assert {link["href"][1:] for link in page.of("a")} <= names


def test_every_picture_says_what_it_shows(html):
    alts = [image["alt"] for image in Page(html).of("img")]
    assert len(alts) == 11
    auc = made_up.compare()["models"]["proposed"]["rows"]["all"]["auc"]
    assert f"proposed: {auc:.3f} (" in alts[0]
    assert all(re.search(r"\d\.\d|\d %|\d\N{NO-BREAK SPACE}%", alt) for alt in alts), "a figure in each"


def test_every_table_has_headers_and_a_name(html):
    page = Page(html)
    assert len(page.of("table")) > 12
    assert all(table["aria-label"] for table in page.of("table"))
    assert all("scope" in head for head in page.of("th"))


def test_same_inputs_same_bytes(html, params):
    assert report.page(inputs(), params) == html


def test_no_page_changes_its_inputs(params):
    content = inputs()
    content["compare"]["paired_ranking"] = [
        {"a": "proposed", "b": "baseline", "metric": "ndcg_at_10", "difference": 0.1, "low": 0.05, "high": 0.15}
    ]
    before = copy.deepcopy(content)
    assert "NDCG@10 +0.100 (0.050 to 0.150)" in report.page(content, params)
    assert content == before


def test_what_is_selected_on_the_test_set_says_so(html):
    assert html.count("selected on the test set</th>") == 3
    sweep = next(image["alt"] for image in Page(html).of("img") if "mean FPR" in image["alt"])
    assert "selected on the test set" in sweep
    assert "SELECTED ON THE TEST SET" not in html


def test_a_served_model_that_was_selected_on_the_test_set_says_so(tmp_path):
    html = report.page(inputs(), params_with(tmp_path, selection="paper", networks=5))
    assert "proposed, networks: 5, SELECTED ON THE TEST SET" in html


def test_figures_that_are_null_are_na(params):
    content = {name: made_up.nothing(one) for name, one in inputs().items()}
    for model in content["compare"]["models"].values():
        model["curves"] = {"roc": [], "calibration": []}
    html = report.page(content, params)
    Page(html)
    assert html.count("n/a") > 100
    assert not re.search(r"\bNone\b|\bnan\b|\bNaN\b", re.sub(r'src="[^"]*"', "", html))


def test_no_rows_no_pairs_no_seeds_no_ranking(params):
    content = inputs()
    for model in content["compare"]["models"].values():
        model |= {"ranking": None, "seeds": [], "curves": {"roc": [], "calibration": []}, "threshold": None}
        model["rows"]["warm"] = {"auc": None, "n": 0}
    content["compare"] |= {"paired": [], "ablation": []}
    content["leak"] |= {"leak": [], "backwards": [], "explains": None, "alone": None}
    content["sweep"] |= {"runs": []}
    content |= {"language": {}, "metrics": {}, "leaks": {}}
    Page(report.page(content, params))


def test_hostile_names_are_text(params):
    content = inputs()
    content["leak"]["explains"]["words"] = ["<script>alert(1)</script>"]
    assert not Page(report.page(content, params)).of("script")


# --- sentences -------------------------------------------------------------------------------------------------------


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
    best["validation_log_loss"] = 0.1
    best["against"] = {
        "logistic": {"auc": 0.006, "low": -0.002, "high": 0.014},
        "gradient_boosting": {"auc": 0.03, "low": 0.02, "high": 0.04},
    }
    (silent,) = above_floors(compare)
    assert not silent.told
    assert "of 9 groups of features tried, validation prefers numbers and tags (log loss 0.1000 there)" in silent.text
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


def test_a_promise_that_test_breaks_says_so():
    compare = made_up.compare()
    compare["models"]["proposed"]["threshold"]["test_fpr"] = 0.2
    assert "an FPR of 20.0 %, above the promise" in sentences(compare)[0]


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


def test_what_selection_on_test_flatters_is_the_mean_over_runs():
    runs = made_up.sweep()["runs"]
    gaps = [run["validation_selected"]["test"]["fpr"] - run["test_selected"]["test"]["fpr"] for run in runs]
    assert f"an FPR {100 * np.mean(gaps):.1f} points (" in sentences()[0]


def line_of(leak, **wanted):
    wanted = {"model": "DLRM", "reads": "numbers"} | wanted
    return next(row for row in leak["backwards"] if all(row[name] == value for name, value in wanted.items()))


def test_controls_that_are_coins_say_so():
    supported = sentences()[0]
    assert "Control, labels permuted: test AUC is 0.510 to 0.510 on 12 lines" in supported
    assert "Control, labels permuted after: untold train rows' AUC is" in supported
    assert supported.count("coins, as must be") == 2


@pytest.mark.parametrize(("labels", "split"), [("permuted", "test"), ("permuted after", "held")])
def test_a_control_that_is_no_coin_is_cried_out(labels, split):
    leak = made_up.leak()
    line_of(leak, labels=labels, features="point_in_time")[f"{split}_auc"] = 0.62
    assert "NO coin: point in time, numbers (DLRM) 0.620 (" in sentences(leak=leak)[0]


def test_permutations_that_differ_widely_allow_a_distance():
    leak = made_up.leak()
    line_of(leak, labels="permuted", features="pair").update(test_auc=0.58, test_std=0.1)
    assert "NO coin" not in sentences(leak=leak)[0]


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


def test_a_coins_width_is_that_of_random_scores():
    random = np.random.default_rng(3)
    labels = np.arange(1000) < 880
    aucs = [roc_auc_score(labels, random.random(1000)) for _ in range(800)]
    data = {"rows": {"test": 1000}, "negative_share": {"test": 0.12}}
    assert coin_width(data) == pytest.approx(1.96 * np.std(aucs), rel=0.1)
    assert coin_width(None) == 0.02


def test_in_short_speaks_of_the_claim_the_floors_and_the_leak():
    short = "\n".join(in_short(made_up.compare(), made_up.sweep(), made_up.leak()))
    for word in ("baseline", "logistic regression", "gradient boosting", "points", "A leak is worth"):
        assert word in short
    untold = in_short(one_pair("auc", 0.02, -0.01, 0.05), made_up.sweep(), made_up.leak())
    assert untold[0].startswith("These data do not tell whether proposed or baseline is better: AUC +0.020")


# --- the stage -------------------------------------------------------------------------------------------------------


def written(folder, **changed):
    paths = {}
    for name, content in (inputs() | changed).items():
        paths[name] = folder / f"{name}.json"
        paths[name].write_text(content if isinstance(content, str) else json.dumps(content))
    return argparse.Namespace(**paths, out=folder / "report.html")


def test_the_stage_writes_the_page(tmp_path, params, html):
    args = written(tmp_path)
    report.main(args, params)
    assert args.out.read_text() == html


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"sweep": "{"}, "sweep.json: not JSON"),
        ({"compare": []}, "compare.json: holds a list, wanted an object"),
        ({"leak": {"leak": []}}, "leak.json: has no `backwards`"),
        (
            {"sweep": {"runs": [], "data": {"protocol": "leave_one_out"}}},
            "is of protocol leave_one_out, params.yaml says",
        ),
        ({"sweep": {"runs": [], "data": {"rows": {"test": 7}}}}, "sweep.json: has rows {'test': 7}, "),
    ],
)
def test_inputs_of_no_use_are_refused_in_one_line(tmp_path, params, changed, message):
    args = written(tmp_path, **changed)
    with pytest.raises(UserError, match=re.escape(message)) as error:
        report.main(args, params)
    assert "make paper" in str(error.value) and "\n" not in str(error.value)
    assert not args.out.exists()


def test_a_missing_input_is_named(tmp_path, params):
    args = written(tmp_path)
    args.leak.unlink()
    with pytest.raises(UserError, match=r"leak\.json: no such file; run `make paper`"):
        report.main(args, params)
