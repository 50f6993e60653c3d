"""What each review may see of its user's and business's past, as rows for Feast.

Eight tables in one folder (`pipelines.core.tables.FEATURE_TABLES`): numbers and mean text embeddings, of users
and of businesses, keyed by the entity (its newest row is what is served online) and, for `leave_one_out`, by review.
"""

import argparse
import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.core.command import run_stage
from pipelines.core.feature_rows import Vectors, number_tables, vector_tables
from pipelines.core.params import Params
from pipelines.core.tables import (
    FEATURE_TABLES,
    REVIEW_TEXT,
    REVIEWS,
    SPLIT,
    parquet_writer,
    read_table,
    write_table,
)
from pipelines.core.visibility import quantise

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
    known = column.is_valid().to_numpy()
    flat = [chunk.flatten().to_numpy() for chunk in column.chunks]
    width = sum(map(len, flat)) // max(int(known.sum()), 1)
    values = np.zeros((len(table), width), dtype=np.int32)
    values[known] = np.concatenate([quantise(some.reshape(-1, width)) for some in flat if len(some)] or [values[:0]])
    rows = position.to_numpy()
    return Vectors(values[rows], known[rows])


def write_history(members: pa.Table, vectors: Vectors, features: Path, params: Params) -> None:
    """All eight tables appear in `features`, or none does."""
    features.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{features.name}.", dir=features.parent) as name:
        folder = Path(name) / "made"
        numbers = number_tables(members, params.protocol, params.history)
        for table_name, table in numbers.items():
            write_table(table, folder / f"{table_name}.parquet", FEATURE_TABLES[table_name])
        with ExitStack() as open_files:
            texts = {
                table_name: open_files.enter_context(parquet_writer(folder / f"{table_name}.parquet", schema))
                for table_name, schema in FEATURE_TABLES.items()
                if table_name not in numbers
            }
            pieces = vector_tables(members.to_pandas(), vectors, "text", params.protocol, params.history)
            for table_name, piece in pieces:
                texts[table_name].write_table(piece)
        if features.exists():
            shutil.rmtree(features)
        folder.rename(features)


def main(args: argparse.Namespace, params: Params) -> None:
    members = read_members(args.reviews, args.split)
    write_history(members, read_vectors(args.text, members["review_id"]), args.features, params)
    print(f"history: {len(members)} reviews under {params.protocol}")


if __name__ == "__main__":
    run_stage(
        main,
        __doc__,
        {
            "reviews": "the review table",
            "split": "the membership table",
            "text": "the review texts' embeddings",
            "features": "the folder of feature tables to write",
        },
    )
