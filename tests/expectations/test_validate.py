"""The command line of the data checks, as CI, the stages and a person use it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipelines.core.errors import CheckFailed, UserError, exit_code_of
from pipelines.core.tables import REVIEWS, write_table
from pipelines.validate import main, parser, validate_group, validate_table
from tests.expectations.world import SUITES, World
from tests.params import ROOT


def test_a_bad_table_stops_the_run_and_leaves_no_report_that_looks_valid(by_time, tmp_path):
    data = broken_copy(by_time, tmp_path, "UPDATE reviews SET rating = 9 WHERE review_id = 'r007'")
    arguments = by_time.arguments("tables", tmp_path, data=data)
    arguments.report.write_text("of an earlier run")
    with pytest.raises(CheckFailed) as refused:
        validate_group(arguments, by_time.params)
    assert str(refused.value) == (
        f"tables: 2 of {expectations_of(by_time, 'tables')} expectations failed\n"
        "reviews: expect_column_values_to_be_between(rating)\n"
        "    1 of 240 rows, for example review_id='r007' rating=9.0\n"
        "    expected: min_value 1, max_value 5\n"
        "    why: stars run from 1 to 5; another scale moves every mean and the label\n"
        "reviews: expect_column_values_to_be_in_set(label_agrees)\n"
        "    1 of 240 rows, for example review_id='r007' label_agrees=False\n"
        "    expected: value_set [True]\n"
        "    why: the label is rating >= 4 (the paper's definition)"
    )
    assert not arguments.report.exists()
    assert json.loads((tmp_path / "docs" / "tables" / "report.json").read_text())["reviews"]["success"] is False
    validate_group(by_time.arguments("tables", tmp_path), by_time.params)
    assert arguments.report.exists() and not (tmp_path / "docs" / "tables" / "report.json").exists()


def expectations_of(world: World, group: str) -> int:
    """How many expectations the checks of a group's rows and columns are."""
    suites = [suite for suite in world.suites.values() if suite.group == group]
    return sum(len(suite.checks) + len(suite.files) * (1 + len(suite.columns)) for suite in suites)


def broken_copy(world: World, folder: Path, fault: str) -> Path:
    """The data folder with the fault in its review table."""
    data = folder / "data"
    shutil.copytree(world.data, data)
    world.connection.execute("BEGIN")
    try:
        world.connection.execute(fault)
        reviews = world.connection.table("reviews").to_arrow_table()
    finally:
        world.connection.execute("ROLLBACK")
    write_table(reviews, data / "tables" / "reviews.parquet", REVIEWS)
    return data


def test_rows_are_not_judged_where_the_columns_are_wrong(by_time, tmp_path):
    shutil.copytree(by_time.data, tmp_path / "data")
    path = tmp_path / "data" / "tables" / "businesses.parquet"
    pq.write_table(pq.read_table(path).drop(["business_id"]), path)
    with pytest.raises(CheckFailed) as refused:
        validate_group(by_time.arguments("tables", tmp_path, data=tmp_path / "data"), by_time.params)
    message = str(refused.value)
    assert "\nreviews:" not in message and "\nphotos:" not in message
    assert "expectations failed\nbusinesses columns: expect_table_columns_to_match_ordered_list" in message
    assert "column 0: expected business_id, found name" in message
    assert 'could not be evaluated, Great Expectations raised: Error: The column "business_id"' in message


def test_the_exit_code_and_the_stream(by_time, tmp_path, capsys):
    data = broken_copy(by_time, tmp_path, "UPDATE reviews SET user_id = '' WHERE review_id = 'r007'")
    words = ["tables", "--data", str(data), "--report", str(tmp_path / "r.json"), "--docs", str(tmp_path / "docs")]
    arguments = parser().parse_args([*words, "--suites", str(SUITES), "--params", str(by_time.params_file)])
    assert exit_code_of(lambda: main(arguments)) == 2
    said = capsys.readouterr()
    assert said.err.startswith(
        f"error: tables: 1 of {expectations_of(by_time, 'tables')} expectations failed\nreviews: "
    )
    assert f"Data Docs at {tmp_path / 'docs' / 'tables' / 'index.html'}" in said.out


