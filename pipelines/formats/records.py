"""What a reader yields. Every review record of a source comes out as exactly one Review or one Reject."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

from pipelines.core.params import Column

RAW_LENGTH = 1000  # characters of a rejected record that are kept


@dataclass(frozen=True, slots=True)
class Review:
    """`source_row` counts the source's review records from 1, in reading order, over all its files."""

    source_row: int
    user_id: str
    business_id: str
    rating: float  # 1 to 5
    text: str
    instant: int | None  # microseconds since 1970, UTC; None where the source has no instants
    review_id: str | None = None  # None: the source has none, and the content's hash stands in
    photo_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Business:
    business_id: str
    name: str | None
    categories: tuple[str, ...] = ()
    price: float | None = None  # the source's own unit


@dataclass(frozen=True, slots=True)
class Photo:
    """A photo that belongs to a business and to no review; a review's photos are named by the review."""

    photo_id: str
    business_id: str
    caption: str | None


@dataclass(frozen=True, slots=True)
class Reject:
    """A review record that is no review. What stands before a colon in `reason` is the kind that is counted."""

    source_row: int
    reason: str
    raw: str


@dataclass(frozen=True, slots=True)
class Ignored:
    """An unusable record of a business or a photo: counted, and left out."""

    what: str


Columns = Mapping[Column, str]  # our name -> theirs, for the `table` format
Record = Review | Business | Photo | Reject | Ignored


def content_hash(user_id: str, business_id: str, instant: int | None, rating: float, text: str) -> str:
    """32 hex digits of what a review says: the id of a review whose source gives none, and what a duplicate shares.

    BLAKE2b of 16 bytes over the JSON list of the five: two of 10^9 reviews collide with probability 10^-21.
    """
    content = json.dumps([user_id, business_id, instant, rating, text]).encode()
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def raw_excerpt(raw: str) -> str:
    """The first RAW_LENGTH characters."""
    return raw[:RAW_LENGTH]
