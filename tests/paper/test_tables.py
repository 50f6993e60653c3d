"""The paper's tables: as printed, and ours beside them."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import confusion_matrix

from pipelines.paper.published import implied_auc, implied_tpr, operating_points, published
from pipelines.paper.repeats import cells_of, summary
from pipelines.paper.tables import as_html, as_markdown, layout, paper_tables, write_tables
from tests.paper import made_up

# Typed a second time, in the paper's own layout.
PRINTED = {
    "train": """
        proposed basic 0.10 91.62% 2.02%  2.7
                       0.30 88.11% 4.14%  4.08
                       0.50 86.06% 7.06%  5.28
                 sqrt  0.10 95.95% 4.36%  4.36
                       0.30 94.14% 13.69% 6.35
                       0.50 91.95% 18.87% 9.19
        baseline basic 0.10 92.51% 26.58% 6.35
                       0.30 92.39% 27.82% 6.82
                       0.50 92.23% 28.27% 6.97
                 sqrt  0.10 94.12% 29.01% 10.46
                       0.30 93.97% 31.02% 11.07
                       0.50 94.06% 33.49% 11.54""",
    "test": """
        proposed basic 0.10 85.27% 27.22% 50.18
                       0.30 84.02% 20.84% 30.66
                       0.50 83.48% 18.16% 15.96
                 sqrt  0.10 88.05% 38.68% 66.51
                       0.30 89.15% 36.42% 49.68
                       0.50 89.02% 31.82% 23.76
        baseline basic 0.10 91.36% 31.80% 9.32
                       0.30 91.89% 31.74% 7.66
                       0.50 91.83% 31.79% 7.64
                 sqrt  0.10 92.96% 35.26% 14.57
                       0.30 93.26% 35.66% 12.62
                       0.50 93.47% 37.58% 12.59""",
}


def as_typed(text):
    model = weights = None
    for line in text.strip().splitlines():
        *heads, dropout, accuracy, fpr, loss = line.split()
        *model_, weights = heads if heads else [weights]
        model = model_[0] if model_ else model
        shares = [round(float(share.rstrip("%")) / 100, 6) for share in (accuracy, fpr)]
        yield model, weights, float(dropout), *shares, float(loss)


@pytest.mark.parametrize("split", PRINTED)
def test_the_papers_figures_stand_as_printed(split):
    rows = [tuple(row.values()) for row in published()["tables"][split]]
    assert rows == list(as_typed(PRINTED[split]))
    assert len(rows) == 12


def test_what_the_paper_says_of_its_tables_is_true_of_ours():
    table = pd.DataFrame(published()["tables"]["test"])
    best = table.loc[table["fpr"].idxmin()]
    assert (best["model"], best["class_weights"], best["dropout"], best["fpr"]) == ("proposed", "basic", 0.5, 0.1816)
    assert table["accuracy"].max() == 0.9347
    rows = published()["rows"]["train"]
    assert rows["negative"] / (rows["negative"] + rows["positive"]) == pytest.approx(0.1147, abs=5e-5)


def test_implied_tpr_is_the_tpr_of_any_decisions():
    random = np.random.default_rng(0)
    labels, decisions = random.integers(0, 2, (2, 500))
    (tn, fp), (fn, tp) = confusion_matrix(labels, decisions)
    made = implied_tpr((tp + tn) / 500, fp / (fp + tn), (fp + tn) / 500)
    assert made == pytest.approx(tp / (tp + fn), abs=1e-12)


def test_implied_auc_is_one_along_a_curve_of_normal_scores():
    separation = 1.3
    for threshold in (-1.0, 0.2, 1.5):
        fpr, tpr = stats.norm.sf(threshold), stats.norm.sf(threshold - separation)
        assert implied_auc(fpr, tpr) == pytest.approx(stats.norm.cdf(separation / 2**0.5))


def test_the_papers_points_rank_no_better_for_proposed():
    """The design's reading of Table 2: a moved threshold."""
    points = pd.DataFrame(operating_points("test")).groupby("model")["auc"]
    assert points.min().round(2).to_dict() == {"proposed": 0.88, "baseline": 0.93}
    assert points.max().round(2).to_dict() == {"proposed": 0.91, "baseline": 0.95}


def test_summary_is_students_interval():
    values = [0.81, 0.84, 0.79, 0.83, 0.82]
    low, high = stats.t.interval(0.95, 4, loc=np.mean(values), scale=stats.sem(values))
    made = summary([*values, None])
    assert made == pytest.approx(
        {"mean": np.mean(values), "std": np.std(values, ddof=1), "low": low, "high": high, "n": 5}
    )


