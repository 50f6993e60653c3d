"""The paper's Tables 1 and 2 in its own layout, ours beside the paper's figures: Markdown, HTML, JSON.

Ours stand twice: at the epoch with the best test FPR, as the paper chose, and at that with validation's best log loss.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pipelines.core.tables import whole_file
from pipelines.paper import wording
from pipelines.paper.published import Key, key_of, published
from pipelines.paper.repeats import SELECTIONS, SPLITS, cells_of

FIGURES = ("accuracy", "fpr", "loss")
BESIDE = (
    "auc",
    "tpr",
    "fpr_at_tpr_90",
)  # what Table 2 does not say: whether a threshold moved or the ranking is better
PRINTED = {"accuracy": "accuracy", "fpr": "fp rate", "loss": "loss"}
WEIGHTS = {"basic": "basic", "sqrt": "sqrt root", "none": "none"}  # as the paper spells them
CAPTIONS = {
    "train": "Table 1. Performance of best model against training set",
    "test": "Table 2. Performance of best model against testing set",
}
SELECTED = {"test": "ours, selected on the test set", "validation": "ours, selected on validation"}
NOTES = (
    "Ours: mean ± standard deviation over repeats with other seeds; below, the 95 % t interval of the mean.",
    "“Selected on the test set”, as the paper did: of each run the epoch with the best test FPR. That FPR flatters, "
    "being the least of many on the very rows that it is of; accuracy and loss are what it cost. They are here for "
    "comparison alone.",
    "“Selected on validation”: the epoch of least log loss on validation. It differs from the other in two things, the "
    "set and the criterion, so that their difference is not all flattery. Test rows decided nothing but when a run "
    "stops, which is by their FPR, as in the paper, and never before its least number of epochs.",
    "The paper does not say whether its figures are means or the best of five repeats. Its losses cannot be mean "
    "cross-entropies; ours are, weighted as in training, so that losses do not compare.",
    "The paper's figures are of its own data; ours are of the data named above.",
)


def paper_tables(sweep: Mapping[str, Any]) -> dict[str, Any]:
    """The tables as data: a row a model, weighting and dropout, in the paper's order; others of ours after these.

    A row: `paper` (figure -> share or loss, or null), and by selection figure -> mean, std, low, high, n (or null).
    """
    found: dict[tuple[Key, str, str], dict[str, Any]] = {}
    for cell in cells_of(sweep["runs"]):
        of_row = found.setdefault((key_of(cell), cell["selection"], cell["split"]), {})
        of_row[cell["metric"]] = {name: cell[name] for name in ("mean", "std", "low", "high", "n")}
    tables = []
    for number, split in enumerate(SPLITS, start=1):
        printed = {key_of(row): row for row in published()["tables"][split]}
        ours = dict.fromkeys(key for key, _, of_split in found if of_split == split)
        names = FIGURES if split == "train" else (*FIGURES, *BESIDE)
        rows = [
            {"model": key[0], "class_weights": key[1], "dropout": key[2]}
            | {"paper": {name: printed[key][name] for name in FIGURES} if key in printed else None}
            | {s: {name: found.get((key, s, split), {}).get(name) for name in names} for s in SELECTIONS}
            for key in [*printed, *(key for key in ours if key not in printed)]
        ]
        tables.append({"number": number, "split": split, "caption": CAPTIONS[split], "rows": rows})
    return {"data": sweep.get("data"), "marks": SELECTED, "notes": list(NOTES), "tables": tables}


def written(metric: str, value: float | None) -> str:
    """A figure as the paper prints it: shares in percent with two digits, losses with theirs; AUC as usual."""
    if metric == "loss":
        return wording.number(value, 1 if value is not None and abs(value) >= 10 else 3)
    return wording.number(value) if metric == "auc" else wording.percent(value, 2)


def as_printed(metric: str, value: float | None) -> str:
    """The paper's own figure, to the digit."""
    return f"{value:g}" if metric == "loss" and value is not None else written(metric, value)


