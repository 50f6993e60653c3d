"""A file that cannot be used stops with one line: file, place, remedy. The lines themselves are specified here."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from pipelines.core.errors import UserError
from tests.formats.running import REPO, lines, run

LOCAL = json.dumps({"user_id": "u", "gmap_id": "b", "time": 1, "rating": 5, "text": "t"}).encode()
YELP = {"review_id": "r", "user_id": "u", "business_id": "b", "stars": 5, "date": "2019-01-01 10:00:00", "text": "t"}
RESTAURANT = {"business_id": "b", "user_id": "u", "rating": 5, "review_text": "t", "pics": [], "history_reviews": []}
ZOMATO = b"Restaurant,Reviewer,Review,Rating,Metadata,Time,Pictures\r"
TABLE = b"user_id,business_id,rating,text\n"


def parquet(columns: dict[str, list]) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue().to_pybytes()


PARQUET = parquet({"user_id": ["u"], "business_id": ["b"], "rating": [5], "text": ["t"]})

# (source, file name, bytes; None: no such file) -> the line, with the file's path as FILE.
BAD_FILES = [
    ("synthetic", "raw", None, "FILE: no simulated world here; run `dvc repro simulate` to make it"),
    ("google_local", "raw.jsonl", None, "FILE: no such file or folder; set `ingest.path` to the raw data"),
    ("google_local", "raw.jsonl", b"", "FILE: the file is empty (0 bytes); download or export it again"),
    ("google_local", "raw.jsonl", LOCAL + b"\n" + LOCAL[:40],
     "FILE: line 2, the last, ends within a record: the file is truncated; download it again"),
    ("google_local", "raw.jsonl", TABLE + b"u,b,5,t\n",
     "FILE: line 1: expected JSON Lines, a JSON object a line; the first lines hold none"),
    ("google_local", "raw.jsonl", b"hello",
     "FILE: line 1: expected JSON Lines, a JSON object a line (not JSON: Expecting value: line 1 column 1 (char 0))"),
    ("google_local", "raw.jsonl", b"PK\x03\x04....",
     "FILE: byte 0: the file is a ZIP archive (or an Excel workbook): unpack it, or export it as CSV"),
    ("google_local", "raw.jsonl", b"\xff\xfe{\x00",
     "FILE: byte 0: the file is UTF-16 text: save it as UTF-8"),
    ("google_local", "raw.jsonl", b"<!DOCTYPE html>",
     "FILE: byte 0: the file is a web page, perhaps the download's error page: download the data again"),
    ("google_local", "raw.json.gz", gzip.compress(LOCAL * 50, mtime=0)[:-20],
     "FILE: byte 85: the gzip file is truncated or damaged (Compressed file ended before the end-of-stream marker was "
     "reached); download it again"),
    ("google_local", "raw.jsonl", json.dumps(YELP).encode() + b"\n",
     "FILE: line 1: has business_id, date, review_id, stars, text, user_id; expected gmap_id, rating, user_id "
     "(reviews); or gmap_id, name (metadata): set `ingest.source` to its format"),
    ("google_local", "raw.jsonl", b'{"gmap_id": "b", "name": "n"}\n',
     "FILE: holds no file of reviews (with gmap_id, rating, user_id); set `ingest.path` to the raw data"),
    ("google_local", "raw.jsonl", LOCAL.replace(b"5", b"9") + b"\n",
     "FILE: none of its 1 records is a review; 1 are like row 1 (rating outside 1 to 5: 9); check `ingest.source` and "
     "`ingest.columns`"),
    ("yelp", "raw.json", LOCAL + b"\n",
     "FILE: line 1: has gmap_id, rating, text, time, user_id; expected business_id, date, review_id, stars, user_id "
     "(reviews); or business_id, photo_id (photos); or business_id, categories, name (businesses): set `ingest.source` "
     "to its format"),
    ("google_restaurants", "raw.json", json.dumps({"train": [RESTAURANT] * 2}).encode()[:-20],
     "FILE: after entry 1 of `train`: the file is truncated or damaged (parse error: premature EOF); "
     "download it again"),
    ("google_restaurants", "raw.json", b'{"train": [], "val": [], "test": []}',
     "FILE: holds no record at all; download or export it again"),
    ("google_restaurants", "raw.json", LOCAL + b"\n",
     "FILE: line 1: has gmap_id, rating, text, time, user_id; expected business_id, rating, review_text, user_id, or "
     "one object of train, val and test: set `ingest.source` to its format"),
    ("zomato", "raw.csv", ZOMATO, "FILE: holds no record at all; download or export it again"),
    ("zomato", "raw.csv", TABLE,
     "FILE: line 1: has business_id, rating, text, user_id; expected Rating, Restaurant, Review, Reviewer, Time "
     "(reviews); or Cost, Cuisines, Name (restaurants): set `ingest.source` to its format"),
    ("zomato", "raw.csv", ZOMATO + b'A,u,"good\nfood',
     "FILE: line 3, the last, ends within a row: the file is truncated, or a quote is never closed; "
     "download or mend it"),
    ("zomato", "raw.csv", ZOMATO + b"A,u,good,5,x,5/25/2019 15:54,0\rA,u,go",
     "FILE: line 3, the last, ends within a row: the file is truncated, or a quote is never closed; "
     "download or mend it"),
    ("table", "raw.csv", b"\n\n", "FILE: line 1: expected the names of the columns, found '\\n'"),
    ("table", "raw.csv", b"user_id,user_id,business_id,rating,text\n",
     "FILE: line 1: two columns are named 'user_id'; rename one"),
    ("table", "raw.csv", b"user_id,business_id,stars,text\nu,b,5,t\n",
     "FILE: line 1: no column `rating` for `ingest.columns.rating`; the file has business_id, stars, text, user_id"),
    ("table", "raw.csv", TABLE + b'u,b,5,"' + b"x\n" * 70_000,
     "FILE: line 65538: a field is longer than 131072 characters: "
     "a quote before it is never closed, or the text is that long; mend it"),
    ("table", "raw.jsonl", b'[{"user_id": 1}]\n',
     "FILE: line 1: expected JSON Lines, a JSON object a line; the first lines hold none"),
    ("table", "raw.parquet", PARQUET[:200],
     "FILE: the Parquet file is truncated, damaged or unreadable (Parquet magic bytes not found in footer. "
     "Either the file is "
     "corrupted or this is not a parquet file.); export it again"),
    ("table", "raw.parquet", parquet({"user": ["u"], "rating": [5]}),
     "FILE: line 1: no column `user_id` for `ingest.columns.user_id`; the file has rating, user"),
]  # fmt: skip


@pytest.mark.parametrize(("source", "name", "content", "expected"), BAD_FILES)
def test_the_line_a_bad_file_gets(tmp_path, source, name, content, expected):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError) as refused:
        run(tmp_path, source, path)
    line = str(refused.value)
    assert line == expected.replace("FILE", str(path))
    assert "\n" not in line
    assert not (tmp_path / "tables").exists()


def test_the_lines_of_bad_folders(tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    two = tmp_path / "two"
    lines(two / "a.json", RESTAURANT)
    lines(two / "b.json", RESTAURANT)
    for source, path, photos, expected in [
        ("google_local", empty, None,
         f"{empty}: no file here ends in .json, .jsonl, .ndjson, .json.gz, .jsonl.gz, .ndjson.gz; "
         "set `ingest.path` to the raw data"),
        ("google_restaurants", two, None,
         f"{two}: holds a.json, b.json, which repeat each other's reviews; set `ingest.path` to one of them"),
        ("table", empty, None, f"{empty}: is a folder; set `ingest.path` to the file itself"),
        ("google_restaurants", two / "a.json", tmp_path / "nowhere",
         f"{tmp_path / 'nowhere'}: no such folder; set `ingest.photos` to the photos' folder (it may be empty)"),
    ]:  # fmt: skip
        with pytest.raises(UserError) as refused:
            run(tmp_path, source, path, photos=photos)
        assert str(refused.value) == expected


def test_a_column_that_is_asked_for_and_lacking(tmp_path):
    path = tmp_path / "raw.csv"
    path.write_bytes(TABLE + b"u,b,5,t\n")
    with pytest.raises(UserError) as refused:
        run(tmp_path, "table", path, columns={"timestamp": "when"})
    assert str(refused.value) == (
        f"{path}: line 1: no column `when` for `ingest.columns.timestamp`; "
        "the file has business_id, rating, text, user_id"
    )


def test_a_line_too_long_for_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("pipelines.formats.json_lines.LONGEST_LINE", 100)
    with pytest.raises(UserError, match="line 2 is longer than 100 bytes; this is not JSON Lines"):
        run(tmp_path, "google_local", lines(tmp_path / "raw.jsonl", LOCAL.decode(), "x" * 200))


def test_the_command_line_says_it_in_one_line_and_touches_nothing(tmp_path):
    """A good run, then a truncated file: exit code 2, one line, no traceback, the first run's tables untouched."""
    raw = tmp_path / "raw.jsonl"
    (tmp_path / "photos").mkdir()
    params = yaml.safe_load((REPO / "params.yaml").read_text())
    params["ingest"] |= {"source": "google_local", "path": str(raw), "photos": str(tmp_path / "photos"), "columns": {}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))

    def ingest() -> subprocess.CompletedProcess[str]:
        command = f"-m pipelines.ingest --params {tmp_path}/params.yaml --source {raw} --photos {tmp_path}/photos"
        places = f"--tables {tmp_path}/tables --report {tmp_path}/ingest.json"
        return subprocess.run(
            [sys.executable, *command.split(), *places.split()], cwd=REPO, capture_output=True, text=True, check=False
        )

    def contents(folder: Path) -> dict[Path, bytes]:
        return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}

    raw.write_bytes(LOCAL + b"\n")
    good = ingest()
    assert (good.returncode, good.stdout) == (0, f"{raw}: 1 records = 1 reviews + 0 rejects\n")
    raw.write_bytes(LOCAL + b"\n" + LOCAL[:40])
    before = contents(tmp_path)
    bad = ingest()
    assert bad.returncode == 2
    assert bad.stderr == (
        f"error: {raw}: line 2, the last, ends within a record: the file is truncated; download it again\n"
    )
    assert bad.stdout == ""
    assert contents(tmp_path) == before
