"""The Yelp Open Dataset: reviews, businesses and photos as JSON Lines, recognised by their keys."""

import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from pipelines.formats.fields import Unusable, identifier_of, instant_of, rating_of, text_of
from pipelines.formats.json_lines import json_files_by_kind, json_lines
from pipelines.formats.records import Business, Columns, Ignored, Photo, Record, Reject, Review

KINDS = {
    "reviews": {"review_id", "user_id", "business_id", "stars", "date"},
    "photos": {"photo_id", "business_id"},
    "businesses": {"business_id", "name", "categories"},
}
OTHERS = (
    {"user_id", "yelping_since"},
    {"business_id", "date"},
    {"user_id", "business_id", "text"},
)  # user, checkin, tip


def read(path: Path, columns: Columns) -> Iterator[Record]:
    """Stream the dataset's folder, or its file of reviews alone; `columns` is the `table` format's alone."""
    files = json_files_by_kind(path, KINDS, required="reviews", ignored=OTHERS)
    for file in files["businesses"]:
        yield from (business_of(parsed) for _, _, parsed in json_lines(file))
    for file in files["photos"]:
        yield from (photo_of(parsed) for _, _, parsed in json_lines(file))
    records = chain.from_iterable(map(json_lines, files["reviews"]))
    for row, (_, line, parsed) in enumerate(records, 1):
        yield review_of(row, line, parsed)


def review_of(row: int, line: str, parsed: dict[str, Any] | Unusable) -> Review | Reject:
    """One line of the reviews; dates name no zone and are UTC."""
    try:
        if isinstance(parsed, Unusable):
            raise parsed
        return Review(
            source_row=row,
            user_id=identifier_of(parsed.get("user_id"), "user id"),
            business_id=identifier_of(parsed.get("business_id"), "business id"),
            rating=rating_of(parsed.get("stars")),
            text=text_of(parsed.get("text")),
            instant=instant_of(parsed.get("date")),
            review_id=identifier_of(parsed.get("review_id"), "review id"),
        )
    except Unusable as reason:
        return Reject(row, str(reason), line)


def business_of(parsed: dict[str, Any] | Unusable) -> Business | Ignored:
    """One line of the businesses; `categories` is one string, or null."""
    try:
        if isinstance(parsed, Unusable):
            raise parsed
        categories = (part.strip() for part in text_of(parsed.get("categories")).split(","))
        attributes = parsed.get("attributes")
        return Business(
            business_id=identifier_of(parsed.get("business_id"), "business id"),
            name=text_of(parsed.get("name")) or None,
            categories=tuple(filter(None, categories)),
            price=price_level(attributes.get("RestaurantsPriceRange2")) if isinstance(attributes, dict) else None,
        )
    except Unusable as reason:
        return Ignored(f"business: {reason}")


def price_level(price: Any) -> float | None:
    """1 to 4 of `2`, `"2"` or, in some releases, `"u'2'"`; None for anything else."""
    match = re.fullmatch(r"(?:u?')?([1-4])'?", str(price))
    return float(match[1]) if match else None


def photo_of(parsed: dict[str, Any] | Unusable) -> Photo | Ignored:
    """One line of the photos: of a business, of no review and no time, hence no review's to see."""
    try:
        if isinstance(parsed, Unusable):
            raise parsed
        return Photo(
            photo_id=identifier_of(parsed.get("photo_id"), "photo id"),
            business_id=identifier_of(parsed.get("business_id"), "business id"),
            caption=text_of(parsed.get("caption")) or None,
        )
    except Unusable as reason:
        return Ignored(f"photo: {reason}")
