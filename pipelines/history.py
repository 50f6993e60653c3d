"""What each review may see of its user's and business's past, as rows for Feast.

A table per view in one folder (`pipelines.core.tables.VIEWS_OF_STAGE`): numbers and mean text embeddings of users and
of businesses, mean photo embeddings of businesses; keyed by the entity (its newest row is what is served online) and,
for `leave_one_out`, by review. A photo is visible when its review is.
"""

import argparse
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.core.command import run_stage
from pipelines.core.feature_rows import TABLES, number_tables, photo_tables, vector_tables
from pipelines.core.params import Params
from pipelines.core.review_vectors import Vectors
from pipelines.core.tables import (
    DESCRIPTIONS,
    PHOTOS,
    REVIEW_TEXT,
    REVIEWS,
    SPLIT,
    parquet_writer,
    read_table,
    whole_folder,
    write_table,
)
from pipelines.core.visibility import quantise

PHOTOS_AT_ONCE = 5_000  # descriptions in memory at once: 49 MB of float32
MEMBER_COLUMNS = ["review_id", "user_id", "business_id", "rating", "event_timestamp"]


def read_members(reviews: Path, split: Path) -> pa.Table:
    """The reviews that take part, without their texts, with split and fold, sorted by review_id."""
    table = read_table(reviews, REVIEWS, MEMBER_COLUMNS)
    return table.join(read_table(split, SPLIT), "review_id", join_type="inner").sort_by("review_id")


def read_vectors(text: Path, review_ids: pa.ChunkedArray) -> Vectors:
    """The quantised text embeddings of `review_ids` (N,), in that order."""
    table = read_table(text, REVIEW_TEXT)
    position = pc.index_in(review_ids, table["review_id"].combine_chunks())
    if position.null_count:
        raise ValueError(f"{position.null_count} reviews have no row in {text}")
    column = table["embedding"]
    return Vectors(quantised(column), np.flatnonzero(column.is_valid().to_numpy())).taken(position.to_numpy())


def quantised(column: pa.ChunkedArray) -> np.ndarray:
    """The vectors of a list column that are not null, (M, D) int32."""
    flat = [chunk.flatten().to_numpy() for chunk in column.chunks]
    known = len(column) - column.null_count
    width = sum(map(len, flat)) // max(known, 1)
    parts = [quantise(some.reshape(-1, width)) for some in flat if len(some)]
    return np.concatenate(parts) if parts else np.zeros((0, 0), np.int32)


def read_photo_vectors(photos: Path, descriptions: Path, review_ids: pa.ChunkedArray) -> dict[str, Vectors]:
    """Captions' and images' quantised embeddings by column, of the reviews `review_ids` (N,) that the photos came with.

    A photo of no review is no review's to see. The descriptions are read a batch at a time: they are wide.
    """
    owners = read_table(photos, PHOTOS, ["photo_id", "review_id"])
    at = pc.index_in(owners["review_id"], review_ids.combine_chunks())
    owned = pc.is_valid(at)
    photo_ids, positions = owners["photo_id"].filter(owned).combine_chunks(), at.filter(owned).to_numpy()
    read_table(descriptions, DESCRIPTIONS, ["photo_id"])  # a missing or foreign file has a line of its own
    found = 0
    parts: dict[str, tuple[list[np.ndarray], list[np.ndarray]]] = {
        "caption_embedding": ([], []),
        "image_embedding": ([], []),
    }
    with pq.ParquetFile(descriptions) as file:
        for batch in file.iter_batches(PHOTOS_AT_ONCE, columns=["photo_id", *parts]):
            rows = pa.table(batch)
            place = pc.index_in(rows["photo_id"], photo_ids)
            rows, place = rows.filter(pc.is_valid(place)), place.drop_null().to_numpy()
            found += len(place)
            for name, (values, owner) in parts.items():
                values.append(quantised(rows[name]))
                owner.append(positions[place[rows[name].is_valid().to_numpy()]])
    if found != len(photo_ids):
        raise ValueError(f"{len(photo_ids) - found} photos have no row in {descriptions}")
    return {name: by_owner(values, owner) for name, (values, owner) in parts.items()}


def by_owner(values: Sequence[np.ndarray], owner: Sequence[np.ndarray]) -> Vectors:
    """Pieces of vectors as one, in the order of their reviews; of one review's photos in the order of their ids."""
    known = [some for some in values if len(some)]
    if not known:
        return Vectors(np.zeros((0, 0), np.int32), np.zeros(0, np.int64))
    owners = np.concatenate(owner).astype(np.int64)
    order = np.argsort(owners, kind="stable")
    return Vectors(np.concatenate(known)[order], owners[order])


def write_history(
    members: pa.Table, text: Vectors, photos: Mapping[str, Vectors], features: Path, params: Params
) -> None:
    """All tables of the stage appear in `features`, or none does."""
    frame = members.to_pandas()
    with whole_folder(features) as folder:
        numbers = number_tables(members, params.protocol, params.history)
        for name, table in numbers.items():
            write_table(table, folder / f"{name}.parquet", TABLES[name])
        with ExitStack() as open_files:
            writers = {
                name: open_files.enter_context(parquet_writer(folder / f"{name}.parquet", schema))
                for name, schema in TABLES.items()
                if name not in numbers
            }
            for name, piece in chain(
                vector_tables(frame, {"embedding": text}, "user_text", params.protocol, params.history),
                vector_tables(frame, {"embedding": text}, "business_text", params.protocol, params.history),
                photo_tables(frame, photos, params.protocol, params.history),
            ):
                writers[name].write_table(piece)


def main(args: argparse.Namespace, params: Params) -> None:
    members = read_members(args.reviews, args.split)
    text = read_vectors(args.text, members["review_id"])
    photos = read_photo_vectors(args.photos, args.descriptions, members["review_id"])
    write_history(members, text, photos, args.features, params)
    print(f"history: {len(members)} reviews under {params.protocol}")


if __name__ == "__main__":
    run_stage(
        main,
        __doc__,
        {
            "reviews": "the review table",
            "split": "the membership table",
            "text": "the review texts' embeddings",
            "photos": "the photo table",
            "descriptions": "the photos' descriptions",
            "features": "the folder of feature tables to write",
        },
    )
