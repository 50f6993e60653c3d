"""The report: sentences that follow the numbers, and a page that stands alone."""

import argparse
import copy
import json
import re
from html.parser import HTMLParser

import pytest

from pipelines.core.errors import UserError
from pipelines.paper import report
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
    page = report.page(content, params)
    Page(page)
    assert "Any figure of warm rows: there are none." in page
    assert "n/a" in page


def test_hostile_names_are_text(params):
    content = inputs()
    content["leak"]["explains"]["words"] = ["<script>alert(1)</script>"]
    assert not Page(report.page(content, params)).of("script")


def test_no_data_stand_in_the_table_as_such(params):
    content = inputs()
    made_up.without_data(content["compare"], "numbers+captions")
    html = report.page(content, params)
    assert html.count("numbers+captions: these data have none</th><td>n/a</td>") == 1


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
        (
            {"leak": {"leak": [], "backwards": [], "data": {"source": "zomato"}}},
            "leak.json: is of source zomato, params.yaml says synthetic",
        ),
        (
            {"leak": {"leak": [], "backwards": [], "data": {"rows": {"test": 7}}}},
            "leak.json: has rows {'test': 7}, ",
        ),
        (
            {"metrics": made_up.metrics() | {"test": {"n": 7}}},
            "metrics.json: has rows {'train': 3599, 'validation': 900, 'test': 7}, ",
        ),
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
