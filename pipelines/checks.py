"""Great Expectations at work: a suite over a frame, what came of each expectation, and the Data Docs."""

import difflib
import math
import numbers
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd

os.environ["GX_ANALYTICS_ENABLED"] = "false"  # read at import: nothing is sent anywhere

import great_expectations as gx
from great_expectations.compatibility.pydantic import ValidationError
from great_expectations.core import ExpectationValidationResult
from great_expectations.data_context.types.base import ProgressBarsConfig
from great_expectations.expectations.expectation import Expectation
from great_expectations.expectations.registry import get_expectation_impl, list_registered_expectation_implementations

from pipelines.core.errors import UserError
from pipelines.suites import COLUMN_KWARGS, Check

SAMPLES = 5  # rows named for a failed expectation
SITE = "data_docs"
REPORT = "report.json"  # of a failure, beside the Data Docs
MADE = {"index.html", "static", "expectations", "validations", REPORT}


@dataclass(frozen=True)
class Outcome:
    """What came of one expectation on one table."""

    table: str
    check: Check
    success: bool
    observed: float | None  # what an aggregate (a mean, a count) was
    detail: str  # of a failure: how many rows and which, or what was observed, or what was raised

    def lines(self) -> str:
        """A failure as a person reads it."""
        wanted = {name: value for name, value in self.check.kwargs.items() if name not in COLUMN_KWARGS}
        expected = ", ".join(f"{name} {plain(value)}" for name, value in wanted.items())
        return "\n    ".join(
            [
                f"{self.table}: {self.check.label}",
                self.detail,
                *([f"expected: {expected}"] if expected else []),
                f"why: {self.check.why}",
            ]
        )


def build_expectations(source: Path, checks: Sequence[Check]) -> list[Expectation]:
    """Great Expectations' own objects. UserError names a type or a kwarg that it does not know.

    (Left to itself, a suite drops an expectation of an unknown type without a word.)
    """
    known = list_registered_expectation_implementations()
    made = []
    for index, check in enumerate(checks):
        if check.type not in known:
            near = difflib.get_close_matches(check.type, known, n=1)
            meant = f"; did you mean `{near[0]}`?" if near else "; mend its spelling"
            raise UserError(f"{source}: Great Expectations knows no `{check.type}`{meant}")
        try:
            made.append(get_expectation_impl(check.type)(**check.kwargs, notes=check.why, meta={"index": index}))
        except ValidationError as error:
            first = error.errors()[0]
            kwarg = ".".join(str(part) for part in first["loc"])
            raise UserError(f"{source}: {check.label}: kwarg `{kwarg}`: {first['msg']}") from None
    return made


class Checker:
    """An ephemeral context whose results go to the Data Docs in `docs`, written anew."""

    def __init__(self, docs: Path):
        if docs.exists() and {path.name for path in docs.iterdir()} - MADE:  # the folder will be removed
            raise UserError(f"{docs}: holds no Data Docs that may be replaced; name another folder with --docs")
        self.docs = docs
        self.context = gx.get_context(mode="ephemeral")
        self.context.variables.progress_bars = ProgressBarsConfig(globally=False, metric_calculations=False)
        self.source = self.context.data_sources.add_pandas("tables")
        for name in list(self.context.get_site_names()):
            self.context.delete_data_docs_site(name)
        self.context.add_data_docs_site(
            SITE,
            {
                "class_name": "SiteBuilder",
                "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
                "store_backend": {
                    "class_name": "TupleFilesystemStoreBackend",
                    "base_directory": str(docs.absolute()),
                },
            },
        )

    def check(
        self, source: Path, name: str, checks: Sequence[Check], frame: pd.DataFrame, key: Sequence[str]
    ) -> list[Outcome]:
        """Run `checks` over `frame`, whose rows `key` names. The outcomes are in the checks' order."""
        suite = self.context.suites.add(gx.ExpectationSuite(name=name, expectations=build_expectations(source, checks)))
        batch = self.source.add_dataframe_asset(name).add_batch_definition_whole_dataframe("whole")
        definition = self.context.validation_definitions.add(
            gx.ValidationDefinition(name=name, data=batch, suite=suite)
        )
        checkpoint = self.context.checkpoints.add(
            gx.Checkpoint(
                name=name,
                validation_definitions=[definition],
                result_format=result_format(key),
            )
        )
        ran = checkpoint.run(batch_parameters={"dataframe": frame})
        results = [result for run in ran.run_results.values() for result in run.results]
        assert len(results) == len(checks), f"{name}: {len(checks)} expectations, {len(results)} results"
        results.sort(key=index_of)
        return [outcome(name, check, result, key) for check, result in zip(checks, results, strict=True)]

    def write_docs(self) -> Path:
        """Build the Data Docs of everything checked, and say where they begin."""
        shutil.rmtree(self.docs, ignore_errors=True)
        self.context.build_data_docs([SITE])
        return self.docs / "index.html"


