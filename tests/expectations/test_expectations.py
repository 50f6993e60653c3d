"""The suites hold on good tables, and every expectation of every one is seen to fail."""

import json
from dataclasses import replace

import pyarrow as pa
import pytest

from pipelines.checked_frames import rows_frame, schema_frame
from pipelines.core.tables import (
    BUSINESSES,
    DESCRIPTIONS,
    PHOTO_REJECTS,
    PHOTOS,
    REJECTS,
    REVIEW_TEXT,
    REVIEWS,
    SPLIT,
    SUMMARIES,
    TAGS,
    VIEWS_OF_STAGE,
    feature_tables,
    read_table,
)
from pipelines.core.training_rows import training_set_schema
from pipelines.core.vocabulary import MOST_SUBTYPES, PRICE_TAGS
from pipelines.validate import GROUPS, schema_checks, validate_group
from tests.expectations.faults import read_faults

FAULTS = read_faults()
# What another world than `time` has of its own.
OTHERS = {
    "loo": lambda table: True,
    "loo-fold": lambda table: table == "training_set" or table.endswith("_by_review"),
}
SCHEMAS = {
    "reviews": REVIEWS, "businesses": BUSINESSES, "photos": PHOTOS, "rejects": REJECTS, "split": SPLIT,
    "review_text": REVIEW_TEXT, "descriptions": DESCRIPTIONS, "photo_rejects": PHOTO_REJECTS,
    "summaries": SUMMARIES, "tags": TAGS,
    **{name: schema for stage in VIEWS_OF_STAGE for name, schema in feature_tables(stage).items()},
    "training_set": training_set_schema(),
}  # fmt: skip


@pytest.mark.parametrize("group", GROUPS)
def test_good_tables_pass_and_the_report_is_the_same_each_time(by_time, tmp_path, group):
    world = by_time
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


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.table}-{fault.expectation}-{fault.world}")
def test_the_fault_fails_its_expectation_which_names_the_row(worlds, judge, fault):
    world = worlds[fault.world]
    suite = world.suites[fault.table]
    (check,) = [check for check in suite.checks if check.label == fault.expectation]
    world.connection.execute("BEGIN")
    try:
        assert world.connection.execute(fault.sql).fetchall()[0][0] > 0, "the fault changed no row"
        frame = rows_frame(world.connection, replace(suite, checks=(check,)))
    finally:
        world.connection.execute("ROLLBACK")
    (outcome,) = judge.judge(suite, [check], frame, suite.key)
    assert not outcome.success
    assert fault.named in outcome.detail
    assert "could not be evaluated" not in outcome.detail
    assert check.why in outcome.lines() and check.label in outcome.lines()


@pytest.mark.parametrize("name", OTHERS)
def test_good_tables_of_other_params_pass(worlds, judge, name):
    world = worlds[name]
    for suite in [suite for suite in world.suites.values() if OTHERS[name](suite.table)]:
        for outcome in judge.judge(suite, suite.checks, rows_frame(world.connection, suite), suite.key):
            assert outcome.success, outcome.lines()


def test_a_source_without_instants_passes_under_leave_one_out(worlds, judge):
    world = worlds["loo"]
    world.connection.execute("BEGIN")
    try:
        world.connection.execute("UPDATE reviews SET event_timestamp = NULL")
        world.connection.execute("UPDATE training_set SET event_timestamp = NULL")
        frames = {
            name: rows_frame(world.connection, world.suites[name]) for name in ("reviews", "split", "training_set")
        }
    finally:
        world.connection.execute("ROLLBACK")
    for name, frame in frames.items():
        suite = world.suites[name]
        for outcome in judge.judge(suite, suite.checks, frame, suite.key):
            assert outcome.success, outcome.lines()


