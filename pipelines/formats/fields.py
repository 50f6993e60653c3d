"""Single values of a raw record, read strictly: a value, or `Unusable` with the reason of the reject."""

import math
import re
from datetime import UTC, date, datetime, timedelta
from typing import Any

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LATEST_US = (datetime(9999, 12, 31, tzinfo=UTC) - EPOCH) // timedelta(microseconds=1)
US_PER_DIGITS = {10: 1_000_000, 13: 1_000, 16: 1}  # digits of a number since 1970 -> microseconds a unit
NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)


class Unusable(Exception):
    """A record is no review; the message is the reject's reason."""


def shown(value: Any) -> str:
    """A value in a reason, in 60 characters at most."""
    return repr(value)[:60]


def valid_text(text: str) -> str:
    """`text` as valid UTF-8: JSON can escape half a surrogate pair, which no file can hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def text_of(value: Any) -> str:
    """A review's text; "" where the source has none, or something that is no text."""
    if isinstance(value, str):
        return valid_text(value)
    return "" if value is None or isinstance(value, bool | list | dict) else str(value)


def identifier_of(value: Any, what: str) -> str:
    """An id as a string, as the source writes it: a nonblank string or an integer."""
    if isinstance(value, str) and "\0" in value:
        raise Unusable(f"{what} holds a NUL character: {shown(value)}")  # NumPy drops it from an id's end
    if isinstance(value, str) and value.strip():
        return valid_text(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if value is None or value == "" or (isinstance(value, str) and not value.strip()):
        raise Unusable(f"no {what}")
    raise Unusable(f"{what} is neither text nor an integer: {shown(value)}")


def rating_of(value: Any) -> float:
    """A rating of 1 to 5, halves and the like included."""
    if value is None or (isinstance(value, str) and not value.strip()):
        raise Unusable("no rating")
    if isinstance(value, str) and NUMBER.fullmatch(value.strip()):
        value = float(value)
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or (isinstance(value, float) and not math.isfinite(value))
    ):
        raise Unusable(f"rating is not a number: {shown(value)}")
    if not 1 <= value <= 5:
        raise Unusable(f"rating outside 1 to 5: {shown(value)}")
    return float(value)


def instant_of_epoch(value: Any, us_per_unit: int) -> int:
    """Microseconds since 1970 of a whole number of units since 1970."""
    if value is None:
        raise Unusable("no time")
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1:
        raise Unusable(f"unreadable time: {shown(value)}")
    instant = int(value) * us_per_unit
    if not 0 <= instant <= LATEST_US:
        raise Unusable(f"unreadable time: {shown(value)}")
    return instant


def instant_of(value: Any) -> int:
    """Microseconds since 1970 of an ISO 8601 text, a date, a datetime, or a number since 1970.

    Without an offset it is UTC; without a time of day it is midnight. Of a number the digits tell the unit: 10 are
    seconds, 13 milliseconds, 16 microseconds (each holds for the years 2001 to 2286); others are refused, not guessed.
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        raise Unusable("no time")
    if isinstance(value, datetime):
        return instant_of_datetime(value)
    if isinstance(value, date):
        return instant_of_datetime(datetime(value.year, value.month, value.day))
    digits = str(value).strip()
    if not isinstance(value, bool) and digits.isascii() and digits.isdigit() and len(digits) in US_PER_DIGITS:
        return instant_of_epoch(int(digits), US_PER_DIGITS[len(digits)])
    try:
        # `isinstance`: a number is never an ISO date, though str(20190501) reads as one.
        parsed = datetime.fromisoformat(digits) if isinstance(value, str) else None
    except ValueError:
        parsed = None
    if parsed is None:
        raise Unusable(f"unreadable time: {shown(value)}")
    return instant_of_datetime(parsed)


def instant_of_datetime(value: datetime) -> int:
    """Microseconds since 1970; a datetime without an offset is UTC."""
    aware = value if value.tzinfo is not None else value.replace(tzinfo=UTC)
    instant = (aware - EPOCH) // timedelta(microseconds=1)
    if not 0 <= instant <= LATEST_US:
        raise Unusable(f"unreadable time: {shown(str(value))}")
    return instant


def photo_id_of_url(url: Any) -> str | None:
    """The last part of a photo's address without its size (`…/p/AF1Qip=w150-h150` is `AF1Qip`); None for none."""
    if not isinstance(url, str):
        return None
    name = url.split("?")[0].split("#")[0].rstrip("/").rsplit("/", 1)[-1].split("=")[0]
    return valid_text(name) or None


def photo_ids_of_urls(pics: Any) -> tuple[str, ...]:
    """Photo ids of Google's `pics`: null, or a list of objects with a list of addresses, `url`, of one photo each."""
    if not isinstance(pics, list):
        return ()
    urls = (pic.get("url") for pic in pics if isinstance(pic, dict))
    flat = (url for listed in urls for url in (listed if isinstance(listed, list) else [listed]))
    return tuple(dict.fromkeys(photo for photo in map(photo_id_of_url, flat) if photo is not None))
