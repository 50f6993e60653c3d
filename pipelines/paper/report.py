"""The report: one page that opens offline, pictures first, findings in words out of the stages' JSON.

Nothing is learned or judged here. The same inputs make the same bytes.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines.core.command import run_stage
from pipelines.core.errors import UserError
from pipelines.core.params import Params
from pipelines.core.tables import whole_file
from pipelines.paper import claim_pictures, leak_pictures, pictures
from pipelines.paper.findings import all_findings, in_short
from pipelines.paper.leak_findings import reads_of
from pipelines.paper.published import operating_points
from pipelines.paper.repeats import summary
from pipelines.paper.tables import data_line, environment, paper_tables
from pipelines.paper.wording import Json, at, name_of

INPUTS = {
    "sweep": "the sweep's JSON",
    "compare": "the fair judgement's JSON",
    "leak": "the JSON of what a leak is worth",
    "language": "how good summaries and tags are, JSON",
    "metrics": "the figures of the one trained model, JSON",
    "leaks": "the prover's report, JSON",
}
NEEDED = {"sweep": ("runs",), "compare": ("models", "paired", "ablation"), "leak": ("leak", "backwards")}
# what the report says of how things were made; dvc.yaml names the same
SHOWN = (
    *("protocol", "model", "selection", "dropout", "class_weights", "seed", "networks", "split", "history"),
    *("summarize", "tag", "llm.model", "describe_photos.captions", "describe_photos.image_weights"),
    *("reduce", "train", "paper", "sweep", "compare", "leak"),
)

CHOSEN = {"validation": "selected on validation", "paper": "SELECTED ON THE TEST SET"}


def read_inputs(paths: Mapping[str, Path]) -> dict[str, Any]:
    """Name -> content; UserError for one that is missing, is no JSON object or lacks a section."""
    return {name: read_json(path, NEEDED.get(name, ())) for name, path in paths.items()}


def read_json(path: Path, needed: tuple[str, ...]) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run `make paper`") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not JSON ({error}); remove it and run `make paper`") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds a {type(content).__name__}, wanted an object; run `make paper`")
    for section in needed:
        if section not in content:
            raise UserError(f"{path}: has no `{section}`; run `make paper`")
    return content


def check_of_one_data(inputs: Json, paths: Mapping[str, Path], params: Params) -> None:
    """UserError where stages judged other data than params.yaml names, or than each other: nothing is to be mixed."""
    wanted = {"source": params.ingest.source, "protocol": params.protocol}
    for name in ("sweep", "compare", "leak"):
        for word, value in wanted.items():
            found = at(inputs[name], "data", word)
            if found is not None and found != value:
                raise UserError(f"{paths[name]}: is of {word} {found}, params.yaml says {value}; run `make paper`")
    compared = at(inputs["compare"], "data", "rows")
    others = {name: at(inputs[name], "data", "rows") for name in ("sweep", "leak")}
    others["metrics"] = {split: n for split in compared or () if (n := at(inputs["metrics"], split, "n")) is not None}
    for name, rows in others.items():
        if rows and compared and rows != compared:
            raise UserError(f"{paths[name]}: has rows {rows}, {paths['compare']} {compared}; run `make paper`")


def shown_params(params: Params) -> dict[str, str]:
    """Parameter -> value, of those in `SHOWN` that there are."""
    content = params.model_dump(by_alias=True, mode="json")
    flat: dict[str, str] = {}
    for name in SHOWN:
        value = at(content, *name.split("."))
        if isinstance(value, Mapping):
            flat |= {f"{name}.{key}": as_written(one) for key, one in value.items()}
        elif value is not None:
            flat[name] = as_written(value)
    return flat


def as_written(value: Any) -> str:
    """A parameter as params.yaml writes it."""
    return value if isinstance(value, str) else json.dumps(value)


def all_pictures(inputs: Json) -> dict[str, list[Any]]:
    """By heading, in the order in which a reader asks."""
    compare = inputs["compare"]
    return {
        "The judgement": [pictures.aucs(compare), pictures.ranking(compare), pictures.paired(compare)],
        "The paper's claim": [claim_pictures.roc(compare), claim_pictures.sweep(inputs["sweep"])],
        "Probabilities, seeds, features, a leak": [
            pictures.calibration(compare),
            pictures.seeds(compare),
            pictures.ablation(compare),
            leak_pictures.leak(inputs["leak"]),
        ],
        "The label, read backwards": leak_pictures.backwards(inputs["leak"]),
    }


def with_all_pairs(compare: Json) -> dict[str, Any]:
    """With the pairs' ranking figures among `paired`; they are of users, not of warm or cold rows."""
    return {**compare, "paired": compare["paired"] + [{**p, "rows": "all"} for p in compare.get("paired_ranking", [])]}


