"""Small synthetic training sets in the pipeline's own layout: what is known, weighs; cold rows know nothing."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.core.tables import vector_column
from pipelines.core.training_rows import (
    TrainingRows,
    columns,
    model_schema,
    training_set_schema,
    vector_names,
    vector_width,
)
from pipelines.core.vocabulary import MOST_SUBTYPES, PRICE_TAGS, restaurant_types

MODELS = ("baseline", "proposed")
WIDTH, IMAGE_WIDTH = 12, 20
IDLE = 1000  # stands between the seed of what weighs and that of what does not
ENTITIES = ("user", "business")
SIZES = {"train": 600, "validation": 200, "test": 200}
EPOCH = np.datetime64("2019-01-01T00:00:00", "us")
TEXT = {"baseline": "text", "proposed": "summary"}
PHOTOS = {"baseline": "image", "proposed": "caption"}

Told = tuple[dict[str, pa.Array], np.ndarray]  # columns, and what they move the odds of each row by


def table(rows: int, seed: int, model: str = "baseline", cold: float = 0.3, width: int = WIDTH) -> pa.Table:
    """What `model` reads of such a training set."""
    return whole_table(rows, seed, model, cold, width).select(model_schema(model).names)


def whole_table(rows: int, seed: int, model: str = "baseline", cold: float = 0.3, width: int = WIDTH) -> pa.Table:
    """`rows` reviews, liked by odds that all that `model` reads moves; a share `cold` of users has no history.

    What the other model alone reads is there, too, and moves nothing.
    """
    made = read_by(model, rows, seed, cold, width)
    (other,) = (name for name in MODELS if name != model)
    rng = np.random.default_rng(seed + IDLE)
    for entity in ENTITIES:
        known = made[f"{entity}_history__rating_mean"].is_valid().to_numpy(zero_copy_only=False)
        made |= text(rng, entity, other, known, width)[0]
    schema = training_set_schema()
    return pa.table(made | place(rng, other, rows, width)[0]).select(schema.names).cast(schema)


def read_by(model: str, rows: int, seed: int, cold: float, width: int) -> dict[str, pa.Array]:
    """The columns of `model`, keys and labels among them."""
    rng = np.random.default_rng(seed)
    instants = EPOCH + np.sort(rng.integers(0, 10**13, rows)).astype("timedelta64[us]")
    logits = np.full(rows, 0.4)
    made: dict[str, pa.Array] = {
        "review_id": pa.array([f"r{i}" for i in range(rows)]),
        "user_id": pa.array([f"u{i}" for i in rng.integers(0, rows // 3 + 1, rows)]),
        "business_id": pa.array([f"b{i}" for i in rng.integers(0, 20, rows)]),
        "event_timestamp": pa.array(instants, pa.timestamp("us")).cast(pa.timestamp("us", "UTC")),
    }
    for entity, share in zip(ENTITIES, (cold, cold / 3), strict=True):
        known = rng.random(rows) >= share
        count = np.where(known, rng.integers(1, 30, rows), 0)
        mean = rng.uniform(1, 5, rows)
        words, said = text(rng, entity, model, known, width)
        logits = logits + known * (mean - 3) * 0.8 + said
        newest = instants - rng.integers(1, 10**12, rows).astype("timedelta64[us]")
        made |= words | {
            f"{entity}_history__review_count": pa.array(count),
            f"{entity}_history__rating_mean": pa.array(mean, mask=~known),
            f"{entity}_history__rating_std": pa.array(rng.uniform(0, 2, rows), mask=~known),
            f"{entity}_history__rating_trend": pa.array(rng.normal(0, 0.3, rows), mask=~known),
            f"{entity}_history__newest_review_at": pa.array(newest, pa.timestamp("us"), mask=~known).cast(
                pa.timestamp("us", "UTC")
            ),
        }
    described, said = place(rng, model, rows, width)
    liked = rng.random(rows) < 1 / (1 + np.exp(-(logits + said)))
    return made | described | {"label": pa.array(liked.astype(np.int8))}


def text(rng: np.random.Generator, entity: str, model: str, known: np.ndarray, width: int) -> Told:
    """What `model` reads of texts, nine in ten of the `known`; and what it moves the odds by."""
    vectors = rng.normal(0, 0.05, (len(known), width)).astype(np.float32)
    has_text = known & (rng.random(len(known)) < 0.9)
    made = {f"{entity}_{TEXT[model]}__embedding": vector_column(vectors, has_text)}
    if model == "proposed":
        made[f"{entity}_summary__snapshot_id"] = pa.array([f"s{i}" for i in range(len(known))], mask=~known)
    return made, has_text * vectors[:, :1].sum(axis=1) * 20


def place(rng: np.random.Generator, model: str, rows: int, width: int) -> Told:
    """What `model` reads of a place beside texts, and what it moves the odds by."""
    photos, said = photo_means(rng, rows, {"baseline": IMAGE_WIDTH, "proposed": width}[model])
    made = {f"business_photos__{PHOTOS[model]}_embedding": photos}
    if model == "proposed":
        tags, of_tags = business_tags(rng, rows)
        made, said = made | tags, said + of_tags
    return made, said


def photo_means(rng: np.random.Generator, rows: int, width: int) -> tuple[pa.ChunkedArray, np.ndarray]:
    """A vector for six in ten, and what it moves the odds by."""
    vectors, known = rng.normal(0, 0.02, (rows, width)).astype(np.float32), rng.random(rows) < 0.6
    return vector_column(vectors, known), known * vectors[:, :1].sum(axis=1) * 20


def business_tags(rng: np.random.Generator, rows: int) -> tuple[dict[str, pa.Array], np.ndarray]:
    """Tags for nine in ten, and what they move the odds by: the price, and whether the first type is among them."""
    known, prices = rng.random(rows) < 0.9, rng.integers(0, 4, rows)
    types = restaurant_types()
    subtypes = [[types[i] for i in rng.choice(12, n, replace=False)] for n in rng.integers(0, MOST_SUBTYPES + 1, rows)]
    tags = {
        "business_tags__price_tag": pa.array([PRICE_TAGS[i] for i in prices], mask=~known),
        "business_tags__subtypes": pa.array(
            [names if there else None for names, there in zip(subtypes, known, strict=True)], pa.list_(pa.string())
        ),
        "business_tags__snapshot_id": pa.array([f"t{i}" for i in range(rows)], mask=~known),
    }
    return tags, known * ((prices - 1.5) * 0.5 + np.array([types[0] in names for names in subtypes]) * 1.0)


def rows_of(made: pa.Table) -> TrainingRows:
    widths = {name: vector_width(made[name]) for name in vector_names(made.schema)}
    return TrainingRows(made, columns(made, widths, "test"))


def splits_of(
    seed: int = 0, sizes: Sequence[int] = tuple(SIZES.values()), model: str = "baseline"
) -> dict[str, TrainingRows]:
    return {
        split: rows_of(table(size, seed + i, model)) for i, (split, size) in enumerate(zip(SIZES, sizes, strict=True))
    }


def write_splits(folder: Path, seed: int = 0, model: str = "baseline") -> Path:
    """A training set's folder, of which `splits_of` is what `model` reads."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, (split, size) in enumerate(SIZES.items()):
        pq.write_table(whole_table(size, seed + i, model), folder / f"{split}.parquet")
    return folder


def without(made: pa.Table, name: str) -> pa.Table:
    """The same table with `name` null throughout."""
    field = made.schema.field(name)
    return made.set_column(made.column_names.index(name), field, pa.nulls(made.num_rows, field.type))


def nothing_known(rows: TrainingRows) -> TrainingRows:
    """The same rows, all of them cold."""
    blank = {}
    nulls = {"M": np.datetime64("NaT"), "O": None, "f": np.nan}
    for name, column in rows.columns.items():
        if name.endswith("review_count"):
            blank[name] = np.zeros_like(column)
        elif "__" in name:
            blank[name] = np.full_like(column, nulls[column.dtype.kind])
        else:
            blank[name] = column
    return TrainingRows(rows.table, blank)
