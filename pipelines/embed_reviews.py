"""Each distinct review text to one vector, kept by content: a new review costs one embedding."""

import argparse

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.core.command import run_stage
from pipelines.core.encoders import TextEncoder
from pipelines.core.params import Params
from pipelines.core.tables import REVIEW_TEXT, REVIEWS, read_table, vector_column, write_table


def embed_reviews(reviews: pa.Table, encoder: TextEncoder) -> pa.Table:
    """Rows (review_id, embedding) in the table's order; null where a text is empty or white space."""
    has_text = pc.not_equal(pc.utf8_trim_whitespace(reviews["text"]), "")
    vectors = encoder.encode(reviews["text"].filter(has_text).to_pylist(), "embedding reviews")
    known = has_text.to_numpy()
    rows = np.zeros((len(known), vectors.shape[1]), np.float32)
    rows[known] = vectors
    return pa.table({"review_id": reviews["review_id"], "embedding": vector_column(rows, known)})


def main(args: argparse.Namespace, params: Params) -> None:
    stage = params.embed_reviews
    encoder = TextEncoder(stage.encoder, stage.batch_size, params.cache.folder())
    reviews = read_table(args.reviews, REVIEWS, ["review_id", "text"])
    write_table(embed_reviews(reviews, encoder), args.out, REVIEW_TEXT)


if __name__ == "__main__":
    run_stage(main, __doc__, {"reviews": "the review table", "out": "the table of embeddings to write"})