def own(metric: str, cell: Mapping[str, Any] | None) -> tuple[str, str]:
    """`mean ± std`, and the interval; the interval is empty without repeats."""
    mean, std = wording.at(cell, "mean"), wording.at(cell, "std")
    low, high = wording.at(cell, "low"), wording.at(cell, "high")
    if mean is None or std is None or low is None or high is None:
        return written(metric, mean), ""
    spread = written(metric, std).removesuffix(" %")
    return (
        f"{written(metric, mean)} ± {spread}",
        f"{written(metric, low).removesuffix(' %')} to {written(metric, high)}",
    )


def layout(table: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows to print: `heads` with how many rows each spans (the paper's merged cells; 0: merged into the one above)."""
    rows = table["rows"]
    groups = [[row["model"], (row["model"], row["class_weights"]), (row["model"], row["class_weights"], row["dropout"])]
              for row in rows]  # fmt: skip
    printed = []
    for i, row in enumerate(rows):
        heads = []
        for level, text in enumerate((row["model"], WEIGHTS[row["class_weights"]], f"{row['dropout']:.2f}")):
            first = i == 0 or groups[i - 1][level] != groups[i][level]
            span = 0
            while first and i + span < len(rows) and groups[i + span][level] == groups[i][level]:
                span += 1
            heads.append({"text": text, "span": span})
        paper = [as_printed(name, wording.at(row["paper"], name)) for name in FIGURES]
        ours = {s: [own(name, row[s].get(name)) for name in (*FIGURES, *BESIDE)] for s in SELECTIONS}
        printed.append({"heads": heads, "paper": paper, "ours": ours})
    return printed


def as_markdown(tables: Mapping[str, Any]) -> str:
    lines = [f"Data: {data_line(tables['data'])}", ""]
    for table in tables["tables"]:
        names = ("model", "wgted loss", "dropout", *(f"paper: {PRINTED[name]}" for name in FIGURES))
        names += tuple(f"{SELECTED[s]}: {PRINTED[name]}" for s in SELECTIONS for name in FIGURES)
        lines += [f"**{table['caption']}**", "", line_of(names), line_of("---" for _ in names)]
        for row in layout(table):
            heads = [head["text"] if head["span"] else "" for head in row["heads"]]
            ours = [" / ".join(filter(None, own_)) for s in SELECTIONS for own_ in row["ours"][s][: len(FIGURES)]]
            lines.append(line_of([*heads, *row["paper"], *ours]))
        lines.append("")
    return "\n".join([*lines, *(f"- {note}" for note in tables["notes"]), ""])


def line_of(cells: Any) -> str:
    return f"| {' | '.join(cells)} |"


def data_line(data: Mapping[str, Any] | None) -> str:
    rows = wording.at(data, "rows")
    counted = ", ".join(
        f"{split} {wording.count(wording.at(rows, split))}" for split in ("train", "validation", "test")
    )
    return f"{wording.at(data, 'source')}, {wording.name_of(wording.at(data, 'protocol') or 'n/a')}; rows: {counted}"


def environment() -> Environment:
    """Jinja as every page of ours is made with: escaped, and a misspelt name is an error."""
    made = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals |= {"w": wording, "layout": layout, "PRINTED": PRINTED, "SELECTED": SELECTED, "SELECTIONS": SELECTIONS}
    made.globals |= {"FIGURES": FIGURES, "BESIDE": BESIDE}
    return made


def as_html(tables: Mapping[str, Any]) -> str:
    """A page of its own."""
    return environment().get_template("tables.html.j2").render(tables=tables, data=data_line(tables["data"]))


def write_tables(sweep: Mapping[str, Any], folder: Path) -> None:
    """Write `tables.md`, `tables.html` and `tables.json` to `folder`, each whole or not at all."""
    tables = paper_tables(sweep)
    texts = {
        "tables.md": as_markdown(tables),
        "tables.html": as_html(tables),
        "tables.json": json.dumps(tables, indent=1, ensure_ascii=False, allow_nan=False) + "\n",
    }
    for name, text in texts.items():
        with whole_file(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
