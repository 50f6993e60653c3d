"""Expectations over a frame as `pipelines.checks` judges them, without the records, which cost more than judging."""

from collections.abc import Sequence
from pathlib import Path

import great_expectations as gx
import pandas as pd
from great_expectations.data_context.types.base import ProgressBarsConfig

from pipelines.checks import Outcome, build_expectations, index_of, outcome, result_format
from pipelines.suites import Check, Suite


class Judge:
    def __init__(self) -> None:
        self.context = gx.get_context(mode="ephemeral")
        self.context.variables.progress_bars = ProgressBarsConfig(globally=False, metric_calculations=False)
        asset = self.context.data_sources.add_pandas("frames").add_dataframe_asset("frame")
        self.batches = asset.add_batch_definition_whole_dataframe("whole")

    def judge(self, suite: Suite, checks: Sequence[Check], frame: pd.DataFrame, key: Sequence[str]) -> list[Outcome]:
        """The outcomes of `checks`, in their order."""
        asked = gx.ExpectationSuite(name=suite.table, expectations=build_expectations(Path(suite.source), checks))
        batch = self.batches.get_batch(batch_parameters={"dataframe": frame})
        results = sorted(batch.validate(asked, result_format=result_format(key)).results, key=index_of)
        assert len(results) == len(checks)
        return [outcome(suite.table, check, result, key) for check, result in zip(checks, results, strict=True)]