@pytest.mark.slow
def test_from_a_shell(by_time, tmp_path):
    """One process each for a good and a bad table of the user's: exit codes, what is said and where."""
    reviews = by_time.files["reviews"][0]
    command = [
        sys.executable,
        "-m",
        "pipelines.validate",
        "table",
        "--suite",
        "reviews",
        "--docs",
        str(tmp_path / "docs"),
    ]
    command += ["--params", str(by_time.params_file)]
    good = subprocess.run([*command, "--path", str(reviews)], cwd=ROOT, capture_output=True, text=True)
    assert (good.returncode, good.stderr) == (0, "")
    assert "expectations held, not judged without --data: " in good.stdout
    assert "(business_known)" in good.stdout and "(reject_share)" in good.stdout
    data = broken_copy(by_time, tmp_path, "UPDATE reviews SET business_id = 'b77' WHERE review_id = 'r007'")
    asked = [*command, "--path", str(data / "tables" / "reviews.parquet"), "--data", str(by_time.data)]
    bad = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True)
    assert bad.returncode == 2
    assert "expectations failed\nreviews: expect_column_values_to_be_in_set(business_known)" in bad.stderr
    assert "1 of 240 rows, for example review_id='r007' business_known=False" in bad.stderr
    assert "Traceback" not in bad.stderr


BAD_INPUT = {
    "missing": (None, "{path}: no such table; run `dvc repro` to make it"),
    "no Parquet": (b"review_id,rating\n1,5\n", "{path}: not a readable Parquet file ("),
    "empty": (b"", "{path}: not a readable Parquet file ("),
}


@pytest.mark.parametrize("case", BAD_INPUT)
@pytest.mark.parametrize("table", ["photos", "reviews"])
def test_an_unreadable_table_is_one_line(by_time, tmp_path, case, table):
    content, expected = BAD_INPUT[case]
    shutil.copytree(by_time.data, tmp_path / "data")
    path = tmp_path / "data" / "tables" / f"{table}.parquet"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    arguments = by_time.arguments("tables", tmp_path, data=tmp_path / "data")
    arguments.report.write_text("untouched")
    with pytest.raises(UserError) as refused:
        validate_group(arguments, by_time.params)
    assert str(refused.value).startswith(expected.format(path=path)) and "\n" not in str(refused.value)
    assert arguments.report.read_text() == "untouched"


def test_pages_that_cannot_be_read_are_one_line(by_time, tmp_path):
    shutil.copytree(by_time.data, tmp_path / "data")
    path = tmp_path / "data" / "tables" / "reviews.parquet"
    content = path.read_bytes()
    path.write_bytes(content[:4] + bytes(400) + content[404:])
    with pytest.raises(UserError) as refused:
        validate_group(by_time.arguments("tables", tmp_path, data=tmp_path / "data"), by_time.params)
    assert "DuckDB cannot derive the columns of `" in str(refused.value) and "\n" not in str(refused.value)


def test_docs_never_replace_a_folder_of_something_else(by_time, tmp_path):
    """`--docs data` would put the Data Docs of `tables` where the tables lie."""
    shutil.copytree(by_time.data, tmp_path / "data")
    arguments = by_time.arguments("tables", tmp_path, data=tmp_path / "data", docs=tmp_path / "data")
    with pytest.raises(UserError, match="holds no Data Docs that may be replaced; name another folder with --docs"):
        validate_group(arguments, by_time.params)
    assert (tmp_path / "data" / "tables" / "reviews.parquet").is_file()


def test_table_refuses_a_suite_that_is_none_and_the_wrong_number_of_files(by_time, tmp_path):
    def ask(*words: str) -> str:
        arguments = parser().parse_args(["table", "--docs", str(tmp_path / "docs"), *words])
        with pytest.raises(UserError) as refused:
            validate_table(arguments, by_time.params)
        return str(refused.value)

    assert ask("--suite", "review", "--path", "x").startswith(
        "--suite review: no such suite; there are business_history, "
    )
    assert ask("--suite", "training_set", "--path", "x") == (
        "--path: training_set lies in 3 files"
        " (training_set/train.parquet, training_set/validation.parquet, training_set/test.parquet)"
    )
