"""Raw files to reviews, businesses, photos and rejects: rows read = reviews + rejects, counted and kept.

    TABLES/reviews.parquet     in the source's order
    TABLES/businesses.parquet  by business_id; a row for every business that a review or the metadata names
    TABLES/photos.parquet      by photo_id
    TABLES/rejects.parquet     by source_row

docs/formats.md says what each source's records become.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from tqdm import tqdm

from pipelines.core.command import run_stage
from pipelines.core.errors import UserError
from pipelines.core.params import Params
from pipelines.core.tables import BUSINESSES, PHOTOS, REJECTS, REVIEWS, parquet_writer, whole_file
from pipelines.formats import reader_of
from pipelines.formats.photo_files import PhotoFiles, list_photos, sha256_of
from pipelines.formats.records import RAW_LENGTH
from pipelines.formats.staging import stage_records

ROWS = 16_384  # of a row group in the tables; a batch of long reviews is what the memory must hold several times
MEMORY = "1GB"  # DuckDB's; what does not fit is spilled beside the staged files

# A record is a duplicate of the first one with its content, else of the first one left with its id.
DUPLICATES = """
CREATE TABLE duplicates AS
WITH firsts AS (
    SELECT content, min(source_row) AS first_row FROM reviews GROUP BY content HAVING count(*) > 1
), exact AS (
    SELECT source_row, first_row FROM reviews JOIN firsts USING (content) WHERE source_row > first_row
), left_over AS (
    SELECT source_row, review_id FROM reviews ANTI JOIN exact USING (source_row)
), ids AS (
    SELECT review_id, min(source_row) AS first_row FROM left_over GROUP BY review_id HAVING count(*) > 1
)
SELECT source_row, format('exact duplicate: repeats row {}', first_row) AS reason FROM exact
UNION ALL
SELECT source_row, format('duplicate review id: first at row {}', first_row)
FROM left_over JOIN ids USING (review_id) WHERE source_row > first_row
"""
REJECTS_SQL = """
SELECT * FROM rejects
UNION ALL
SELECT source_row, reason,
    left(to_json({'review_id': review_id, 'user_id': user_id, 'business_id': business_id, 'rating': rating,
        'event_timestamp': strftime(event_timestamp, '%Y-%m-%dT%H:%M:%S.%fZ'), 'text': text
    })::VARCHAR, getvariable('raw_length'))
FROM reviews JOIN duplicates USING (source_row)
ORDER BY source_row
"""
BUSINESSES_SQL = """
WITH described AS (
    SELECT business_id, arg_min({'name': name, 'categories': categories, 'price': price}, position) AS first
    FROM businesses GROUP BY business_id
), named AS (
    SELECT DISTINCT business_id FROM reviews ANTI JOIN duplicates USING (source_row)
    UNION SELECT business_id FROM businesses
    UNION SELECT business_id FROM photos WHERE source_row IS NULL
)
SELECT business_id, first.name AS name, coalesce(first.categories, []) AS categories, first.price AS price
FROM named LEFT JOIN described USING (business_id)
ORDER BY business_id
"""
PHOTOS_SQL = """
SELECT photo_id, unnest(first) FROM (
SELECT photo_id,
    arg_min({'review_id': review_id, 'business_id': business_id, 'caption': caption}, position) AS first
FROM photos ANTI JOIN duplicates USING (source_row)
GROUP BY photo_id
) ORDER BY photo_id
"""
COUNTS_SQL = """
SELECT
    (SELECT count(*) FROM reviews) + (SELECT count(*) FROM rejects) AS records,
    count(*) AS reviews,
    count(DISTINCT user_id) AS users,
    count(DISTINCT business_id) AS reviewed_businesses,
    count(*) FILTER (label = 1) AS positives,
    count(*) FILTER (event_timestamp IS NULL) AS without_instant,
    count(*) FILTER (text = '') AS without_text,
    count(*) FILTER (contains(text, chr(65533))) AS with_replacement_characters
FROM reviews ANTI JOIN duplicates USING (source_row)
"""
AGAIN_SQL = """
SELECT
    (SELECT count(*) - count(DISTINCT business_id) FROM businesses) AS "business: id seen before",
    (SELECT count(*) - count(DISTINCT photo_id) FROM photos ANTI JOIN duplicates USING (source_row))
        AS "photo: id seen before"
"""
REASONS_SQL = """
SELECT split_part(reason, ':', 1) AS kind, count(*) AS times, min(source_row) AS row,
    arg_min(reason, source_row) AS example
FROM read_parquet(?) GROUP BY kind ORDER BY times DESC, kind
"""
PHOTO_COUNTS_SQL = (
    "SELECT count(*) AS photos, count(path) AS photo_files, count(caption) AS captions FROM read_parquet(?)"
)


@contextmanager
def staged_tables(folder: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB over the staged files of `folder`, with the table `duplicates` made."""
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(f"SET memory_limit = '{MEMORY}'")
        connection.execute(f"SET VARIABLE raw_length = {RAW_LENGTH}")
        connection.execute("SET temp_directory = ?", [str(folder / "spill")])
        for name in ("reviews", "businesses", "photos", "rejects"):
            connection.read_parquet(str(folder / f"{name}.parquet")).create_view(name)
        connection.execute(DUPLICATES)
        yield connection