def result_format(key: Sequence[str]) -> dict[str, Any]:
    """What is asked of Great Expectations about a failure: some of the rows, by `key`."""
    return {
        "result_format": "SUMMARY",
        "partial_unexpected_count": SAMPLES,
        "unexpected_index_column_names": list(key),
    }


def index_of(result: ExpectationValidationResult) -> int:
    """Which of the checks a result is of: Great Expectations keeps an order of its own."""
    configuration = result.expectation_config
    assert configuration is not None
    return int(configuration.meta["index"])


def outcome(table: str, check: Check, result: ExpectationValidationResult, key: Sequence[str]) -> Outcome:
    """Our reading of one result."""
    found = dict(result.result)
    observed = found.get("observed_value")
    number = None
    if isinstance(observed, numbers.Real) and math.isfinite(observed):
        number = int(observed) if isinstance(observed, numbers.Integral) else round(float(observed), 6)
    return Outcome(table, check, bool(result.success), number, "" if result.success else detail(result, key))


def detail(result: ExpectationValidationResult, key: Sequence[str]) -> str:
    """Why a result is a failure: raised inside, so many rows and which, or the value observed."""
    raised = raised_in(result.exception_info)
    if raised:
        return f"could not be evaluated, Great Expectations raised: {' '.join(raised[0].split())}"
    found = result.result
    if "element_count" in found:
        if key:
            samples = " | ".join(sample(row, key) for row in found.get("partial_unexpected_index_list") or [])
        else:
            samples = " | ".join(plain(value) for value in found["partial_unexpected_list"])
        count = f"{found['unexpected_count']} of {found['element_count']} rows"
        return f"{count}, for example {samples}" if samples else count
    mismatched = (found.get("details") or {}).get("mismatched")
    if mismatched:
        return "; ".join(
            f"column {one['Expected Column Position']}: expected {one['Expected']}, found {one['Found']}"
            for one in mismatched
        )
    shown = [f"{name} {plain(value)}" for name, value in found.items() if not (value is None or nothing(value))]
    return "observed " + ", ".join(shown)


def nothing(value: Any) -> bool:
    return isinstance(value, list) and not value


def raised_in(info: dict[str, Any]) -> list[str]:
    """The messages of what was raised: `exception_info` is one such record, or one per metric."""
    records = [info] if "raised_exception" in info else list(info.values())
    return [str(record["exception_message"]) for record in records if record["raised_exception"]]


def sample(row: dict[str, Any], key: Sequence[str]) -> str:
    """One row: its key, then the values that are wrong."""
    names = [*key, *(name for name in row if name not in key)]
    return " ".join(f"{name}={plain(row[name])}" for name in names if name in row)


def plain(value: Any) -> str:
    """A value without NumPy's and pandas' wrappings, at most 200 characters of it."""
    if value is pd.NaT:
        return "null"
    if isinstance(value, datetime):
        return value.isoformat()
    if not isinstance(value, list | dict | str) and pd.isna(value):
        return "null"
    text = repr(value.item() if hasattr(value, "item") else value)
    return text if len(text) <= 200 else f"{text[:200]}…"
