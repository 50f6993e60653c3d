"""What suites may call beside DuckDB's own functions."""

import sys

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from pipelines.checked_frames import connect
from pipelines.core.vocabulary import restaurant_types


@pytest.fixture(scope="module")
def connection():
    with connect({}) as made:
        yield made


def test_white_space_is_what_the_stages_strip_of_a_text(connection):
    """The stages strip with Arrow: every character there is, alone and around a word."""
    letters = [chr(code) for code in range(1, sys.maxunicode + 1) if not 0xD800 <= code < 0xE000]
    texts = pa.table({"text": pa.chunked_array([letters, [f"{letter}a {letter} b{letter}" for letter in letters]])})
    stripped = pc.utf8_trim_whitespace(texts["text"])
    connection.register("texts", texts)
    found = connection.execute("SELECT has_words(text) AS words, trimmed(text) AS trimmed FROM texts").to_arrow_table()
    connection.unregister("texts")
    assert found["trimmed"].equals(stripped)
    assert found["words"].equals(pc.not_equal(stripped, ""))


def test_types_are_the_vocabularys(connection):
    assert connection.execute("SELECT list_sort(restaurant_types())").fetchall()[0][0] == list(restaurant_types())
