"""What becomes of each kind of dirt: the table of docs/formats.md, row by row."""

import gzip
from datetime import UTC, datetime

import pytest

from pipelines.formats.fields import Unusable, instant_of, photo_id_of_url, rating_of, text_of
from pipelines.formats.records import RAW_LENGTH, content_hash
from tests.formats.running import lines, run

GOOD = {"user_id": "u1", "gmap_id": "b1", "time": 1_600_000_000_123, "rating": 5, "text": "Fine.", "pics": None}

# What is changed in a good google_local review -> its reject's reason, or what the review then has.
FATES = [
    ({"user_id": None}, "no user id"),
    ({"user_id": "a\0"}, "user id holds a NUL character: 'a\\x00'"),
    ({"rating": 10**400}, "rating outside 1 to 5: 1" + "0" * 59),
    ({"user_id": "  "}, "no user id"),
    ({"user_id": 1.5}, "user id is neither text nor an integer: 1.5"),
    ({"user_id": True}, "user id is neither text nor an integer: True"),
    ({"user_id": 17}, {"user_id": "17"}),
    ({"gmap_id": None}, "no business id"),
    ({"rating": None}, "no rating"),
    ({"rating": ""}, "no rating"),
    ({"rating": "Like"}, "rating is not a number: 'Like'"),
    ({"rating": True}, "rating is not a number: True"),
    ({"rating": float("nan")}, "rating is not a number: nan"),
    ({"rating": float("inf")}, "rating is not a number: inf"),
    ({"rating": 0}, "rating outside 1 to 5: 0"),
    ({"rating": 5.5}, "rating outside 1 to 5: 5.5"),
    ({"rating": -1}, "rating outside 1 to 5: -1"),
    ({"rating": 4.5}, {"rating": 4.5, "label": 1}),
    ({"rating": 3.5}, {"rating": 3.5, "label": 0}),
    ({"rating": "4"}, {"rating": 4.0, "label": 1}),
    ({"time": None}, "no time"),
    ({"time": "yesterday"}, "unreadable time: 'yesterday'"),
    ({"time": 1.5}, "unreadable time: 1.5"),
    ({"time": float("nan")}, "unreadable time: nan"),
    ({"time": float("inf")}, "unreadable time: inf"),
    ({"time": -1}, "unreadable time: -1"),
    ({"time": 10**18}, "unreadable time: 1000000000000000000"),
    ({"text": None}, {"text": ""}),
    ({"text": "half a pair \ud83d"}, {"text": "half a pair �"}),
    ({"text": ["a", "list"]}, {"text": ""}),
    ({"pics": "none"}, {"text": "Fine."}),
]


