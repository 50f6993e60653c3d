"""Good tables of every group, small: reviews made here, split and history by their stages, the training set by SQL."""

import argparse
import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

from pipelines import history, split
from pipelines.checked_frames import connect
from pipelines.core.params import Params
from pipelines.core.tables import BUSINESSES, PHOTOS, REJECTS, REVIEW_TEXT, REVIEWS, vector_column, write_table
from pipelines.core.training_rows import SPLITS, TRAINING_SET
from pipelines.suites import Suite, read_suites
from tests.params import ROOT, params_with

SUITES = ROOT / "expectations"
REVIEW_COUNT = 240
ENTITIES = ("user", "business")
DIM = 384


def make_world(data: Path, params: Params) -> None:
    """Write all tables of the data folder under `params.protocol`."""
    generator = np.random.default_rng(3)
    write_reviews(data, generator)
    tables = data / "tables"
    split.main(argparse.Namespace(reviews=tables / "reviews.parquet", out=data / "split.parquet"), params)
    text = data / "embeddings" / "review_text.parquet"
    write_vectors(text, generator)
    history.main(
        argparse.Namespace(
            reviews=tables / "reviews.parquet", split=data / "split.parquet", text=text, features=data / "features"
        ),
        params,
    )
    write_training_set(data, params)


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
    photos = {
        "photo_id": [f"p{i}" for i in range(12)],
        "review_id": [None, *reviews["review_id"][1:12]],
        "business_id": reviews["business_id"][:12],
        "path": [None, *(f"p{i}.jpg" for i in range(1, 12))],
        "caption": [None] * 12,
        "sha256": [None, *(hashlib.sha256(bytes([i])).hexdigest() for i in range(1, 12))],
    }
    rejects = {"source_row": [7, 9], "reason": ["no rating", "no rating"], "raw": ["{}", ""]}
    made = {"reviews": (reviews, REVIEWS), "businesses": (businesses, BUSINESSES), "photos": (photos, PHOTOS)}
    for name, (columns, schema) in {**made, "rejects": (rejects, REJECTS)}.items():
        write_table(pa.table(columns, schema=schema), data / "tables" / f"{name}.parquet", schema)


def write_vectors(path: Path, generator: np.random.Generator) -> None:
    vectors = generator.normal(size=(REVIEW_COUNT, DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    known = np.arange(REVIEW_COUNT) % 10 != 9
    ids = pa.array([f"r{i:03d}" for i in range(REVIEW_COUNT)])
    write_table(pa.table({"review_id": ids, "embedding": vector_column(vectors, known)}), path, REVIEW_TEXT)


def write_training_set(data: Path, params: Params) -> None:
    """Train, validation and test as Feast would give them, by DuckDB's own ASOF JOIN."""
    by_time = params.protocol == "point_in_time"
    joins, columns = [], ["r.review_id", "r.user_id", "r.business_id", "r.event_timestamp", "r.label"]
    for group in ("history", "text"):
        for entity in ENTITIES:
            view = f"{entity}_{group}"
            file = data / "features" / f"{view}{'' if by_time else '_by_review'}.parquet"
            key = f"{entity}_id" if by_time else "review_id"
            kind, strictly = ("ASOF ", f" AND r.event_timestamp > {view}.event_timestamp") if by_time else ("", "")
            joins.append(f"{kind}LEFT JOIN read_parquet('{file}') AS {view} ON r.{key} = {view}.{key}{strictly}")
            for name in [n for n in TRAINING_SET.names if n.startswith(f"{view}__")]:
                value = f"{view}.{name.removeprefix(f'{view}__')}"
                columns.append(f"{f'coalesce({value}, 0)' if name.endswith('__review_count') else value} AS {name}")
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for part in SPLITS:
            table = connection.execute(
                f"SELECT {', '.join(columns)} FROM read_parquet('{data}/tables/reviews.parquet') r "
                f"JOIN read_parquet('{data}/split.parquet') s ON s.review_id = r.review_id AND s.split = '{part}' "
                f"{' '.join(joins)} ORDER BY r.review_id"
            ).to_arrow_table()
            write_table(table, data / "training_set" / f"{part}.parquet", TRAINING_SET)


class World:
    """Good tables under one protocol: files, and the same in DuckDB for faults that are rolled back."""

    def __init__(self, folder: Path, protocol: str):
        self.params: Params = params_with(folder, protocol=protocol, validate__min_reviews=100)
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
