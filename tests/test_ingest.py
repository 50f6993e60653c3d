"""The stage: duplicates, order, sums, repeatability; and the real files where they lie beside the repository."""

import json
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.formats.zomato import TIME
from tests.formats.running import REPO, lines, run

ZOMATO = REPO.parent / "shared" / "data" / "zomato"

# Review id, content (text) of each row in order -> fate. The ids are Yelp's own.
DUPLICATES = """
r1 a | kept
r2 b | kept
r1 a | exact duplicate: repeats row 1
r1 c | duplicate review id: first at row 1
r3 a | exact duplicate: repeats row 1
r4 c | exact duplicate: repeats row 4
r2 d | duplicate review id: first at row 2
r5 e | kept
"""


def yelp(review_id: str, text: str) -> dict:
    review = {"user_id": "u", "business_id": "b", "stars": 5, "date": "2019-01-01 10:00:00"}
    return review | {"review_id": review_id, "text": text}


def test_duplicates(tmp_path):
    rows = [row.split(" | ") for row in DUPLICATES.strip().splitlines()]
    raw = lines(tmp_path / "raw.json", *(yelp(*row[0].split()) for row in rows))
    reasons = run(tmp_path, "yelp", raw).reasons()
    assert [reasons.get(number, "kept") for number in range(1, len(rows) + 1)] == [row[1] for row in rows]


def test_a_duplicate_leaves_what_it_said_among_the_rejects_and_no_photo(tmp_path):
    review = {"user_id": "u", "gmap_id": "b", "time": 1_600_000_000_123, "rating": 5, "text": "x" * 3000}
    first = review | {"pics": [{"url": ["https://photos.example/p/one"]}]}
    again = review | {"pics": [{"url": ["https://photos.example/p/two"]}]}
    found = run(tmp_path, "google_local", lines(tmp_path / "raw.jsonl", first, again))
    assert [photo["photo_id"] for photo in found.photos] == ["one"]
    raw = found.rejects[0]["raw"]
    assert len(raw) == 1000
    assert raw.startswith(
        f'{{"review_id":"{found.reviews[0]["review_id"]}","user_id":"u","business_id":"b","rating":5.0,'
    )
    assert '"event_timestamp":"2020-09-13T12:26:40.123000Z"' in raw


def obvious_fates(records: list[dict]) -> dict[int, str]:
    """Rejects by row, the plain way: first by content, then, of those left, by id."""
    contents: dict[tuple, int] = {}
    exact = {}
    for row, record in enumerate(records, 1):
        content = tuple(record[key] for key in ("user_id", "business_id", "stars", "date", "text"))
        if contents.setdefault(content, row) != row:
            exact[row] = f"exact duplicate: repeats row {contents[content]}"
    ids: dict[str, int] = {}
    twice = {}
    for row, record in enumerate(records, 1):
        if row not in exact and ids.setdefault(record["review_id"], row) != row:
            twice[row] = f"duplicate review id: first at row {ids[record['review_id']]}"
    return exact | twice


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("xyz"), st.sampled_from("uv")), min_size=1, max_size=30)
)
def test_duplicates_as_the_obvious_way_finds_them(tmp_path_factory, drawn):
    work = tmp_path_factory.mktemp("ingest")
    records = [yelp(review_id, text) | {"user_id": user} for review_id, text, user in drawn]
    found = run(work, "yelp", lines(work / "raw.json", *records))
    assert found.reasons() == obvious_fates(records)
    kept = [record["review_id"] for row, record in enumerate(records, 1) if row not in found.reasons()]
    assert [review["review_id"] for review in found.reviews] == kept


def test_order_over_batches_and_the_same_bytes_twice(tmp_path, monkeypatch):
    """Small batches and row groups: rows keep the source's order, and a second run writes the same bytes."""
    monkeypatch.setattr("pipelines.formats.staging.BATCH", 7)
    monkeypatch.setattr("pipelines.ingest.ROWS", 10)
    records = [yelp(f"r{number % 90}", f"text {number}") | {"business_id": f"b{number % 13}"} for number in range(100)]
    raw = lines(tmp_path / "raw.json", *records)

    def files() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in [*(tmp_path / "tables").iterdir(), tmp_path / "ingest.json"]}

    found = run(tmp_path, "yelp", raw)
    assert [review["text"] for review in found.reviews] == [f"text {number}" for number in range(90)]
    assert [reject["source_row"] for reject in found.rejects] == list(range(91, 101))
    ids = [business["business_id"] for business in found.businesses]
    assert ids == sorted(f"b{number}" for number in range(13))
    before = files()
    run(tmp_path, "yelp", raw)
    assert files() == before
    assert [path.name for path in (tmp_path).iterdir() if path.name.startswith(".")] == []


