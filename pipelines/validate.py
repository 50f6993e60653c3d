"""Data checks: the suites of expectations/ over a group of tables, or over one table of yours.

    python -m pipelines.validate tables --data data --report results/validation/tables.json
    python -m pipelines.validate table --suite reviews --path my_reviews.parquet

Exit code 0: every expectation held, and the report is written. Exit code 2: one did not, or the input is unreadable;
stderr names table, expectation, column and sample rows, and there is no report. The Data Docs are written both times.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.checked_frames import connect, other_tables, read_schema, rows_frame, schema_frame, type_name
from pipelines.core.errors import CheckFailed, UserError, exit_code_of
from pipelines.core.params import Params, load_params
from pipelines.core.progress import progress
from pipelines.core.tables import whole_file
from pipelines.suites import Check, Group, Suite, read_suites

GROUPS: tuple[str, ...] = get_args(Group)


@dataclass(frozen=True)
class Job:
    """A suite, the files it is run over, and the expectations that cannot be judged without other tables."""

    suite: Suite
    files: tuple[Path, ...]
    schemas: tuple[pa.Schema, ...]
    needs: frozenset[str]  # the other tables it reads
    skipped: tuple[Check, ...] = ()


def schema_checks(suite: Suite) -> list[Check]:
    """`columns` as expectations over `schema_frame`: these columns, in this order, of these types."""
    why = "the contract of `pipelines/core/tables.py`: later stages and Feast read these names and types"
    order = Check("expect_table_columns_to_match_ordered_list", {"column_list": list(suite.columns)}, why)
    types = [
        Check("expect_column_values_to_be_in_set", {"column": name, "value_set": [kind]}, why)
        for name, kind in suite.columns.items()
    ]
    return [order, *types]


def job_of(suite: Suite, files: Sequence[Path], available: set[str] | None = None) -> Job:
    """Read the files' schemas; drop what needs a table that is not `available` (None: all are)."""
    needs = {column: other_tables(suite, column) for column in suite.derive}
    missing = {c for c, tables in needs.items() if available is not None and tables - available}
    skipped = tuple(check for check in suite.checks if missing & set(check.columns))
    kept = tuple(check for check in suite.checks if check not in skipped)
    looked_at = {column for check in kept for column in check.columns}
    needed = frozenset(table for column in looked_at for table in needs.get(column, ()))
    return Job(replace(suite, checks=kept), tuple(files), tuple(read_schema(path) for path in files), needed, skipped)


def validate(jobs: Sequence[Job], files: Mapping[str, Sequence[Path]], docs: Path) -> tuple[dict[str, Any], list[str]]:
    """Run the jobs; `files` are the Parquet files of every table that they read.

    Returns what the report says of each table, and a block of lines per failed expectation. The rows of a table are
    not looked at where its own columns, or those of a table it needs, are wrong.
    """
    from pipelines.checks import Checker, Outcome  # here: Great Expectations takes seconds to import

    checker = Checker(docs)
    outcomes: dict[str, list[Outcome]] = {}
    for job in jobs:
        outcomes[job.suite.table] = []
        for path, schema in zip(job.files, job.schemas, strict=True):
            name = f"{job.suite.table} columns" + (f" {path.stem}" if len(job.files) > 1 else "")
            checks = schema_checks(job.suite)
            outcomes[job.suite.table] += checker.check(job.suite.source, name, checks, schema_frame(schema), [])
    sound = {table for table, ran in outcomes.items() if all(outcome.success for outcome in ran)}
    with connect(files) as connection, progress(len(jobs), "validate", "table") as bar:
        for job in jobs:
            judged = {other.suite.table for other in jobs} & {job.suite.table, *job.needs}
            if job.suite.checks and judged <= sound:
                frame = rows_frame(connection, job.suite)
                outcomes[job.suite.table] += checker.check(
                    job.suite.source, job.suite.table, job.suite.checks, frame, job.suite.key
                )
            bar.update()
    print(f"validate: Data Docs at {checker.write_docs()}")
    report = {job.suite.table: table_report(job, outcomes[job.suite.table]) for job in jobs}
    return report, [outcome.lines() for ran in outcomes.values() for outcome in ran if not outcome.success]


def table_report(job: Job, outcomes: Sequence[Any]) -> dict[str, Any]:
    """The record of a table: rows, columns and types, what was expected and what was observed."""
    rows = sum(pq.read_metadata(path).num_rows for path in job.files)
    observed = {o.check.label: o.observed for o in outcomes if o.observed is not None}
    return {
        "columns": {field.name: type_name(field.type) for field in job.schemas[0]},
        "expectations": len(outcomes),
        "observed": observed,
        "rows": rows,
        "skipped": sorted(check.label for check in job.skipped),
        "success": all(outcome.success for outcome in outcomes),
    }


