"""Small synthetic training sets in the pipeline's own layout: what is known, weighs; cold rows know nothing."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.core.tables import vector_column
from pipelines.core.training_rows import TRAINING_SET, TrainingRows, columns

WIDTH = 12
EPOCH = np.datetime64("2019-01-01T00:00:00", "us")


def table(rows: int, seed: int, cold: float = 0.3, width: int = WIDTH) -> pa.Table:
    """`rows` reviews, liked by odds that both histories and both texts move; a share `cold` of users has no history."""
    rng = np.random.default_rng(seed)
    instants = EPOCH + np.sort(rng.integers(0, 10**13, rows)).astype("timedelta64[us]")
    logits = np.full(rows, 0.4)
    made: dict[str, pa.Array] = {
        "review_id": pa.array([f"r{i}" for i in range(rows)]),
        "user_id": pa.array([f"u{i}" for i in rng.integers(0, rows // 3 + 1, rows)]),
        "business_id": pa.array([f"b{i}" for i in rng.integers(0, 20, rows)]),
        "event_timestamp": pa.array(instants, pa.timestamp("us")).cast(pa.timestamp("us", "UTC")),
    }
    for entity, share in (("user", cold), ("business", cold / 3)):
        known = rng.random(rows) >= share
        count = np.where(known, rng.integers(1, 30, rows), 0)
        mean = rng.uniform(1, 5, rows)
        vectors = rng.normal(0, 0.05, (rows, width)).astype(np.float32)
        has_text = known & (rng.random(rows) < 0.9)
        logits = logits + known * (mean - 3) * 0.8 + has_text * vectors[:, :1].sum(axis=1) * 20
        newest = instants - rng.integers(1, 10**12, rows).astype("timedelta64[us]")
        made |= {
            f"{entity}_history__review_count": pa.array(count),
            f"{entity}_history__rating_mean": pa.array(mean, mask=~known),
            f"{entity}_history__rating_std": pa.array(rng.uniform(0, 2, rows), mask=~known),
            f"{entity}_history__rating_trend": pa.array(rng.normal(0, 0.3, rows), mask=~known),
            f"{entity}_history__newest_review_at": pa.array(newest, pa.timestamp("us"), mask=~known).cast(
                pa.timestamp("us", "UTC")
            ),
            f"{entity}_text__embedding": vector_column(vectors, has_text),
        }
    liked = rng.random(rows) < 1 / (1 + np.exp(-logits))
    made["label"] = pa.array(liked.astype(np.int8))
    return pa.table(made).select(TRAINING_SET.names).cast(TRAINING_SET)


def rows_of(made: pa.Table, width: int = WIDTH) -> TrainingRows:
    return TrainingRows(made, columns(made, width, "test"))


def splits_of(seed: int = 0, sizes: tuple[int, int, int] = (600, 200, 200)) -> dict[str, TrainingRows]:
    return {
        split: rows_of(table(size, seed + i))
        for i, (split, size) in enumerate(zip(("train", "validation", "test"), sizes, strict=True))
    }


def write_splits(folder: Path, seed: int = 0) -> Path:
    """A training set's folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, rows in splits_of(seed).items():
        pq.write_table(rows.table, folder / f"{split}.parquet")
    return folder


def nothing_known(rows: TrainingRows) -> TrainingRows:
    """The same rows, all of them cold."""
    blank = {}
    for name, column in rows.columns.items():
        if name.endswith("review_count"):
            blank[name] = np.zeros_like(column)
        elif "__" in name:
            blank[name] = np.full_like(column, np.datetime64("NaT") if column.dtype.kind == "M" else np.nan)
        else:
            blank[name] = column
    return TrainingRows(rows.table, blank)