def test_a_business_that_only_rejects_name_has_no_row(tmp_path):
    bad = {"user_id": "u", "gmap_id": "only a reject's", "time": 1, "rating": 9, "text": "t"}
    found = run(tmp_path, "google_local", lines(tmp_path / "raw.jsonl", bad, bad | {"rating": 4, "gmap_id": "b"}))
    assert [business["business_id"] for business in found.businesses] == ["b"]
    again = [yelp("r", "one"), yelp("r", "two") | {"business_id": "only a duplicate's"}]
    found = run(tmp_path, "yelp", lines(tmp_path / "raw.json", *again))
    assert [business["business_id"] for business in found.businesses] == ["b"]


def newest_to_oldest(reviews: list[dict], *, day_first_dashes: bool) -> int:
    """Steps within a restaurant that go forward in time, when read one way or the other (unreadable ones left out)."""
    steps = 0
    previous: dict[str, datetime] = {}
    for review in reviews:
        match = TIME.fullmatch(review["Time"].strip())
        if match is None:
            continue
        first, sign, second, year, hour, minute = match.groups()
        month, day = (second, first) if day_first_dashes and sign == "-" else (first, second)
        if int(month) > 12:
            continue
        at = datetime(int(year), int(month), int(day), int(hour), int(minute))
        steps += review["Restaurant"] in previous and at > previous[review["Restaurant"]]
        previous[review["Restaurant"]] = at
    return steps


@pytest.mark.slow
@pytest.mark.skipif(not ZOMATO.exists(), reason="../shared/data/zomato is not there")
class TestTheRealZomato:
    def test_every_record_is_a_review_or_a_reject(self, tmp_path):
        found = run(tmp_path, "zomato", ZOMATO)
        assert found.report["records"] == 10_000
        assert found.report["reviews"] == 9_961
        assert found.report["rejects_by_reason"] == {"no user id": 38, "rating is not a number": 1}
        assert found.report["reviewed_businesses"] == 100
        assert found.report["businesses"] == 105
        assert all(business["price"] for business in found.businesses)

    def test_both_notations_are_month_first(self):
        from pipelines.formats.csv_rows import csv_rows

        rows = [row for _, row in csv_rows(ZOMATO / "Restaurant reviews.csv") if isinstance(row, dict)]
        # Two rows stand out of order in the file itself.
        assert newest_to_oldest(rows, day_first_dashes=False) == 2
        assert newest_to_oldest(rows, day_first_dashes=True) > 1_000


@pytest.mark.slow
def test_a_large_file_streams_in_bounded_memory(tmp_path):
    """300 MB of reviews; the process may take less than twice that, imports and DuckDB's own limit included."""
    raw = tmp_path / "raw.jsonl"
    text = "word " * 200
    with raw.open("w") as handle:
        for number in range(270_000):
            review = {
                "user_id": f"u{number % 9999}",
                "gmap_id": f"b{number % 99}",
                "time": number,
                "rating": 1 + number % 5,
            }
            handle.write(json.dumps(review | {"text": f"{number} {text}", "pics": None}) + "\n")
    assert raw.stat().st_size > 290e6
    program = (
        "import argparse; from pathlib import Path; from pipelines import ingest;"
        "from pipelines.core.params import Ingest;"
        "from tests.formats.running import PARAMS;"
        f"work = Path({str(tmp_path)!r}); (work / 'photos').mkdir();"
        "settings = Ingest(source='google_local', path='x', photos='x', columns={});"
        f"ingest.main(argparse.Namespace(source=Path({str(raw)!r}), photos=work / 'photos', tables=work / 'tables',"
        " report=work / 'ingest.json'), PARAMS.model_copy(update={'ingest': settings}));"
        # ru_maxrss would count the process that started this one, VmHWM is this program's alone
        "print(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=REPO, capture_output=True, text=True, check=True)
    peak_kb = int(done.stdout.splitlines()[-1])
    assert "270000 reviews" in done.stdout
    print(f"peak {peak_kb} kB")
    assert peak_kb < 600_000
