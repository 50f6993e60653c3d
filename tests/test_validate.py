"""The suites hold on good tables, and every expectation of every one is seen to fail."""

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.checked_frames import connect, rows_frame, schema_frame
from pipelines.core.errors import CheckFailed, UserError, exit_code_of
from pipelines.core.params import Params
from pipelines.core.tables import (
    BUSINESSES,
    FEATURE_TABLES,
    PHOTOS,
    REJECTS,
    REVIEW_TEXT,
    REVIEWS,
    SPLIT,
    read_table,
    write_table,
)
from pipelines.core.training_rows import TRAINING_SET
from pipelines.suites import Suite, read_suites
from pipelines.validate import GROUPS, main, parser, schema_checks, validate_group, validate_table
from tests.expectations.faults import PROTOCOLS, read_faults
from tests.expectations.world import make_world
from tests.params import ROOT, params_with

pytestmark = pytest.mark.xdist_group("great_expectations")  # one worker imports it, and makes the worlds, once

SUITES = ROOT / "expectations"
FAULTS = read_faults()
SCHEMAS = {
    "reviews": REVIEWS, "businesses": BUSINESSES, "photos": PHOTOS, "rejects": REJECTS, "split": SPLIT,
    "review_text": REVIEW_TEXT, "training_set": TRAINING_SET, **FEATURE_TABLES,
}  # fmt: skip


class World:
    """Good tables under one protocol: files, and the same in DuckDB for faults that are rolled back."""

    def __init__(self, folder: Path, protocol: str):
        self.params: Params = params_with(folder, protocol=protocol, validate__min_reviews=100)
        self.params_file = folder / "params.yaml"
        self.data = folder / "data"
        make_world(self.data, self.params)
        self.suites: dict[str, Suite] = read_suites(SUITES, self.params)
        self.files = {name: [self.data / file for file in suite.files] for name, suite in self.suites.items()}
        self.connection = connect({})
        with connect(self.files) as stored:
            for name in self.suites:
                self.connection.register("arrow", stored.table(name).to_arrow_table())
                self.connection.execute(f'CREATE TABLE "{name}" AS FROM arrow')
                self.connection.unregister("arrow")

    def arguments(self, group: str, out: Path, **changes: Path) -> argparse.Namespace:
        paths = {"data": self.data, "suites": SUITES, "docs": out / "docs", "report": out / f"{group}.json"}
        return argparse.Namespace(group=group, **{**paths, **changes})


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, World]]:
    made = {protocol: World(tmp_path_factory.mktemp(protocol), protocol) for protocol in PROTOCOLS.values()}
    yield made
    for world in made.values():
        world.connection.close()


@pytest.fixture(scope="module")
def by_time(worlds: dict[str, World]) -> World:
    return worlds["point_in_time"]


@pytest.fixture(scope="module")
def checker(tmp_path_factory: pytest.TempPathFactory):
    from pipelines.checks import Checker

    return Checker(tmp_path_factory.mktemp("docs"))


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("protocol", PROTOCOLS.values())
def test_good_tables_pass_and_the_report_is_the_same_each_time(worlds, tmp_path, protocol, group):
    world = worlds[protocol]
    arguments = world.arguments(group, tmp_path)
    validate_group(arguments, world.params)
    first = arguments.report.read_bytes()
    assert (tmp_path / "docs" / group / "index.html").is_file()
    report = json.loads(first)
    assert set(report) == {name for name, suite in world.suites.items() if suite.group == group}
    for name, said in report.items():
        parts = [read_table(path, SCHEMAS[name]) for path in world.files[name]]
        assert said["rows"] == sum(map(len, parts))
        assert list(said["columns"]) == sorted(SCHEMAS[name].names)
        assert said["expectations"] == len(world.suites[name].checks) + len(parts) * (1 + len(SCHEMAS[name]))
        assert said["success"] is True and said["skipped"] == []
    assert str(tmp_path) not in first.decode()
    if group == "tables":  # one is enough, and again costs seconds
        validate_group(arguments, world.params)
        assert arguments.report.read_bytes() == first


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.table}-{fault.expectation}-{fault.protocol}")
def test_the_fault_fails_its_expectation_which_names_the_row(worlds, checker, request, fault):
    world = worlds[fault.protocol]
    suite = world.suites[fault.table]
    (check,) = [check for check in suite.checks if check.label == fault.expectation]
    world.connection.execute("BEGIN")
    try:
        assert world.connection.execute(fault.sql).fetchall()[0][0] > 0, "the fault changed no row"
        frame = rows_frame(world.connection, replace(suite, checks=(check,)))
    finally:
        world.connection.execute("ROLLBACK")
    (outcome,) = checker.check(suite.source, request.node.name, [check], frame, suite.key)
    assert not outcome.success
    assert fault.named in outcome.detail
    assert "could not be evaluated" not in outcome.detail
    assert check.why in outcome.lines() and check.label in outcome.lines()