@pytest.mark.parametrize(("change", "fate"), FATES, ids=lambda value: str(value)[:40])
def test_fate_of_a_record(tmp_path, change, fate):
    good = GOOD | {"user_id": "always good"}
    found = run(tmp_path, "google_local", lines(tmp_path / "raw.jsonl", GOOD | change, good))
    if isinstance(fate, str):
        assert found.reasons() == {1: fate}
        assert [review["user_id"] for review in found.reviews] == ["always good"]
    else:
        assert found.rejects == []
        assert found.reviews[0] | fate == found.reviews[0]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("", "empty line"),
        ("   ", "empty line"),
        (
            '{"user_id": "u1", ',
            "not JSON: Expecting property name enclosed in double quotes: line 1 column 19 (char 18)",
        ),
        ("[1, 2]", "not a JSON object"),
        ('"text"', "not a JSON object"),
        ("[" * 100_000, "not JSON: maximum recursion depth exceeded while decoding a JSON array from a unicode string"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_fate_of_a_line(tmp_path, line, reason):
    found = run(tmp_path, "google_local", lines(tmp_path / "raw.jsonl", GOOD, line, GOOD | {"user_id": "u2"}))
    assert found.reasons() == {2: reason}
    assert found.rejects[0]["raw"] == line[:RAW_LENGTH]
    assert found.report["rejects_by_reason"] == {reason.split(":")[0]: 1}


def test_bytes_that_are_not_utf8_are_replaced_and_the_review_kept(tmp_path):
    raw = tmp_path / "raw.jsonl"
    raw.write_bytes(
        b'\xef\xbb\xbf{"user_id": "u", "gmap_id": "b", "rating": 4, "time": 1, "text": "caf\xe9 \xd9\xa3"}\r\n'
    )
    found = run(tmp_path, "google_local", raw)
    assert [review["text"] for review in found.reviews] == ["caf� ٣"]
    assert found.report["with_replacement_characters"] == 1


def test_gzip_and_plain_are_read_alike(tmp_path):
    plain = lines(tmp_path / "raw.jsonl", GOOD, GOOD | {"user_id": "u2"})
    packed = tmp_path / "packed.json.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert run(tmp_path, "google_local", plain).reviews == run(tmp_path, "google_local", packed).reviews


# Text -> the instant it is, or the reason that it is none; "now" is 2019-05-25 15:54.
TIMES = """
2019-05-25                        | 2019-05-25T00:00:00+00:00
2019-05-25 15:54                  | 2019-05-25T15:54:00+00:00
2019-05-25T15:54:00Z              | 2019-05-25T15:54:00+00:00
2019-05-25T15:54:00+05:30         | 2019-05-25T10:24:00+00:00
2019-05-25T15:54:00.123456        | 2019-05-25T15:54:00.123456+00:00
20190525                          | 2019-05-25T00:00:00+00:00
1558799640                        | 2019-05-25T15:54:00+00:00
1558799640123                     | 2019-05-25T15:54:00.123000+00:00
1558799640123456                  | 2019-05-25T15:54:00.123456+00:00
25/05/2019                        | unreadable time: '25/05/2019'
155879964012                      | unreadable time: '155879964012'
2019-02-30                        | unreadable time: '2019-02-30'
1969-12-31                        | unreadable time: '1969-12-31 00:00:00'
                                  | no time
"""


@pytest.mark.parametrize(
    "row", [row.split("|") for row in TIMES.strip("\n").splitlines()], ids=lambda row: row[0].strip()
)
def test_times(row):
    given, expected = (part.strip() for part in row)
    if "time" in expected:
        with pytest.raises(Unusable, match=expected.replace("(", r"\(")):
            instant_of(given)
    else:
        assert instant_of(given) == round(datetime.fromisoformat(expected).timestamp() * 1_000_000)


def test_numbers_are_no_iso_dates():
    assert instant_of(datetime(2019, 5, 25, tzinfo=UTC)) == instant_of("20190525")
    with pytest.raises(Unusable, match="unreadable time: 20190525"):
        instant_of(20190525)


@pytest.mark.parametrize("value", ["1_0", "0x4", "１", "4,5", "1e400", "five", "3 stars"])
def test_ratings_that_python_alone_would_take(value):
    with pytest.raises(Unusable):
        rating_of(value)


@pytest.mark.parametrize(
    ("url", "photo_id"),
    [
        ("https://photos.example/p/AF1Qip-x=w150-h150-k-no-p", "AF1Qip-x"),
        ("https://photos.example/p/AF1Qip-x.jpg?size=9#top", "AF1Qip-x.jpg"),
        ("https://photos.example/p/../../etc/passwd", "passwd"),
        ("https://photos.example/=w150", None),
        (None, None),
    ],
)
def test_photo_ids_of_addresses(url, photo_id):
    assert photo_id_of_url(url) == photo_id


def test_texts_of_other_kinds():
    assert [text_of(value) for value in (None, 12, True, {"a": 1}, "x")] == ["", "12", "", "", "x"]


def test_the_content_hash_is_a_contract():
    """Ids of sources without ids must not change from release to release: caches and splits hang on them."""
    assert content_hash("u", "b", 1, 5.0, "t") == "7ea2d50e2e69b5a37ad111da43fa451f"
    assert len({content_hash("u", "b", None, 5.0, "t"), content_hash("ub", "", None, 5.0, "t")}) == 2