def test_one_value_has_no_spread_and_none_has_no_mean():
    assert summary([0.5]) == {"mean": 0.5, "std": None, "low": None, "high": None, "n": 1}
    assert summary([None]) == {"mean": None, "std": None, "low": None, "high": None, "n": 0}


def test_cells_are_what_pandas_groups():
    runs = made_up.sweep()["runs"]
    flat = pd.DataFrame(
        [
            {name: run[name] for name in ("model", "class_weights", "dropout")}
            | {"selection": selection, "split": split, "metric": metric, "value": value}
            for run in runs
            for selection in ("test", "validation")
            for split in ("train", "test")
            for metric, value in run[f"{selection}_selected"][split].items()
        ]
    )
    keys = ["model", "class_weights", "dropout", "selection", "split", "metric"]
    expected = flat.groupby(keys)["value"].agg(["mean", "std", "count"])
    cells = pd.DataFrame(cells_of(runs)).set_index(keys)
    assert len(cells) == len(expected) == 12 * 2 * (4 + 7)
    pd.testing.assert_series_equal(cells["mean"].sort_index(), expected["mean"])
    pd.testing.assert_series_equal(cells["std"].sort_index(), expected["std"])
    assert (cells["n"] == 5).all()


def test_rows_stand_in_the_papers_order_with_its_merged_cells():
    runs = made_up.sweep()["runs"]
    for table in paper_tables({"runs": runs[::-1]})["tables"]:
        order = [(row["model"], row["class_weights"], row["dropout"]) for row in table["rows"]]
        assert order == [row[:3] for row in as_typed(PRINTED[table["split"]])]
        spans = [[head["span"] for head in row["heads"]] for row in layout(table)]
        assert spans == [[6, 3, 1], [0, 0, 1], [0, 0, 1], [0, 3, 1], [0, 0, 1], [0, 0, 1]] * 2


def test_ours_stand_beside_the_papers_figure_to_the_digit():
    sweep = made_up.sweep()
    line = next(line for line in as_markdown(paper_tables(sweep)).splitlines() if "50.18" in line)
    chosen = [run["test_selected"]["test"]["fpr"] for run in sweep["runs"][:5]]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[:6] == ["proposed", "basic", "0.10", "85.27 %", "27.22 %", "50.18"]
    mean, std = 100 * np.mean(chosen), 100 * np.std(chosen, ddof=1)
    assert cells[7].startswith(f"{mean:.2f} % ± {std:.2f} / ")
    assert float(re.search(r"/ ([\d.]+) to", cells[7])[1]) == pytest.approx(100 * summary(chosen)["low"], abs=0.005)


def test_test_selected_figures_are_marked_in_both_forms():
    tables = paper_tables(made_up.sweep())
    markdown = as_markdown(tables)
    heads = [line for line in markdown.splitlines() if line.startswith("| model")]
    assert len(heads) == 2
    assert all(line.count("selected on the test set: ") == 3 for line in heads)
    assert as_html(tables).count("ours, selected on the test set</th>") == 3  # Tables 1 and 2, and the one beside


def test_a_cell_without_runs_and_a_row_that_the_paper_lacks():
    sweep = made_up.sweep()
    runs = [run for run in sweep["runs"] if (run["model"], run["class_weights"]) != ("baseline", "sqrt")]
    other = [{**run, "class_weights": "none"} for run in runs if run["class_weights"] == "basic"]
    tables = paper_tables(sweep | {"runs": [*runs, *other]})
    assert len(tables["tables"][0]["rows"]) == 12 + 6
    text = as_markdown(tables)
    assert "| 0.50 | 93.47 % | 37.58 % | 12.59 | n/a | n/a |" in text
    assert re.search(r"\| proposed \| none \| 0.10 \| n/a \| n/a \| n/a \| \d", text)


def test_one_repeat_has_no_interval():
    text = as_markdown(paper_tables(made_up.sweep(repeats=1)))
    row = next(line for line in text.splitlines() if "50.18" in line)
    assert "±" not in row
    assert "n/a" not in row


def test_written_files_are_whole_and_the_same_twice(tmp_path):
    for folder in ("one", "two"):
        write_tables(made_up.sweep(), tmp_path / folder)
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == ["tables.html", "tables.json", "tables.md"]
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    content = json.loads((tmp_path / "one" / "tables.json").read_text())
    assert content["tables"][1]["rows"][0]["test"]["fpr"]["n"] == 5