def write_report(report: Mapping[str, Any], path: Path) -> None:
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(report, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def finish(name: str, report: Mapping[str, Any], failures: Sequence[str], docs: Path, to: Path | None) -> None:
    """Write the report, or refuse: a failing one goes beside the Data Docs, and none stays where it looks valid."""
    if failures:
        if to is not None:
            to.unlink(missing_ok=True)
        write_report(report, docs / "report.json")
        count = sum(table["expectations"] for table in report.values())
        blocks = "\n".join(failures)
        raise CheckFailed(f"{name}: {len(failures)} of {count} expectations failed\n{blocks}")
    if to is not None:
        write_report(report, to)
    for table, said in report.items():
        skipped = f", not judged without --data: {', '.join(said['skipped'])}" if said["skipped"] else ""
        print(f"validate: {table}: {said['rows']} rows, {said['expectations']} expectations held{skipped}")


def validate_group(args: argparse.Namespace, params: Params) -> None:
    """All tables of a group, as the pipeline's stages do."""
    suites = read_suites(args.suites, params)
    files = {name: [args.data / file for file in suite.files] for name, suite in suites.items()}
    jobs = [job_of(suite, files[name]) for name, suite in suites.items() if suite.group == args.group]
    docs = args.docs / args.group
    report, failures = validate(jobs, needed_files(jobs, files), docs)
    finish(args.group, report, failures, docs, args.report)


def validate_table(args: argparse.Namespace, params: Params) -> None:
    """One table of the user's, against one suite; with --data also against the tables there."""
    suites = read_suites(args.suites, params)
    if args.suite not in suites:
        raise UserError(f"--suite {args.suite}: no such suite; there are {', '.join(sorted(suites))}")
    suite = suites[args.suite]
    if len(args.path) != len(suite.files):
        raise UserError(f"--path: {suite.table} lies in {len(suite.files)} files ({', '.join(suite.files)})")
    files = {name: [args.data / file for file in other.files] for name, other in suites.items()} if args.data else {}
    job = job_of(suite, args.path, None if args.data else {suite.table})
    files[suite.table] = args.path
    docs = args.docs / "table"
    report, failures = validate([job], needed_files([job], files), docs)
    finish(suite.table, report, failures, docs, args.report)


def needed_files(jobs: Sequence[Job], files: Mapping[str, Sequence[Path]]) -> dict[str, Sequence[Path]]:
    """The files of the jobs' tables and of those they read. UserError where one is missing or unreadable."""
    needed = {name: files[name] for job in jobs for name in (job.suite.table, *sorted(job.needs))}
    for paths in needed.values():
        for path in paths:
            read_schema(path)
    return needed


def parser() -> argparse.ArgumentParser:
    main = argparse.ArgumentParser(
        prog="python -m pipelines.validate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--suites", type=Path, default=Path("expectations"), metavar="FOLDER", help="default: %(default)s"
    )
    common.add_argument("--docs", type=Path, default=Path("data/data_docs"), metavar="FOLDER",
                        help="where the Data Docs go, default: %(default)s")  # fmt: skip
    common.add_argument("--params", type=Path, default=Path("params.yaml"), metavar="PATH", help="default: %(default)s")
    what = main.add_subparsers(dest="group", required=True, metavar="{tables,features,training_set,table}")
    for group in GROUPS:
        one = what.add_parser(group, parents=[common], help=f"the {group.replace('_', ' ')} group, as the stage does")
        one.add_argument("--data", type=Path, required=True, metavar="FOLDER", help="the data folder")
        one.add_argument("--report", type=Path, required=True, metavar="PATH", help="the JSON record to write")
        one.set_defaults(run=validate_group)
    table = what.add_parser("table", parents=[common], help="one Parquet file of yours, against one suite",
                            epilog="example: --suite reviews --path my_reviews.parquet")  # fmt: skip
    table.add_argument("--suite", required=True, metavar="NAME", help="reviews, businesses, photos, …")
    table.add_argument("--path", type=Path, required=True, nargs="+", metavar="PATH",
                       help="the Parquet file (training_set: train, validation, test)")  # fmt: skip
    table.add_argument("--data", type=Path, metavar="FOLDER",
                       help="a folder with the other tables; without it, what needs them is not judged")  # fmt: skip
    table.add_argument("--report", type=Path, metavar="PATH", help="a JSON record to write")
    table.set_defaults(run=validate_table)
    return main


def main(args: argparse.Namespace) -> None:
    args.run(args, load_params(args.params))


if __name__ == "__main__":
    arguments = parser().parse_args()
    sys.exit(exit_code_of(lambda: main(arguments)))