SAY_NOTHING = """
    UPDATE reviews SET text = ' ';
    UPDATE review_text SET embedding = NULL;
    UPDATE user_text SET embedding = NULL;
    UPDATE business_text SET embedding = NULL;
    TRUNCATE photos; TRUNCATE descriptions; TRUNCATE photo_rejects;
    TRUNCATE summaries; TRUNCATE user_summary; TRUNCATE business_summary;
    TRUNCATE user_summary_by_review; TRUNCATE business_summary_by_review;
    TRUNCATE tags; TRUNCATE business_tags; TRUNCATE business_tags_by_review;
    UPDATE business_photos_by_review SET (caption_embedding, image_embedding) = (NULL, NULL);
    UPDATE training_set SET (user_summary__embedding, user_summary__snapshot_id) = (NULL, NULL);
    UPDATE training_set SET (business_summary__embedding, business_summary__snapshot_id) = (NULL, NULL);
    UPDATE training_set SET (business_tags__price_tag, business_tags__subtypes) = (NULL, NULL);
    UPDATE training_set SET (business_tags__snapshot_id, business_photos__caption_embedding) = (NULL, NULL);
    UPDATE training_set SET (user_text__embedding, business_text__embedding) = (NULL, NULL);
    UPDATE training_set SET business_photos__image_embedding = NULL;
"""
NO_PHOTO_ROWS = {
    "time": "TRUNCATE business_photos",
    "loo": "UPDATE business_photos SET (caption_embedding, image_embedding) = (NULL, NULL)",
}


@pytest.mark.parametrize("name", NO_PHOTO_ROWS)
def test_a_source_without_texts_and_photos_passes(worlds, judge, name):
    world = worlds[name]
    world.connection.execute("BEGIN")
    try:
        world.connection.execute(SAY_NOTHING + NO_PHOTO_ROWS[name])
        frames = {table: rows_frame(world.connection, suite) for table, suite in world.suites.items()}
    finally:
        world.connection.execute("ROLLBACK")
    for table, frame in frames.items():
        suite = world.suites[table]
        for outcome in judge.judge(suite, suite.checks, frame, suite.key):
            assert outcome.success, outcome.lines()


def test_every_expectation_of_every_suite_has_a_fault(worlds):
    faulted = {(fault.table, fault.expectation) for fault in FAULTS}
    for world in worlds.values():
        for suite in world.suites.values():
            labels = [check.label for check in suite.checks]
            assert len(labels) == len(set(labels)), f"{suite.table}: two expectations of one name"
            unproved = {(suite.table, label) for label in labels} - faulted
            assert not unproved, "add a line to tests/expectations/faults.txt"


def test_every_table_has_a_suite_whose_columns_are_the_contract(worlds):
    for world in worlds.values():
        assert set(world.suites) == set(SCHEMAS)
        for name, suite in world.suites.items():
            names = schema_frame(SCHEMAS[name])
            assert suite.columns == names.iloc[0].to_dict(), name
            assert list(suite.columns) == list(names), name


def test_the_words_of_tags_are_the_vocabulary(by_time):
    for table, column, count in (
        ("tags", "price_tag", "subtypes_count"),
        ("training_set", "business_tags__price_tag", "subtypes_count"),
    ):
        kwargs = {check.label: check.kwargs for check in by_time.suites[table].checks}
        assert kwargs[f"expect_column_values_to_be_in_set({column})"]["value_set"] == list(PRICE_TAGS)
        assert kwargs[f"expect_column_values_to_be_between({count})"]["max_value"] == MOST_SUBTYPES


def test_every_expectation_of_every_schema_can_fail(by_time, judge):
    for suite in by_time.suites.values():
        wrong = pa.schema([pa.field(column, pa.date32()) for column in reversed(suite.columns)])
        outcomes = judge.judge(suite, schema_checks(suite), schema_frame(wrong), [])
        assert not any(outcome.success for outcome in outcomes)
        assert all("'date32[day]'" in outcome.detail for outcome in outcomes[1:])


SCHEMA_FAULTS = {
    "another type": lambda s, i: s.set(i, pa.field(s.field(i).name, pa.date32())),
    "missing": lambda s, i: s.remove(i),
    "too many": lambda s, i: s.insert(i, pa.field("extra", pa.string())),
    "another order": lambda s, i: s.remove(i).insert(0 if i else 1, s.field(i)),
}


@pytest.mark.parametrize("fault", SCHEMA_FAULTS)
def test_a_wrong_schema_is_refused_by_column(by_time, judge, fault):
    suite, schema = by_time.suites["reviews"], REVIEWS
    for index, field in enumerate(schema):
        frame = schema_frame(SCHEMA_FAULTS[fault](schema, index))
        outcomes = judge.judge(suite, schema_checks(suite), frame, [])
        failed = [outcome.check.label for outcome in outcomes if not outcome.success]
        expected = (
            {f"expect_column_values_to_be_in_set({field.name})"} if fault in ("another type", "missing") else set()
        )
        if fault != "another type":
            expected |= {f"expect_table_columns_to_match_ordered_list({len(schema)} columns)"}
        assert set(failed) == expected
