"""Each format's layout, as its publisher describes it, in a few records."""

import io
import json
from datetime import UTC, date, datetime
from typing import get_args

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.core.params import Source
from pipelines.formats import MODULES, reader_of
from pipelines.formats.google_restaurants import Utf8
from pipelines.formats.records import content_hash
from tests.formats.running import lines, run

AT = datetime(2020, 9, 13, 12, 26, 40, 123000, tzinfo=UTC)
LOCAL = {
    "user_id": "101463350189962023774", "name": "Jordan", "time": 1_600_000_000_123, "rating": 5, "text": "Cool place",
    "pics": [{"url": ["https://photos.example/p/AF1a=w150-h150-k-no-p"]}, {"url": ["https://photos.example/p/AF1b=w9"]}],
    "resp": {"time": 1, "text": "Thank you"}, "gmap_id": "0x80c2c778e3b73d33:0xbdc58662a4a97d49",
}  # fmt: skip
META = {
    "name": "Porter", "address": "1 Street", "gmap_id": LOCAL["gmap_id"], "description": None, "latitude": 32.4,
    "category": ["Pharmacy", "Cafe"], "avg_rating": 4.9, "num_of_reviews": 16, "price": "$$", "hours": [], "MISC": {},
}  # fmt: skip


def test_google_local(tmp_path):
    raw = tmp_path / "raw"
    lines(raw / "review-Somewhere.json", LOCAL, LOCAL | {"gmap_id": "elsewhere", "pics": None})
    lines(
        raw / "meta-Somewhere.json", META, META | {"name": "again"}, {"name": "nameless"}, "{broken",
        META | {"gmap_id": "unreviewed", "price": "₩₩₩", "category": None},
    )  # fmt: skip
    found = run(tmp_path, "google_local", raw)
    review_id = content_hash(LOCAL["user_id"], LOCAL["gmap_id"], 1_600_000_000_123_000, 5.0, "Cool place")
    assert found.reviews[0] == {
        "review_id": review_id,
        "user_id": LOCAL["user_id"],
        "business_id": LOCAL["gmap_id"],
        "rating": 5.0,
        "text": "Cool place",
        "event_timestamp": AT,
        "label": 1,
    }
    assert found.businesses == [
        {"business_id": LOCAL["gmap_id"], "name": "Porter", "categories": ["Pharmacy", "Cafe"], "price": 2.0},
        {"business_id": "elsewhere", "name": None, "categories": [], "price": None},
        {"business_id": "unreviewed", "name": "Porter", "categories": [], "price": 3.0},
    ]
    assert [(photo["photo_id"], photo["review_id"]) for photo in found.photos] == [
        ("AF1a", review_id),
        ("AF1b", review_id),
    ]
    assert found.report["ignored"] == {
        "business: id seen before": 1,
        "business: no business id": 1,
        "business: not JSON": 1,
    }


def test_several_files_of_reviews_are_numbered_through(tmp_path):
    raw = tmp_path / "raw"
    lines(raw / "b.jsonl", {"rating": 5, "user_id": "u", "gmap_id": "b"})
    lines(raw / "a.jsonl", LOCAL, {"rating": 5, "user_id": "u", "gmap_id": "b"})
    assert run(tmp_path, "google_local", raw).reasons() == {2: "no time", 3: "no time"}


ENTRY = {
    "business_id": "60567465d335d0abfb415b26", "user_id": "101074926318992653684", "rating": 4, "review_text": "Tasty",
    "pics": ["AF1QipM-2IRmvitARbcJr7deWfe5hyVBg_ArPMQSYvq0"],
    "history_reviews": [["101074926318992653684_6056272797d555cc6fb0d147", "SECRET"]],
}  # fmt: skip


def test_google_restaurants_pools_the_three_parts(tmp_path):
    raw = tmp_path / "filter_all_t.json"
    other = ENTRY | {"user_id": "2"}
    parts = {"train": [ENTRY, ENTRY | {"rating": 9}], "val": [other, "no entry"], "test": [ENTRY | {"user_id": "3"}]}
    raw.write_text(json.dumps(parts))
    found = run(tmp_path, "google_restaurants", raw)
    assert [review["user_id"] for review in found.reviews] == [ENTRY["user_id"], "2", "3"]
    assert {review["event_timestamp"] for review in found.reviews} == {None}
    assert found.reasons() == {2: "rating outside 1 to 5: 9", 4: "not a JSON object"}
    assert "SECRET" not in found.rejects[0]["raw"], "the history holds reviews of the test part"
    assert found.photos[0]["photo_id"] == ENTRY["pics"][0]
    assert found.report["ignored"] == {"photo: id seen before": 2}


