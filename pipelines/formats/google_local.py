"""Google Local (2021): reviews and metadata as JSON Lines, plain or gzip, recognised by their keys."""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from pipelines.formats.fields import (
    Unusable,
    identifier_of,
    instant_of_epoch,
    photo_ids_of_urls,
    rating_of,
    text_of,
)
from pipelines.formats.json_lines import json_files_by_kind, json_lines
from pipelines.formats.records import Business, Columns, Ignored, Record, Reject, Review

KINDS = {"reviews": {"gmap_id", "user_id", "rating"}, "metadata": {"gmap_id", "name"}}
CAPTIONS = {"photo_id"}  # the sidecar, where the photos lie in the same folder


def read(path: Path, columns: Columns) -> Iterator[Record]:
    """Stream a file of reviews, or a folder of reviews and metadata; `columns` is the `table` format's alone."""
    files = json_files_by_kind(path, KINDS, required="reviews", ignored=(CAPTIONS,))
    for file in files["metadata"]:
        yield from map(business_of, (parsed for _, _, parsed in json_lines(file)))
    records = chain.from_iterable(map(json_lines, files["reviews"]))
    for row, (_, line, parsed) in enumerate(records, 1):
        yield review_of(row, line, parsed)


def review_of(row: int, line: str, parsed: dict[str, Any] | Unusable) -> Review | Reject:
    """One line of a file of reviews."""
    try:
        if isinstance(parsed, Unusable):
            raise parsed
        return Review(
            source_row=row,
            user_id=identifier_of(parsed.get("user_id"), "user id"),
            business_id=identifier_of(parsed.get("gmap_id"), "business id"),
            rating=rating_of(parsed.get("rating")),
            text=text_of(parsed.get("text")),
            instant=instant_of_epoch(parsed.get("time"), 1000),
            photo_ids=photo_ids_of_urls(parsed.get("pics")),
        )
    except Unusable as reason:
        return Reject(row, str(reason), line)


def business_of(parsed: dict[str, Any] | Unusable) -> Business | Ignored:
    """One line of metadata."""
    try:
        if isinstance(parsed, Unusable):
            raise parsed
        category = parsed.get("category")
        return Business(
            business_id=identifier_of(parsed.get("gmap_id"), "business id"),
            name=text_of(parsed.get("name")) or None,
            categories=tuple(map(text_of, category)) if isinstance(category, list) else (),
            price=price_level(parsed.get("price")),
        )
    except Unusable as reason:
        return Ignored(f"business: {reason}")


def price_level(price: Any) -> float | None:
    """`$` to `$$$$`, in whatever currency's sign, as 1 to 4; None for anything else."""
    if isinstance(price, str) and 1 <= len(price) <= 4 and len(set(price)) == 1 and not price.isalnum():
        return float(len(price))
    return None
