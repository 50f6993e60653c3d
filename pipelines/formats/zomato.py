"""Zomato Restaurants Hyderabad: reviews and restaurants as CSV, dirt and all."""

import re
from collections.abc import Iterator
from datetime import datetime
from itertools import chain
from pathlib import Path

from pipelines.formats.csv_rows import csv_files_by_kind, csv_rows
from pipelines.formats.fields import Unusable, identifier_of, instant_of_datetime, rating_of, shown, text_of
from pipelines.formats.records import Business, Columns, Ignored, Record, Reject, Review

KINDS = {
    "reviews": {"Restaurant", "Reviewer", "Review", "Rating", "Time"},
    "restaurants": {"Name", "Cost", "Cuisines"},
}
# Both notations are month first: read so, each restaurant's rows run from the newest to the oldest, as they were
# scraped; read day first, they do not (a test on the real file counts).
TIME = re.compile(r"(\d{1,2})([/-])(\d{1,2})\2(\d{4}) (\d{1,2}):(\d{2})", re.ASCII)


def read(path: Path, columns: Columns) -> Iterator[Record]:
    """Stream a file of reviews, or a folder of reviews and restaurants; `columns` is the `table` format's alone."""
    files = csv_files_by_kind(path, KINDS, required="reviews")
    for file in files["restaurants"]:
        yield from (business_of(row) for _, row in csv_rows(file))
    records = chain.from_iterable(map(csv_rows, files["reviews"]))
    for number, (raw, row) in enumerate(records, 1):
        yield review_of(number, raw, row)


def review_of(number: int, raw: str, row: dict[str, str] | Unusable) -> Review | Reject:
    """One row of the reviews. A restaurant's id is its name, as the file has no other."""
    try:
        if isinstance(row, Unusable):
            raise row
        return Review(
            source_row=number,
            user_id=identifier_of(row["Reviewer"], "user id"),
            business_id=identifier_of(row["Restaurant"], "business id"),
            rating=rating_of(row["Rating"]),
            text=text_of(row["Review"]),
            instant=instant_of_time(row["Time"]),
        )
    except Unusable as reason:
        return Reject(number, str(reason), raw)


def instant_of_time(time: str) -> int:
    """Microseconds since 1970 of `5/25/2019 15:54` or `05-12-2019 8:37`; the file names no zone, so it is UTC."""
    if not time.strip():
        raise Unusable("no time")
    match = TIME.fullmatch(time.strip())
    if match is None:
        raise Unusable(f"unreadable time: {shown(time)}")
    month, _, day, year, hour, minute = match.groups()
    try:
        return instant_of_datetime(datetime(int(year), int(month), int(day), int(hour), int(minute)))
    except ValueError:
        raise Unusable(f"unreadable time: {shown(time)}") from None


def business_of(row: dict[str, str] | Unusable) -> Business | Ignored:
    """One row of the restaurants; the price is the cost for two, in rupees."""
    try:
        if isinstance(row, Unusable):
            raise row
        name = identifier_of(row["Name"], "business id")
        cuisines = tuple(filter(None, (part.strip() for part in row["Cuisines"].split(","))))
        cost = row["Cost"].replace(",", "").strip()
        return Business(name, name, cuisines, float(cost) if cost.isdecimal() else None)
    except Unusable as reason:
        return Ignored(f"business: {reason}")
