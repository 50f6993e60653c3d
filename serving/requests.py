"""What may be asked of the ranker over HTTP and what it answers: typed, strict, no unknown fields."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

MOST_CHARACTERS = 256  # of an id, a category, a tag
SHOWN = 60  # characters of a value that an error line repeats


class NotJson(ValueError):
    """A body that is not JSON, or not UTF-8: one line."""


class BadField(ValueError):
    """A field that is unknown, missing or impossible: one line."""


def instant(value: object) -> object:
    """ISO 8601 text with a zone as an instant in UTC; datetimes pass. PydanticCustomError for all else."""
    if isinstance(value, datetime):
        return value
    try:
        if isinstance(value, str) and (parsed := datetime.fromisoformat(value)).tzinfo is not None:
            return parsed.astimezone(UTC)
    except (ValueError, OverflowError):
        pass  # said below, as for an instant without a zone
    raise PydanticCustomError("instant", "give an instant with its zone, such as 2021-06-01T12:00:00Z")


# A pattern, and not a validator of ours: ten thousand ids are checked without a call into Python.
Name = Annotated[str, Field(min_length=1, max_length=MOST_CHARACTERS, pattern=r"^[^\x00]*$")]
Instant = Annotated[datetime, BeforeValidator(instant)]


class Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class RankRequest(Message):
    """Whom to rank for, and among what; without `candidates`, among all businesses."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"user_id": "102", "top": 5},
                {"user_id": "102", "candidates": ["b1", "b2", "b3"], "at": "2021-06-01T12:00:00Z"},
                {"user_id": "102", "category": "thai_restaurant", "price_tag": "cheap", "max_price": 2},
            ]
        }
    )
    user_id: Name = Field(description="Who is asking; an unknown user has no history")
    candidates: list[Name] | None = Field(
        None, min_length=1, description="Businesses to rank, known or not; a double counts once"
    )
    category: Name | None = Field(
        None, description="Only businesses of this category of the source or of this tagged type, in any case"
    )
    price_tag: Name | None = Field(
        None, description="Only businesses that reviews call so; needs a model that reads tags"
    )
    max_price: float | None = Field(
        None, ge=0, description="Only businesses whose price is known and at most this, in the source's own unit"
    )
    exclude: list[Name] | None = Field(None, description="Businesses to leave out")
    top: int = Field(10, ge=1, le=1000, description="How many to answer, best first")
    at: Instant | None = Field(None, description="The instant it is about; none: what `serve.as_of` says")

    @field_validator("candidates", "exclude", mode="before")
    @classmethod
    def not_too_many(cls, value: object, info: ValidationInfo) -> object:
        """Before an id is looked at: the bound is `most_candidates` of the validation's context."""
        most = (info.context or {}).get("most_candidates")
        if isinstance(value, list) and most is not None and len(value) > most:
            raise PydanticCustomError(
                "too_many", "{count} ids, at most {most} are taken; ask in parts", {"count": len(value), "most": most}
            )
        return value


class Ranked(Message):
    """A business, and how likely the user is to like it."""

    business_id: str
    name: str | None = Field(description="null where the source has none")
    probability: float
    reviews: int = Field(description="That are known of the business; 0: it was ranked without a history")
    categories: list[str] = Field(description="The source's")
    price: float | None = Field(description="In the source's unit; null where it has none")
    price_tag: str | None = Field(description="As reviews say; null where they were not read for it")
    types: list[str] = Field(description="Restaurant types as reviews say, most fitting first")