def test_every_expectation_of_every_suite_has_a_fault(worlds):
    faulted = {(fault.table, fault.expectation) for fault in FAULTS}
    for world in worlds.values():
        for suite in world.suites.values():
            labels = [check.label for check in suite.checks]
            assert len(labels) == len(set(labels)), f"{suite.table}: two expectations of one name"
            unproved = {(suite.table, label) for label in labels} - faulted
            assert not unproved, "add a line to tests/expectations/faults.txt"


def test_every_table_has_a_suite_whose_columns_are_the_contract(by_time):
    assert set(by_time.suites) == set(SCHEMAS)
    for name, suite in by_time.suites.items():
        names = schema_frame(SCHEMAS[name])
        assert suite.columns == names.iloc[0].to_dict(), name
        assert list(suite.columns) == list(names), name


def test_every_expectation_of_every_schema_can_fail(by_time, checker):
    for name, suite in by_time.suites.items():
        wrong = pa.schema([pa.field(column, pa.date32()) for column in reversed(suite.columns)])
        outcomes = checker.check(suite.source, f"{name} wrong", schema_checks(suite), schema_frame(wrong), [])
        assert not any(outcome.success for outcome in outcomes)
        assert all("'date32[day]'" in outcome.detail for outcome in outcomes[1:])


SCHEMA_FAULTS = {
    "another type": lambda s, i: s.set(i, pa.field(s.field(i).name, pa.date32())),
    "missing": lambda s, i: s.remove(i),
    "too many": lambda s, i: s.insert(i, pa.field("extra", pa.string())),
    "another order": lambda s, i: s.remove(i).insert(0 if i else 1, s.field(i)),
}


@pytest.mark.parametrize("fault", SCHEMA_FAULTS)
def test_a_wrong_schema_is_refused_by_column(by_time, checker, fault):
    suite, schema = by_time.suites["reviews"], REVIEWS
    for index, field in enumerate(schema):
        frame = schema_frame(SCHEMA_FAULTS[fault](schema, index))
        outcomes = checker.check(suite.source, f"{fault} {index}", schema_checks(suite), frame, [])
        failed = [outcome.check.label for outcome in outcomes if not outcome.success]
        expected = (
            {f"expect_column_values_to_be_in_set({field.name})"} if fault in ("another type", "missing") else set()
        )
        if fault != "another type":
            expected |= {f"expect_table_columns_to_match_ordered_list({len(schema)} columns)"}
        assert set(failed) == expected


# --- the command line, as CI and the stages use it


def test_a_bad_table_stops_the_run_and_leaves_no_report_that_looks_valid(by_time, tmp_path):
    data = broken_copy(by_time, tmp_path, "UPDATE reviews SET rating = 9 WHERE review_id = 'r007'")
    arguments = by_time.arguments("tables", tmp_path, data=data)
    arguments.report.write_text("of an earlier run")
    with pytest.raises(CheckFailed) as refused:
        validate_group(arguments, by_time.params)
    assert str(refused.value) == (
        "tables: 2 of 65 expectations failed\n"
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
    assert message.startswith("tables: 2 of 29 expectations failed\nbusinesses columns: expect_table_columns")
    assert "column 0: expected business_id, found name" in message
    assert 'could not be evaluated, Great Expectations raised: Error: The column "business_id"' in message


def test_the_exit_code_and_the_stream(by_time, tmp_path, capsys):
    data = broken_copy(by_time, tmp_path, "UPDATE reviews SET user_id = '' WHERE review_id = 'r007'")
    words = ["tables", "--data", str(data), "--report", str(tmp_path / "r.json"), "--docs", str(tmp_path / "docs")]
    arguments = parser().parse_args([*words, "--suites", str(SUITES), "--params", str(by_time.params_file)])
    assert exit_code_of(lambda: main(arguments)) == 2
    said = capsys.readouterr()
    assert (
        "error: tables: 1 of 65 expectations failed\nreviews: expect_column_value_lengths_to_be_between(user_id)"
        in said.err
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
    assert "reviews: 240 rows, 26 expectations held, not judged without --data: " in good.stdout
    assert "(business_known)" in good.stdout and "(reject_share)" in good.stdout
    data = broken_copy(by_time, tmp_path, "UPDATE reviews SET business_id = 'b77' WHERE review_id = 'r007'")
    asked = [*command, "--path", str(data / "tables" / "reviews.parquet"), "--data", str(by_time.data)]
    bad = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True)
    assert bad.returncode == 2
    assert bad.stderr.startswith(
        "error: reviews: 1 of 28 expectations failed\nreviews: expect_column_values_to_be_in_set("
    )
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
