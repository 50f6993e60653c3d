"""A suite that is not what its author meant is refused, by file and name, before it is run."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.checked_frames import other_tables
from pipelines.core.errors import UserError
from pipelines.suites import Check, read_suites
from tests.params import ROOT, params_with

GOOD = {
    "table": "reviews",
    "group": "tables",
    "files": ["tables/reviews.parquet"],
    "key": ["review_id"],
    "columns": {"review_id": "string", "rating": "float"},
    "derive": {"fine": "rating > 0"},
    "expectations": [
        {"type": "expect_column_values_to_be_in_set", "kwargs": {"column": "fine", "value_set": [True]}, "why": "so"}
    ],
}
UNIQUE = {"type": "expect_column_values_to_be_unique", "kwargs": {"column": "rating"}, "why": "so"}
NO_COLUMN = "{path}: no column `{name}` in `columns` or `derive`; mend its spelling"


def written(tmp_path: Path, suite: Any) -> Path:
    path = tmp_path / "expectations" / "mine.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(suite if isinstance(suite, str) else json.dumps(suite))
    return path


def with_expectation(**changes: Any) -> dict[str, Any]:
    return {**GOOD, "expectations": [*GOOD["expectations"], {**UNIQUE, **changes}]}


BAD_SUITES = {
    "no JSON": ('{"table": }', "{path}: not JSON at line 1, column 11 (Expecting value)"),
    "no object": ("[]", "{path}: `` is []: Input should be a valid dictionary or instance of WrittenSuite"),
    "key twice": ('{"table": "a", "table": "b"}', "{path}: key `table` stands twice in one object; remove one"),
    "unknown key": ({**GOOD, "colums": {}}, "{path}: unknown key `colums`; remove it or mend its spelling"),
    "missing key": ({k: v for k, v in GOOD.items() if k != "columns"}, "{path}: `columns` is missing"),
    "no group": ({**GOOD, "group": "table"}, "{path}: `group` is 'table': Input should be 'tables', 'features' or"),
    "no why": (with_expectation(why=""), "{path}: `expectations.1.why` is '': String should have at least 1 character"),
    "unknown key of an expectation": (
        with_expectation(kwarg={}), "{path}: unknown key `expectations.1.kwarg`; remove it or mend its spelling"),
    "expectation twice": (
        {**GOOD, "expectations": GOOD["expectations"] * 2},
        "{path}: `expectations.1` (expect_column_values_to_be_in_set) stands there twice; remove one"),
    "unknown column": (with_expectation(kwargs={"column": "ratings"}), NO_COLUMN.replace("{name}", "ratings")),
    "unknown pair": (
        with_expectation(kwargs={"column_A": "rating", "column_B": "stars"}), NO_COLUMN.replace("{name}", "stars")),
    "unknown key column": ({**GOOD, "key": ["id"]}, NO_COLUMN.replace("{name}", "id")),
    "unused derived column": (
        {**GOOD, "derive": {**GOOD["derive"], "idle": "true"}},
        "{path}: no expectation looks at the derived column `idle`; add one or remove it"),
    "derived over a column": (
        {**GOOD, "columns": {**GOOD["columns"], "fine": "bool"}},
        "{path}: derived column `fine` hides a column of the table; rename it"),
    "a column that is no type": (
        {**GOOD, "columns": {**GOOD["columns"], "more": {"type": "string"}}},
        "{path}: `columns.more` is {'type': 'string'}: Input should be a valid string"),
    "unknown parameter": (
        with_expectation(kwargs={"column": "rating", "mostly": {"$param": "validate.min_revews"}}),
        "{path}: params.yaml has no parameter `validate.min_revews`; mend its spelling"),
    "parameter beyond a list": (
        with_expectation(kwargs={"column": "rating", "mostly": {"$param": "validate.positive_share.2"}}),
        "{path}: params.yaml has no parameter `validate.positive_share.2`; mend its spelling"),
    "unknown parameter of a condition": (
        with_expectation(when={"protocols": "leave_one_out"}),
        "{path}: params.yaml has no parameter `protocols`; mend its spelling"),
    "a condition that never holds": (
        with_expectation(when={"protocol": "leave_one_ot"}),
        "{path}: `when` has protocol: 'leave_one_ot', which it can never be: Input should be 'point_in_time' or"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_SUITES)
def test_a_bad_suite_is_refused_in_one_line(tmp_path, case):
    suite, expected = BAD_SUITES[case]
    path = written(tmp_path, suite)
    with pytest.raises(UserError) as refused:
        read_suites(path.parent, params_with(tmp_path))
    assert str(refused.value).startswith(expected.replace("{path}", str(path)))
    assert "\n" not in str(refused.value)


def test_the_suite_that_the_bad_ones_are_made_from_is_read(tmp_path):
    suite = read_suites(written(tmp_path, GOOD).parent, params_with(tmp_path))["reviews"]
    assert [check.label for check in suite.checks] == ["expect_column_values_to_be_in_set(fine)"]


def test_no_suites_and_two_for_one_table_are_refused(tmp_path):
    params = params_with(tmp_path)
    with pytest.raises(
        UserError, match=r"no suites \(\*\.json\) here; run from the repository's root or pass --suites"
    ):
        read_suites(tmp_path, params)
    folder = written(tmp_path, GOOD).parent
    (folder / "other.json").write_text(json.dumps(GOOD))
    with pytest.raises(
        UserError, match=r"other\.json: a second suite for table `reviews`, beside .*mine\.json; remove"
    ):
        read_suites(folder, params)


def test_parameters_conditions_and_entities_are_filled_in(tmp_path):
    suite = {
        **GOOD,
        "table": "{entity}_rows",
        "entities": ["user", "business"],
        "columns": {"{entity}_id": "string", "rating": "float"},
        "key": ["{entity}_id"],
        "derive": {"fine": ["rating", "> 0"]},
        "expectations": [
            *GOOD["expectations"],
            {**UNIQUE, "kwargs": {"column": "rating", "mostly": {"$param": "validate.positive_share.1"}}},
            {**UNIQUE, "when": {"protocol": "leave_one_out"}},
        ],
    }
    folder = written(tmp_path, suite).parent
    suites = read_suites(folder, params_with(tmp_path))
    assert set(suites) == {"user_rows", "business_rows"}
    assert suites["business_rows"].key == ("business_id",)
    assert suites["user_rows"].derive == {"fine": "rating > 0"}
    assert suites["user_rows"].checks[1:] == (Check(UNIQUE["type"], {"column": "rating", "mostly": 0.97}, "so"),)
    assert len(read_suites(folder, params_with(tmp_path, protocol="leave_one_out"))["user_rows"].checks) == 3


BAD_EXPECTATIONS = {
    "misspelt type": (
        "expect_column_values_to_be_uniqe", {"column": "rating"},
        "mine.json: Great Expectations knows no `expect_column_values_to_be_uniqe`;"
        " did you mean `expect_column_values_to_be_unique`?"),
    "no type at all": ("unique", {"column": "rating"}, "mine.json: Great Expectations knows no `unique`; mend its"),
    "unknown kwarg": (
        "expect_column_values_to_be_unique", {"column": "rating", "most": 1},
        "mine.json: expect_column_values_to_be_unique(rating): kwarg `most`: extra fields not permitted"),
    "missing kwarg": (
        "expect_column_values_to_be_in_set", {"column": "rating"},
        "mine.json: expect_column_values_to_be_in_set(rating): kwarg `value_set`: "),
    "wrong type of a kwarg": (
        "expect_column_values_to_be_unique", {"column": "rating", "mostly": "all"},
        "mine.json: expect_column_values_to_be_unique(rating): kwarg `mostly`: "),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_EXPECTATIONS)
def test_what_great_expectations_does_not_know_is_refused_by_name(case):
    from pipelines.checks import build_expectations

    kind, kwargs, expected = BAD_EXPECTATIONS[case]
    with pytest.raises(UserError) as refused:
        build_expectations(Path("mine.json"), [Check(kind, kwargs, "so")])
    assert str(refused.value).startswith(expected) and "\n" not in str(refused.value)


def test_sql_that_is_none_is_refused_by_column(tmp_path):
    folder = written(tmp_path, {**GOOD, "derive": {"fine": "rating >"}}).parent
    suite = read_suites(folder, params_with(tmp_path))["reviews"]
    with pytest.raises(UserError, match=r"mine\.json: derived column `fine` is no SQL: syntax error .*; mend it"):
        other_tables(suite, "fine")


@pytest.mark.parametrize("protocol", ["point_in_time", "leave_one_out"])
def test_the_stages_depend_on_every_table_and_parameter_that_their_suites_read(tmp_path, protocol):
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    suites = read_suites(ROOT / "expectations", params_with(tmp_path, protocol=protocol))
    for suite in suites.values():
        stage = stages[f"validate_{suite.group}"]
        read = {name for column in suite.derive for name in other_tables(suite, column)} | {suite.table}
        for file in (Path("data", file) for name in read for file in suites[name].files):
            assert {str(file), *map(str, file.parents)} & set(stage["deps"]), f"{suite.group}: add {file} to the deps"
        raw = json.loads(suite.source.read_text())
        for parameter in parameters_in(raw["expectations"]):
            prefixes = {parameter, parameter.split(".")[0]}
            assert prefixes & set(stage["params"]), f"{suite.group}: add {parameter} to the params"


def parameters_in(value: Any) -> set[str]:
    if isinstance(value, list):
        return set().union(*map(parameters_in, value))
    if not isinstance(value, dict):
        return set()
    if set(value) == {"$param"}:
        return {value["$param"]}
    return set(value.get("when", {})) | set().union(*map(parameters_in, value.values()))
