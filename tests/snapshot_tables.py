"""The tables that summarize and tag make, of answers that are made up from the snapshots' names: no model is asked."""

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from pipelines.core.params import Params
from pipelines.core.readings import Reading, provenance
from pipelines.core.snapshots import Snapshots, feature_rows, snapshots_of
from pipelines.core.tables import SUMMARIES, TAGS, feature_tables, vector_column, write_table
from pipelines.core.vocabulary import PRICE_TAGS, restaurant_types

DIM = 384


def unit_vectors(names: list[str], width: int = DIM) -> np.ndarray:
    """A vector of length 1 for each name, the same for the same name."""
    seeds = [int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") for name in names]
    rows = np.array([np.random.default_rng(seed).normal(size=width) for seed in seeds]).reshape(-1, width)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def made_up(snapshots: Snapshots, prompt: str) -> list[Reading]:
    """A reading of each snapshot; a single review is its own."""
    return [
        Reading(some.texts[0], "review")
        if len(some.texts) == 1 and prompt != "tag_business/1"
        else Reading(f"about {some.snapshot_id}", "extractive", "made up", prompt, (some.snapshot_id,))
        for some in snapshots.made
    ]


def write_snapshot_tables(members: pd.DataFrame, features: Path, params: Params, width: int = DIM) -> None:
    """`features`/summarize and /tag, of `members` as `read_histories` gives them."""
    readings, made, vectors = [], [], []
    for entity in ("user", "business"):
        some = snapshots_of(members, entity, params.protocol, params.summarize.growth, params.history)
        said = made_up(some, f"summarize_{entity}/1")
        embeddings = unit_vectors([s.snapshot_id for s in some.made], width)
        column = vector_column(embeddings, np.ones(len(embeddings), bool))
        for name, rows in feature_rows(f"{entity}_summary", some, {"embedding": column}, "summarize").items():
            write_table(rows, features / "summarize" / f"{name}.parquet", feature_tables("summarize")[name])
        readings, made, vectors = readings + said, made + some.made, [*vectors, embeddings]
    rows = np.concatenate(vectors)
    values = {
        "summary": pa.array([reading.text for reading in readings], pa.string()),
        "embedding": vector_column(rows, np.ones(len(rows), bool)),
    }
    summaries = pa.table({**provenance(made, readings), **values})
    write_table(summaries, features / "summarize" / "summaries.parquet", SUMMARIES)

    some = snapshots_of(members, "business", params.protocol, params.tag.growth, params.history)
    types = restaurant_types()
    numbers = [int(s.snapshot_id, 16) for s in some.made]
    values = {
        "price_tag": pa.array([PRICE_TAGS[n % 4] for n in numbers], pa.string()),
        "subtypes": pa.array([list(types[n % 50 : n % 50 + n % 12]) for n in numbers], pa.list_(pa.string())),
    }
    for name, table in feature_rows("business_tags", some, values, "tag").items():
        write_table(table, features / "tag" / f"{name}.parquet", feature_tables("tag")[name])
    tags = pa.table({**provenance(some.made, made_up(some, "tag_business/1")), **values})
    write_table(tags, features / "tag" / "tags.parquet", TAGS)
