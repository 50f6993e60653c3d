"""Good tables of every group, small: reviews and photos made here, split, history and snapshots by the code that makes
them, what was said of snapshots made up, the training set by SQL."""

import argparse
import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from pipelines import history, split
from pipelines.checked_frames import connect
from pipelines.core.feature_rows import ENTITIES
from pipelines.core.params import Params
from pipelines.core.readings import OWN_WORDS, Reading, provenance
from pipelines.core.snapshots import Snapshot, feature_rows, read_histories, snapshots_of
from pipelines.core.tables import (
    BUSINESSES,
    DESCRIPTIONS,
    PHOTO_REJECTS,
    PHOTOS,
    REJECTS,
    REVIEW_TEXT,
    REVIEWS,
    SUMMARIES,
    TAGS,
    VIEWS_OF_STAGE,
    feature_tables,
    vector_column,
    write_table,
)
from pipelines.core.training_rows import SPLITS, training_set_schema
from pipelines.core.vocabulary import PRICE_TAGS, restaurant_types
from pipelines.suites import Suite, read_suites
from tests.params import ROOT, params_with

SUITES = ROOT / "expectations"
REVIEW_COUNT = 240
PHOTO_COUNT = 40
DIM, IMAGE_DIM = 384, 2048
STAGE_OF_VIEW = {view: stage for stage, views in VIEWS_OF_STAGE.items() for view in views}


def make_world(data: Path, params: Params) -> None:
    """Write all tables of the data folder as `params` has them."""
    generator = np.random.default_rng(3)
    write_reviews(data, generator)
    tables = data / "tables"
    split.main(argparse.Namespace(reviews=tables / "reviews.parquet", out=data / "split.parquet"), params)
    text = data / "embeddings" / "review_text.parquet"
    write_vectors(text, generator)
    write_descriptions(data, params, generator)
    history.main(
        argparse.Namespace(
            reviews=tables / "reviews.parquet",
            split=data / "split.parquet",
            text=text,
            photos=tables / "photos.parquet",
            descriptions=data / "photos" / "descriptions.parquet",
            features=data / "features" / "history",
        ),
        params,
    )
    write_summaries(data, params, generator)
    write_tags(data, params, generator)
    write_training_set(data, params)