class RankAnswer(Message):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "user_id": "102",
                    "known": True,
                    "at": "2021-06-01T12:00:00Z",
                    "feature_service": "proposed_point_in_time",
                    "model": "5f1c0d9be2a7",
                    "candidates": 150,
                    "ranking": [
                        {
                            "business_id": "b1",
                            "name": "Golden Thai Kitchen",
                            "probability": 0.93,
                            "reviews": 41,
                            "categories": ["Thai restaurant"],
                            "price": 2.0,
                            "price_tag": "cheap",
                            "types": ["thai_restaurant"],
                        }
                    ],
                }
            ]
        }
    )
    user_id: str
    known: bool = Field(description="false: nothing is known of the user, and the businesses alone decide")
    at: datetime = Field(description="The instant the answer is about")
    feature_service: str = Field(description="Feast's, that the features came through")
    model: str = Field(description="Digest of the model file: tells one model from another")
    candidates: int = Field(description="How many businesses stood to choose from, after all filters")
    ranking: list[Ranked] = Field(description="Most probable first; of equals, the smaller id")


class WhyQuery(BaseModel):
    """Which answer to explain."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    user_id: Name = Field(description="Who was ranked for", examples=["102"])
    business_id: Name = Field(description="What was ranked", examples=["b1"])
    at: Instant | None = Field(
        None, description="The instant it is about; none: what `serve.as_of` says", examples=["2021-06-01T12:00:00Z"]
    )


class UsersQuery(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    prefix: str = Field("", max_length=MOST_CHARACTERS, description="With which the ids begin", examples=["10"])
    limit: int = Field(20, ge=1, le=200)


class UserLine(Message):
    user_id: str
    reviews: int


class UsersAnswer(Message):
    users: list[UserLine] = Field(description="Most reviews first")


class Prices(Message):
    min: float
    max: float


class CatalogueAnswer(Message):
    businesses: int
    categories: list[str] = Field(description="The source's, most businesses first")
    price_tags: list[str] = Field(description="That can be asked for; empty where the model reads no tags")
    prices: Prices | None = Field(description="null where no business has a price")


class ViewLine(Message):
    rows: int
    newest: datetime | None = Field(description="Instant of the newest row; null where there is none")
    age_seconds: float | None


class HealthAnswer(Message):
    alive: bool


class ReadyAnswer(Message):
    ready: bool
    reasons: list[str] = Field(description="Why not, a line each")
    warnings: list[str] = Field(description="What needs a look but hinders no answer, a line each")
    views: dict[str, ViewLine] = Field(description="What the online store holds of each view of the model")


class ErrorAnswer(Message):
    error: str = Field(
        description="One line: the value, its place, the remedy",
        examples=["`top` is 0: input should be greater than or equal to 1"],
    )


def read_rank_request(body: bytes, most_candidates: int) -> RankRequest:
    """The request that `body` holds. NotJson where it is none, BadField names the first bad field."""
    try:
        return RankRequest.model_validate_json(body, context={"most_candidates": most_candidates})
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        if first["type"] != "json_invalid":
            raise BadField(bad_field(first, list(RankRequest.model_fields))) from None
    try:
        body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise NotJson(f"the body is not UTF-8 (byte {error.start}): send JSON as UTF-8") from None
    reason = first["msg"].removeprefix("Invalid JSON: ")
    raise NotJson(f'the body is not JSON ({reason}): send an object such as {{"user_id": "102"}}')


def bad_field(error: Mapping[str, Any], fields: Sequence[str]) -> str:
    """One line about one of pydantic's errors; `fields` are those that could be meant."""
    at = [part for part in error["loc"] if part not in ("query", "body")]
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in at).removeprefix(".")
    if error["type"] == "extra_forbidden":
        return f"unknown field {shown(place)}: the fields are {', '.join(fields)}"
    if error["type"] == "missing":
        return f"`{place}` is missing"
    said = "no NUL is taken" if error["type"] == "string_pattern_mismatch" else str(error["msg"])
    what = said[0].lower() + said[1:]
    if error["type"] == "too_many":
        return f"`{place}`: {what}"
    return f"`{place}` is {shown(error['input'])}: {what}" if place else f"the body: {what}"


def shown(value: object) -> str:
    """A value as JSON in one short line: what strangers sent is neither broken over lines nor repeated at length."""
    if isinstance(value, list | dict):
        return f"{'a list' if isinstance(value, list) else 'an object'} of {len(value)}"
    text = json.dumps(value, default=str)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