def differences(compare: Json) -> dict[str, Any]:
    """The pairs as a table: a row a pair and group of rows, a column a figure (`names`); None where there is none."""
    figures = list(dict.fromkeys(pair["metric"] for pair in compare["paired"]))
    rows: dict[tuple[str, str, str], dict[str, Any]] = {}
    for pair in compare["paired"]:
        rows.setdefault((pair["a"], pair["b"], pair["rows"]), {})[pair["metric"]] = pair
    return {
        "names": [name_of(figure) for figure in figures],
        "rows": [
            {"a": a, "b": b, "rows": group, "pairs": [found.get(figure) for figure in figures]}
            for (a, b, group), found in rows.items()
        ],
    }


def seed_spread(compare: Json) -> dict[str, dict[str, Any]]:
    """Network -> figure -> mean, standard deviation and t interval over its seeds."""
    return {
        name: {figure: summary(seed.get(figure) for seed in of_model["seeds"]) for figure in pictures.FIGURES}
        for name in pictures.there(compare["models"])
        for of_model in [compare["models"][name]]
        if of_model.get("seeds")
    }


def page(inputs: Json, params: Params) -> str:
    """The whole report as HTML."""
    compare = with_all_pairs(inputs["compare"])
    inputs = {**inputs, "compare": compare}
    providers = {"openai": params.llm.model}
    made_with = {
        "image_weights": params.describe_photos.image_weights,
        "captions": params.describe_photos.captions,
        "summaries": providers.get(params.summarize.provider, params.summarize.provider),
        "tags": providers.get(params.tag.provider, params.tag.provider),
    }
    supported, unsupported = all_findings(compare, inputs["sweep"], inputs["leak"], made_with)
    html = (
        environment()
        .get_template("report.html.j2")
        .render(
            inputs,
            data=compare.get("data") or {},
            data_line=data_line(compare.get("data")),
            in_short=in_short(compare, inputs["sweep"], inputs["leak"]),
            supported=supported,
            unsupported=unsupported,
            pictures=all_pictures(inputs),
            judged=pictures.there(compare["models"]),
            groups=pictures.GROUPS,
            differences=differences(compare),
            spreads=seed_spread(compare),
            points=operating_points("test"),
            tables=paper_tables(inputs["sweep"]),
            made_with=made_with,
            served=f"{params.model}, networks: {params.networks}, {CHOSEN[params.selection]}",
            params=shown_params(params),
            reads_of=reads_of,
        )
    )
    return html.replace(" %", "\N{NO-BREAK SPACE}%")  # no line begins with a percent sign


def main(args: argparse.Namespace, params: Params) -> None:
    paths = {name: getattr(args, name) for name in INPUTS}
    inputs = read_inputs(paths)
    check_of_one_data(inputs, paths, params)
    with whole_file(args.out) as temporary:
        temporary.write_text(page(inputs, params), encoding="utf-8")


if __name__ == "__main__":
    run_stage(main, __doc__, {**INPUTS, "out": "the page to write"})