def unit_vectors(generator: np.random.Generator, count: int, dim: int) -> np.ndarray:
    vectors = generator.normal(size=(count, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def some_hash(*words: object) -> str:
    return hashlib.sha256(repr(words).encode()).hexdigest()


def write_reviews(data: Path, generator: np.random.Generator) -> None:
    """r000 … in the order of their instants, 24 users, 10 businesses; some ties, every tenth without text."""
    n = REVIEW_COUNT
    ratings = generator.choice([1.0, 3.0, 4.0, 5.0], n, p=[0.1, 0.2, 0.3, 0.4])
    start = datetime(2020, 1, 1, tzinfo=UTC)
    reviews = {
        "review_id": [f"r{i:03d}" for i in range(n)],
        "user_id": [f"u{u:02d}" for u in generator.integers(0, 24, n)],
        "business_id": [f"b{b}" for b in generator.integers(0, 10, n)],
        "rating": ratings,
        "text": ["" if i % 10 == 9 else f"text {i}" for i in range(n)],
        "event_timestamp": [start + timedelta(hours=i - i % 3) for i in range(n)],
        "label": (ratings >= 4).astype("int8"),
    }
    businesses = {
        "business_id": [f"b{b}" for b in range(10)],
        "name": [f"Place {b}" for b in range(10)],
        "categories": [["Thai", "Bar"], *[["Diner"]] * 9],
        "price": [None, *map(float, range(9))],
    }
    reviewed = [i if i < 12 else 7 * i % n for i in range(PHOTO_COUNT)]  # which review a photo came with
    photos = {
        "photo_id": [f"p{i}" for i in range(PHOTO_COUNT)],
        "review_id": [None, *(reviews["review_id"][i] for i in reviewed[1:])],
        "business_id": [reviews["business_id"][i] for i in reviewed],
        "path": [None, *(f"p{i}.jpg" for i in range(1, PHOTO_COUNT))],
        "caption": [None] * PHOTO_COUNT,
        "sha256": [None, *(some_hash(i) for i in range(1, PHOTO_COUNT))],
    }
    rejects = {"source_row": [7, 9], "reason": ["no rating", "no rating"], "raw": ["{}", ""]}
    made = {"reviews": (reviews, REVIEWS), "businesses": (businesses, BUSINESSES), "photos": (photos, PHOTOS)}
    for name, (columns, schema) in {**made, "rejects": (rejects, REJECTS)}.items():
        write_table(pa.table(columns, schema=schema), data / "tables" / f"{name}.parquet", schema)


def write_vectors(path: Path, generator: np.random.Generator) -> None:
    known = np.arange(REVIEW_COUNT) % 10 != 9
    ids = pa.array([f"r{i:03d}" for i in range(REVIEW_COUNT)])
    vectors = vector_column(unit_vectors(generator, REVIEW_COUNT, DIM), known)
    write_table(pa.table({"review_id": ids, "embedding": vectors}), path, REVIEW_TEXT)


def write_descriptions(data: Path, params: Params, generator: np.random.Generator) -> None:
    """p0 has no file, the files of p5 and p17 are broken, p8 and p17 have no caption."""
    ids = [f"p{i}" for i in range(PHOTO_COUNT)]
    seen = [i not in ("p0", "p5", "p17") for i in ids]
    said = [i not in ("p8", "p17") for i in ids]
    by_model = params.describe_photos.captions != "dataset"
    columns = {
        "photo_id": ids,
        "caption": [f"a dish, photo {i}" if has else None for i, has in zip(ids, said, strict=True)],
        "caption_source": [("tiny-blip2" if by_model else "dataset") if has else None for has in said],
        "call": [some_hash(i) if has and by_model else None for i, has in zip(ids, said, strict=True)],
        "caption_embedding": vector_column(unit_vectors(generator, PHOTO_COUNT, DIM), np.array(said)),
        "image_source": ["resnet50 of seed 7" if has else None for has in seen],
        "image_embedding": vector_column(unit_vectors(generator, PHOTO_COUNT, IMAGE_DIM), np.array(seen)),
    }
    write_table(pa.table(columns, schema=DESCRIPTIONS), data / "photos" / "descriptions.parquet", DESCRIPTIONS)
    rejects = {"photo_id": ["p17", "p5"], "reason": ["not a picture", "not a picture"]}
    write_table(pa.table(rejects, schema=PHOTO_REJECTS), data / "photos" / "rejects.parquet", PHOTO_REJECTS)


def readings_of(snapshots: Sequence[Snapshot], params: Params, own_words: bool) -> list[Reading]:
    """A made-up answer each, one review in its own words; one failure where params.yaml allows some."""
    readings = []
    for at, snapshot in enumerate(snapshots):
        call = some_hash(snapshot.snapshot_id)
        if at == 20 and params.llm.failed_share > 0:
            readings.append(Reading(None, "extractive", None, "a_prompt/1", (call,), "an empty answer"))
        elif own_words and len(snapshot.texts) == 1:
            readings.append(Reading(snapshot.texts[0], OWN_WORDS))
        else:
            readings.append(Reading(f"of {len(snapshot.texts)}", "extractive", "lexrank", "a_prompt/1", (call,)))
    return readings


def write_summaries(data: Path, params: Params, generator: np.random.Generator) -> None:
    members = read_histories(data / "tables" / "reviews.parquet", data / "split.parquet")
    growth, folder = params.summarize.growth, data / "features" / "summarize"
    parts = []
    for entity in ENTITIES:
        snapshots = snapshots_of(members, entity, params.protocol, growth, params.history)
        readings = readings_of(snapshots.made, params, own_words=True)
        known = np.array([reading.text is not None for reading in readings])
        embeddings = vector_column(unit_vectors(generator, len(readings), DIM), known)
        for name, rows in feature_rows(f"{entity}_summary", snapshots, {"embedding": embeddings}, "summarize").items():
            write_table(rows, folder / f"{name}.parquet", feature_tables("summarize")[name])
        said = pa.array([reading.text for reading in readings], pa.string())
        parts.append(pa.table({**provenance(snapshots.made, readings), "summary": said, "embedding": embeddings}))
    write_table(pa.concat_tables(parts), folder / "summaries.parquet", SUMMARIES)


def write_tags(data: Path, params: Params, generator: np.random.Generator) -> None:
    members = read_histories(data / "tables" / "reviews.parquet", data / "split.parquet")
    folder = data / "features" / "tag"
    snapshots = snapshots_of(members, "business", params.protocol, params.tag.growth, params.history)
    readings = readings_of(snapshots.made, params, own_words=False)
    types = [list(generator.choice(restaurant_types(), at % 12, replace=False)) for at in range(len(readings))]
    values = {
        "price_tag": pa.array([r.text and PRICE_TAGS[at % 4] for at, r in enumerate(readings)], pa.string()),
        "subtypes": pa.array([r.text and some for some, r in zip(types, readings, strict=True)], pa.list_(pa.string())),
    }
    for name, rows in feature_rows("business_tags", snapshots, values, "tag").items():
        write_table(rows, folder / f"{name}.parquet", feature_tables("tag")[name])
    write_table(pa.table({**provenance(snapshots.made, readings), **values}), folder / "tags.parquet", TAGS)


def write_training_set(data: Path, params: Params) -> None:
    """Train, validation and test as Feast would give them, by DuckDB's own ASOF JOIN."""
    by_time = params.protocol == "point_in_time"
    schema = training_set_schema()
    features = [name.split("__") for name in schema.names if "__" in name]
    joins, columns = [], ["r.review_id", "r.user_id", "r.business_id", "r.event_timestamp", "r.label"]
    for view in dict.fromkeys(view for view, _ in features):
        file = data / "features" / STAGE_OF_VIEW[view] / f"{view}{'' if by_time else '_by_review'}.parquet"
        key = f"{view.split('_')[0]}_id" if by_time else "review_id"
        kind, strictly = ("ASOF ", f" AND r.event_timestamp > {view}.event_timestamp") if by_time else ("", "")
        joins.append(f"{kind}LEFT JOIN read_parquet('{file}') AS {view} ON r.{key} = {view}.{key}{strictly}")
        for name in (name for of, name in features if of == view):
            value = f"coalesce({view}.{name}, 0)" if name == "review_count" else f"{view}.{name}"
            columns.append(f"{value} AS {view}__{name}")
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for part in SPLITS:
            table = connection.execute(
                f"SELECT {', '.join(columns)} FROM read_parquet('{data}/tables/reviews.parquet') r "
                f"JOIN read_parquet('{data}/split.parquet') s ON s.review_id = r.review_id AND s.split = '{part}' "
                f"{' '.join(joins)} ORDER BY r.review_id"
            ).to_arrow_table()
            write_table(table, data / "training_set" / f"{part}.parquet", schema)


class World:
    """Good tables under one params.yaml: files, and the same in DuckDB for faults that are rolled back."""

    def __init__(self, folder: Path, **changes: Any):
        self.params: Params = params_with(folder, validate__min_reviews=100, validate__none_share=0.95, **changes)
        self.params_file = folder / "params.yaml"
        self.data = folder / "data"
        make_world(self.data, self.params)
        self.suites: dict[str, Suite] = read_suites(SUITES, self.params)
        self.files = {name: [self.data / file for file in suite.files] for name, suite in self.suites.items()}
        self.connection = connect({})
        with connect(self.files) as stored:
            for name in self.suites:
                self.connection.register("arrow", stored.table(name).to_arrow_table())
                self.connection.execute(f'CREATE TABLE "{name}" AS FROM arrow')
                self.connection.unregister("arrow")

    def arguments(self, group: str, out: Path, **changes: Path) -> argparse.Namespace:
        paths = {"data": self.data, "suites": SUITES, "docs": out / "docs", "report": out / f"{group}.json"}
        return argparse.Namespace(group=group, **{**paths, **changes})
