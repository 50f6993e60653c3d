"""Why a user would like a business: what the model was told of both, where that is from, and what moved its answer."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from models.columns import Columns, Unencodable
from pipelines.core.errors import UserError
from pipelines.core.params import Params
from pipelines.core.provenance import calls_of, readings, row_of
from pipelines.core.readings import OWN_WORDS
from pipelines.core.tables import BUSINESSES
from serving.contributions import moved
from serving.ranker import Ranker
from serving.scoring import entity_of

SNAPSHOT = "snapshot_id"
COUNT = "review_count"
READING = ("text", "price_tag", "subtypes", "source", "model", "prompt", "reviews")
# Whose work a reading is, where no language model was asked.
NOTES = {
    OWN_WORDS: "one short review is its own summary: nobody was asked",
    "extractive": "made of the reviews' own words by an algorithm: no language model was asked",
}


def why(
    ranker: Ranker, user_id: str, business_id: str, at: datetime | None, data: Path, params: Params
) -> dict[str, Any]:
    """All that is known of one answer, ready for JSON (null, never NaN). `at`: None is when the ranker says.

    `views`: each view's row with the instant and age of it, its features, how many reviews it is made of where that is
    known, and the reading of its snapshot out of the tables under `data` and the ledger that `params` name; what this
    machine has not of these is said in `note` and `status`. `moved`: as `serving.contributions`.

    UserError where `at` is before a row's newest review, or the store cannot be read.
    """
    for again in (at is None, False):
        about = ranker.rank(user_id, [business_id], at).at  # as it decides for a ranking
        columns, instants = ranker.columns(user_id, business_id, about)
        try:
            probability, moves = moved(ranker.model, columns)
            break
        except Unencodable as error:
            if not again:  # else a review may have been written between the two reads
                raise UserError(f"user {user_id!r}, business {business_id!r}, at {iso(about)}: {error}") from None
    ids = {"user": user_id, "business": business_id}
    views = []
    for view, features in ranker.views.items():
        entity = entity_of(view)
        instant = instants[view]
        snapshot_id = columns[f"{view}__{SNAPSHOT}"][0] if SNAPSHOT in features else None
        reading = None if snapshot_id is None else reading_of(view, snapshot_id, data, params)
        views.append(
            {
                "view": view,
                "entity": entity,
                "entity_id": ids[entity],
                "instant": None if instant is None else iso(instant),
                "age_seconds": None if instant is None else (about - instant).total_seconds(),
                "reviews": reviews_of(view, columns, reading),
                "features": [
                    {
                        "name": f"{view}__{feature}",
                        "value": plain(columns[f"{view}__{feature}"][0]),
                    }
                    for feature in features
                ],
                "reading": reading,
            }
        )
    return {
        "user_id": user_id,
        "business_id": business_id,
        "name": name_of(business_id, data),
        "at": iso(about),
        "probability": probability,
        "feature_service": ranker.service,
        "model": ranker.digest,
        "views": views,
        "moved": moves,
    }


def plain(value: Any) -> Any:
    """A column's value as JSON has it: instants as ISO, an embedding by length and norm, null for what is null."""
    if isinstance(value, np.ndarray) and value.dtype.kind == "f":
        known = value.size > 0 and not np.isnan(value).any()
        return {"length": len(value), "norm": float(np.linalg.norm(value.astype(np.float64)))} if known else None
    if isinstance(value, np.datetime64):
        return None if np.isnat(value) else iso(value.astype("datetime64[us]").item().replace(tzinfo=UTC))
    if isinstance(value, np.floating):
        return None if np.isnan(value) else float(value)
    if isinstance(value, np.integer):
        return int(value)
    if value is None or isinstance(value, str):
        return value
    return [str(name) for name in value]


def iso(instant: datetime) -> str:
    """UTC, as the HTTP answers have it."""
    return instant.astimezone(UTC).isoformat().replace("+00:00", "Z")


def reviews_of(view: str, columns: Columns, reading: dict[str, Any] | None) -> int | None:
    """How many reviews a view's row is made of: as it counts them itself, else as many as its snapshot holds."""
    counted = columns.get(f"{view}__{COUNT}")
    if counted is not None:
        return int(counted[0])
    return None if reading is None else reading["reviews"]


def reading_of(view: str, snapshot_id: str, data: Path, params: Params) -> dict[str, Any]:
    """What was made of the snapshot that the view's row is of, or why that cannot be told here."""
    blank = {SNAPSHOT: snapshot_id} | dict.fromkeys(READING) | {"calls": [], "note": None}
    try:
        found = next(readings(data, snapshot_id, view), None)
    except UserError as error:
        return blank | {"note": str(error)}
    if found is None:
        return blank | {"note": f"{data}: holds no reading of this snapshot; the online row is of another run"}
    failed = found["failure"]
    return blank | {
        "text": found.get("summary"),
        "price_tag": found.get("price_tag"),
        "subtypes": found.get("subtypes"),
        "source": found["source"],
        "model": found["model"],
        "prompt": found["prompt"],
        "reviews": len(found["review_ids"]),
        "calls": calls_of(found["calls"], params),
        "note": NOTES.get(found["source"]) if failed is None else f"no answer: {failed}",
    }


def name_of(business_id: str, data: Path) -> str | None:
    """None where the table does not know the business, or is not on this machine."""
    try:
        row = row_of(data / "tables" / "businesses.parquet", BUSINESSES, ["name"], "business_id", business_id)
    except UserError:
        return None
    return None if row is None else row["name"]