def test_google_restaurants_with_bytes_that_are_not_utf8(tmp_path):
    raw = tmp_path / "filter_all_t.json"
    whole = json.dumps({"train": [ENTRY], "val": [], "test": []}).encode()
    # Around the reader's buffer size: a sequence cut there must neither end the file nor lose its rest.
    for padding in (0, 65_536 - 130, 65_536 - 129, 65_536 - 128):
        dirty = whole.replace(b"Tasty", b"x" * padding + b"caf\xe9 \xc3\xa9")
        raw.write_bytes(dirty)
        assert run(tmp_path, "google_restaurants", raw).reviews[0]["text"].endswith("caf� é")


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_pieces_of_a_character_do_not_end_the_file(size):
    source = Utf8(io.BytesIO("\ufeffaé€😀".encode() + b"\xe2\x82"))
    assert b"".join(iter(lambda: source.read(size), b"")).decode() == "aé€😀\ufffd"


def test_google_restaurants_unfiltered(tmp_path):
    pics = [{"id": "x", "url": ["https://photos.example/p/AF1c=w600-h988-p"]}]
    raw = lines(tmp_path / "image_review_all.json", {**ENTRY, "pics": pics}, "", {**ENTRY, "user_id": None})
    found = run(tmp_path, "google_restaurants", raw)
    assert [photo["photo_id"] for photo in found.photos] == ["AF1c"]
    assert found.reasons() == {2: "empty line", 3: "no user id"}


YELP = {
    "review_id": "r1", "user_id": "u1", "business_id": "b1", "stars": 3.0, "useful": 0, "funny": 0, "cool": 0,
    "text": "Okay", "date": "2018-07-07 22:09:11",
}  # fmt: skip


def test_yelp(tmp_path):
    raw = tmp_path / "raw"
    lines(raw / "yelp_academic_dataset_review.json", YELP, YELP | {"review_id": "r2", "date": "07/07/2018"},
          YELP | {"review_id": None})  # fmt: skip
    business = {"business_id": "b1", "name": "St Honore", "city": "P", "categories": "Bubble Tea, Food", "is_open": 1}
    lines(
        raw / "yelp_academic_dataset_business.json",
        business | {"attributes": {"RestaurantsPriceRange2": "2"}},
        business | {"business_id": "b2", "attributes": {"RestaurantsPriceRange2": "u'3'"}, "categories": None},
        business | {"business_id": "b3", "attributes": None},
        business | {"business_id": "b4", "attributes": {"RestaurantsPriceRange2": "None"}},
    )
    lines(raw / "photos.json", {"photo_id": "p1", "business_id": "b1", "caption": "Tea", "label": "drink"},
          {"photo_id": "p2", "business_id": "b9", "caption": "", "label": "food"}, {"photo_id": "p3"})  # fmt: skip
    lines(raw / "yelp_academic_dataset_user.json", {"user_id": "u1", "yelping_since": "2010", "review_count": 1})
    lines(raw / "yelp_academic_dataset_checkin.json", {"business_id": "b1", "date": "2016-04-26 19:49:16"})
    lines(raw / "yelp_academic_dataset_tip.json", {"user_id": "u1", "business_id": "b1", "text": "t", "date": "2016"})
    found = run(tmp_path, "yelp", raw)
    assert [(review["review_id"], review["event_timestamp"], review["label"]) for review in found.reviews] == [
        ("r1", datetime(2018, 7, 7, 22, 9, 11, tzinfo=UTC), 0)
    ]
    assert found.reasons() == {2: "unreadable time: '07/07/2018'", 3: "no review id"}
    assert [(row["business_id"], row["price"], row["categories"]) for row in found.businesses] == [
        ("b1", 2.0, ["Bubble Tea", "Food"]), ("b2", 3.0, []), ("b3", None, ["Bubble Tea", "Food"]),
        ("b4", None, ["Bubble Tea", "Food"]), ("b9", None, []),
    ]  # fmt: skip
    assert [(row["photo_id"], row["review_id"], row["caption"]) for row in found.photos] == [
        ("p1", None, "Tea"),
        ("p2", None, None),
    ]
    assert found.report["ignored"] == {"photo: no business id": 1}