def batches(connection: duckdb.DuckDBPyConnection, query: str, schema: pa.Schema) -> Iterator[pa.Table]:
    """The rows of `query` as tables of `schema`, ROWS at a time."""
    for batch in connection.execute(query).to_arrow_reader(ROWS):
        yield pa.Table.from_batches([batch]).select(schema.names).cast(schema)


def kept_reviews(staged: Path, duplicates: pa.Array) -> Iterator[pa.Table]:
    """Staged reviews less the rows `duplicates`, in the source's order."""
    with pq.ParquetFile(staged / "reviews.parquet") as file:
        for group in range(file.num_row_groups):  # iter_batches would hold several groups at once
            table = file.read_row_group(group, columns=["source_row", *REVIEWS.names])
            kept = table.filter(pc.invert(pc.is_in(table["source_row"], duplicates)))
            yield kept.select(REVIEWS.names).cast(REVIEWS)


def with_files(connection: duckdb.DuckDBPyConnection, files: PhotoFiles) -> Iterator[pa.Table]:
    """Photos with their file, its sum and its caption; the source's own caption goes before the sidecar's."""
    for batch in connection.execute(PHOTOS_SQL).to_arrow_reader(ROWS):
        rows = []
        for row in tqdm(batch.to_pylist(), desc="photo files", unit="photo", delay=5):
            path = files.path_of(row["photo_id"])
            row["caption"] = row["caption"] or files.captions.get(row["photo_id"])
            row["path"] = None if path is None else path.as_posix()
            row["sha256"] = None if path is None else sha256_of(path)
            rows.append(row)
        yield pa.Table.from_pylist(rows, schema=PHOTOS)


def write_batches(tables: Iterator[pa.Table], path: Path, schema: pa.Schema) -> int:
    """Stream `tables` into `path`; the number of rows."""
    rows = 0
    with parquet_writer(path, schema) as writer:
        for table in tables:
            writer.write_table(table)
            rows += len(table)
    return rows


def write_tables(staged: Path, out: Path, files: PhotoFiles, path: Path) -> dict[str, Any]:
    """Write the four tables into `out`, and count. UserError where no record is a review."""

    def rows(query: str, *values: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = connection.execute(query, values).to_arrow_table().to_pylist()
        return found

    with staged_tables(staged) as connection:
        counts = rows(COUNTS_SQL)[0]
        counts["rejects"] = write_batches(batches(connection, REJECTS_SQL, REJECTS), out / "rejects.parquet", REJECTS)
        reasons = rows(REASONS_SQL, str(out / "rejects.parquet"))
        if counts["records"] == 0:
            raise UserError(f"{path}: holds no record at all; download or export it again")
        if counts["reviews"] == 0:
            most = reasons[0]
            raise UserError(
                f"{path}: none of its {counts['records']} records is a review; {most['times']} are like row "
                f"{most['row']} ({most['example']}); check `ingest.source` and `ingest.columns`"
            )
        duplicates = connection.execute("SELECT source_row FROM duplicates").to_arrow_table()["source_row"]
        write_batches(kept_reviews(staged, duplicates), out / "reviews.parquet", REVIEWS)
        counts["businesses"] = write_batches(
            batches(connection, BUSINESSES_SQL, BUSINESSES), out / "businesses.parquet", BUSINESSES
        )
        write_batches(with_files(connection, files), out / "photos.parquet", PHOTOS)
        counts |= rows(PHOTO_COUNTS_SQL, str(out / "photos.parquet"))[0]
        counts["ignored"] = {what: times for what, times in rows(AGAIN_SQL)[0].items() if times}
    return counts | {"rejects_by_reason": {reason["kind"]: reason["times"] for reason in reasons}}


def publish(staged: Path, tables: Path, counts: dict[str, Any], report: Path) -> None:
    """Move all four tables and the report to their places at the end, when nothing can fail any more."""
    with ExitStack() as stack:
        for name in ("reviews", "businesses", "photos", "rejects"):
            target = stack.enter_context(whole_file(tables / f"{name}.parquet"))
            (staged / f"{name}.parquet").replace(target)
        target = stack.enter_context(whole_file(report))
        target.write_text(json.dumps(counts, sort_keys=True, indent=2) + "\n", encoding="utf-8")


def main(args: argparse.Namespace, params: Params) -> None:
    """Read the source once, stage it, find duplicates, write, count."""
    settings = params.ingest
    files = list_photos(args.photos)
    records = reader_of(settings.source)(args.source, settings.columns.given())
    args.tables.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".ingest-", dir=args.tables.parent) as folder:
        staged, out = Path(folder) / "staged", Path(folder) / "out"
        staged.mkdir()
        ignored = stage_records(records, staged)
        counts = write_tables(staged, out, files, args.source)
        counts |= {"source": settings.source, "ignored": counts["ignored"] | ignored}
        publish(out, args.tables, counts, args.report)
    print(f"{args.source}: {counts['records']} records = {counts['reviews']} reviews + {counts['rejects']} rejects")
    for reason, times in sorted(counts["rejects_by_reason"].items()):
        print(f"  {times} x {reason}")
    for what, times in sorted(counts["ignored"].items()):
        print(f"  ignored: {times} x {what}")


if __name__ == "__main__":
    run_stage(
        main,
        __doc__,
        {
            "source": "the raw file or folder",
            "photos": "folder with the photos' files",
            "tables": "folder of the tables",
            "report": "counts, JSON",
        },
    )
