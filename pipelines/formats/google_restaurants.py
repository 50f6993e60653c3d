"""Google Restaurants (the paper's): one JSON object of three lists, or its unfiltered sibling as JSON Lines.

The three parts are pooled: splits are made anew. `history_reviews` is passed over, since it holds reviews of the other
parts, the test's among them. The source has no instants.
"""

import codecs
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import ijson

from pipelines.core.errors import UserError
from pipelines.formats.fields import Unusable, identifier_of, photo_ids_of_urls, rating_of, text_of, valid_text
from pipelines.formats.json_lines import SUFFIXES, json_lines, keys_of
from pipelines.formats.opening import data_files, open_raw
from pipelines.formats.records import Columns, Record, Reject, Review

PARTS = ("train", "val", "test")
SPLIT_FILE = re.compile(rb'(?:\xef\xbb\xbf)?\s*\{\s*"(?:train|val|test)"\s*:')
KEYS = {"business_id", "user_id", "rating", "review_text"}


def read(path: Path, columns: Columns) -> Iterator[Record]:
    """Stream the one file at `path`, in either layout; `columns` is the `table` format's alone."""
    files = data_files(path, SUFFIXES)
    if len(files) > 1:
        names = ", ".join(file.name for file in files)
        raise UserError(f"{path}: holds {names}, which repeat each other's reviews; set `ingest.path` to one of them")
    with open_raw(files[0]) as raw:
        in_parts = SPLIT_FILE.match(raw.read(200)) is not None
    records = entries(files[0]) if in_parts else lines(files[0])
    for row, (raw_text, parsed) in enumerate(records, 1):
        yield review_of(row, raw_text, parsed)


def lines(path: Path) -> Iterator[tuple[str, dict[str, Any] | Unusable]]:
    """(line, its object or why it is none) of image_review_all.json."""
    keys = keys_of(path)
    if not keys >= KEYS:
        raise UserError(
            f"{path}: line 1: has {', '.join(sorted(keys))}; expected {', '.join(sorted(KEYS))}, or one object "
            "of train, val and test: set `ingest.source` to its format"
        )
    for _, line, parsed in json_lines(path):
        yield line, parsed


class Utf8:
    """A file of which bytes that are not UTF-8 are read as U+FFFD: ijson would stop at them."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")("replace")

    def read(self, size: int = -1) -> bytes:
        # The decoder may hold back a chunk's only bytes; b"" would mean the end.
        while True:
            chunk = self._raw.read(size)
            text = self._decoder.decode(chunk, final=not chunk)
            if text or not chunk or size == 0:
                return text.encode()


def entries(path: Path) -> Iterator[tuple[str, dict[str, Any] | Unusable]]:
    """(entry as JSON, entry or why it is none) of the three lists, a pass over the file each, an entry in memory."""
    for part in PARTS:
        number = 0
        with open_raw(path) as raw:
            try:
                for entry in ijson.items(Utf8(raw), f"{part}.item", use_float=True):
                    number += 1
                    yield _shown(entry), entry if isinstance(entry, dict) else Unusable("not a JSON object")
            except ijson.JSONError as error:
                cause = " ".join(str(error).splitlines()[0].split())
                raise UserError(
                    f"{path}: after entry {number} of `{part}`: the file is truncated or damaged ({cause}); "
                    "download it again"
                ) from None


def _shown(entry: Any) -> str:
    kept = (
        {key: value for key, value in entry.items() if key != "history_reviews"} if isinstance(entry, dict) else entry
    )
    return json.dumps(kept, ensure_ascii=False)


def review_of(row: int, raw: str, parsed: dict[str, Any] | Unusable) -> Review | Reject:
    """One entry, of either layout."""
    try:
        if isinstance(parsed, Unusable):
            raise parsed
        return Review(
            source_row=row,
            user_id=identifier_of(parsed.get("user_id"), "user id"),
            business_id=identifier_of(parsed.get("business_id"), "business id"),
            rating=rating_of(parsed.get("rating")),
            text=text_of(parsed.get("review_text")),
            instant=None,
            photo_ids=photo_ids(parsed.get("pics")),
        )
    except Unusable as reason:
        return Reject(row, str(reason), raw)


def photo_ids(pics: Any) -> tuple[str, ...]:
    """Ids, or objects with addresses."""
    if isinstance(pics, list) and all(isinstance(pic, str) for pic in pics):
        return tuple(dict.fromkeys(valid_text(pic) for pic in pics if pic))
    return photo_ids_of_urls(pics)