def test_zomato(tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    rows = [
        b"Restaurant,Reviewer,Review,Rating,Metadata,Time,Pictures",
        b'Spice,r1,"good\nfood \xd9\xf7",5,"1 Review , 2 Followers",5/25/2019 15:54,0',
        b"Spice,r2,,4.5,1 Review,05-12-2019 8:37,0",
        b"Spice,r3,fine,Like,1 Review,5/18/2019 12:31,1",
        b"Spice,r4,fine,4,1 Review,13-01-2019 12:31,1",
        b"Spice,r5,fine,4,1 Review,05-12/2019 12:31,1",
        b"Spice,,,,,,0",
        b"Spice,r6,fine",
        b'Spice,r7,"bad "quotes",4,x,5/18/2019 12:31,1',
        b"",
        b"Spice,r8,the last,1,x,05-01-2019 0:00,0",
    ]
    (raw / "Restaurant reviews.csv").write_bytes(b"\r".join(rows))
    (raw / "Restaurant names and Metadata.csv").write_bytes(
        b'Name,Links,Cost,Collections,Cuisines,Timings\rSpice,x,"1,300",,"Thai, North Indian",11 AM\rPlain,x,,,,\r'
    )
    found = run(tmp_path, "zomato", raw)
    assert [(row["user_id"], row["text"], row["rating"]) for row in found.reviews] == [
        ("r1", "good\nfood ��", 5.0),
        ("r2", "", 4.5),
        ("r8", "the last", 1.0),
    ]
    assert [row["event_timestamp"] for row in found.reviews] == [
        datetime(2019, 5, 25, 15, 54, tzinfo=UTC),
        datetime(2019, 5, 12, 8, 37, tzinfo=UTC),
        datetime(2019, 5, 1, tzinfo=UTC),
    ]
    assert found.reasons() == {
        3: "rating is not a number: 'Like'",
        4: "unreadable time: '13-01-2019 12:31'",
        5: "unreadable time: '05-12/2019 12:31'",
        6: "no user id",
        7: "wrong number of columns: 3, the header has 7",
        8: "broken quotes: ',' expected after '\"'",
        9: "empty line",
    }
    assert found.businesses == [
        {"business_id": "Plain", "name": "Plain", "categories": [], "price": None},
        {"business_id": "Spice", "name": "Spice", "categories": ["Thai", "North Indian"], "price": 1300.0},
    ]


COLUMNS = {"user_id": "who", "business_id": "what", "rating": "stars", "text": "said", "timestamp": "day"}


def as_csv(path):
    path.write_text('who,what,stars,said,day,more\nu1,b1,4,"Good, really",2019-05-25,x\nu2,b1,1,,,x\n')


def as_json_lines(path):
    good = {"who": "u1", "what": "b1", "stars": 4, "said": "Good, really", "day": "2019-05-25"}
    lines(path, good, {"who": "u2", "what": "b1", "stars": 1})


def as_parquet(path):
    days = pa.array([date(2019, 5, 25), None])
    rows = {"who": ["u1", "u2"], "what": ["b1", "b1"], "stars": [4, 1], "said": ["Good, really", None], "day": days}
    pq.write_table(pa.table(rows), path)


def as_parquet_of_nanoseconds(path):
    when = pa.array([datetime(2019, 5, 25), None], pa.timestamp("ns"))
    rows = {"who": ["u1", "u2"], "what": ["b1", "b1"], "stars": [4.0, 1.0], "said": ["Good, really", None], "day": when}
    pq.write_table(pa.table(rows), path)


@pytest.mark.parametrize("write", [as_csv, as_json_lines, as_parquet, as_parquet_of_nanoseconds])
def test_table_in_any_layout(tmp_path, write):
    write(tmp_path / "mine")
    found = run(tmp_path, "table", tmp_path / "mine", columns=COLUMNS)
    midnight = datetime(2019, 5, 25, tzinfo=UTC)
    assert [(row["user_id"], row["text"], row["event_timestamp"]) for row in found.reviews] == [
        ("u1", "Good, really", midnight)
    ]
    assert found.reasons() == {2: "no time"}


def test_table_without_instants_takes_every_row(tmp_path):
    as_csv(tmp_path / "mine.csv")
    found = run(
        tmp_path, "table", tmp_path / "mine.csv", columns={k: v for k, v in COLUMNS.items() if k != "timestamp"}
    )
    assert [row["event_timestamp"] for row in found.reviews] == [None, None]
    assert found.report["without_instant"] == 2


def test_table_columns_that_are_not_mapped_stand_for_themselves(tmp_path):
    (tmp_path / "mine.csv").write_text(
        "review_id,user_id,business_id,rating,text\nr1,u,b,5,t\nr1,u2,b,5,t\n,u3,b,5,t\n"
    )
    found = run(tmp_path, "table", tmp_path / "mine.csv")
    assert [row["review_id"] for row in found.reviews] == ["r1"]
    assert found.reasons() == {2: "duplicate review id: first at row 1", 3: "no review id"}


def test_every_source_of_the_params_has_a_reader():
    assert set(MODULES) == set(get_args(Source))
    assert all(callable(reader_of(source)) for source in MODULES)
