"""Historical features through Feast with our offline store, beside DuckDB's bare ASOF JOIN of the same tables.

Prints machine, sizes, seconds and the ratio. `--feast N` adds Feast's own duckdb store, at N entity rows: its cost
grows with the square of a key's rows. Run from the root: python -m benchmarks.asof_store
"""

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.data_format import ParquetFormat
from feast.types import Float64, Int64, String

KEYS = ("user", "business")
START = 1_500_000_000_000_000  # microseconds
SPAN = 100_000_000_000_000


def instants(random: np.random.Generator, rows: int) -> pa.Array:
    return pa.array(START + random.integers(0, SPAN, rows), pa.timestamp("us", tz="UTC"))


def ids(random: np.random.Generator, key: str, rows: int, distinct: int) -> pa.Array:
    return pa.array(np.char.add(f"{key}-", random.integers(0, distinct, rows).astype(str)))


def feature_view(key: str) -> FeatureView:
    """Two numbers by `key`, over <key>.parquet."""
    return FeatureView(
        name=key,
        entities=[Entity(name=key, join_keys=[f"{key}_id"], value_type=ValueType.STRING)],
        schema=[
            Field(name=f"{key}_id", dtype=String),
            Field(name="review_count", dtype=Int64),
            Field(name="rating_mean", dtype=Float64),
        ],
        source=FileSource(path=f"{key}.parquet", file_format=ParquetFormat(), timestamp_field="event_timestamp"),
    )


def open_store(folder: Path, kind: str) -> FeatureStore:
    settings = folder / f"{kind}.yaml"
    settings.write_text(
        f"project: benchmark\nprovider: local\nregistry: registry.db\noffline_store: {{type: {kind}}}\n"
        "online_store: {type: sqlite, path: online.db}\nentity_key_serialization_version: 3\n"
    )
    return FeatureStore(repo_path=str(folder), fs_yaml_file=settings)


def write_tables(folder: Path, rows: int, distinct: dict[str, int], seed: int) -> pd.DataFrame:
    """A feature row and an entity row per review: `rows` of each. Returns the entity frame."""
    random = np.random.default_rng(seed)
    frame = {f"{key}_id": ids(random, key, rows, distinct[key]) for key in KEYS}
    for key in KEYS:
        features = {
            f"{key}_id": frame[f"{key}_id"],
            "event_timestamp": instants(random, rows),
            "review_count": pa.array(random.integers(0, 99, rows)),
            "rating_mean": pa.array(random.random(rows)),
        }
        pq.write_table(pa.table(features), folder / f"{key}.parquet")
    return pa.table({**frame, "event_timestamp": instants(random, rows)}).to_pandas()


def through_feast(store: FeatureStore, frame: pd.DataFrame) -> pa.Table:
    features = [f"{key}:{feature}" for key in KEYS for feature in ("review_count", "rating_mean")]
    return store.get_historical_features(frame, features, full_feature_names=True).to_arrow()


def bare(folder: Path, frame: pd.DataFrame) -> pa.Table:
    """The same columns by one query of DuckDB, which may return the rows in any order."""
    columns = ", ".join(f"{key}.review_count, {key}.rating_mean" for key in KEYS)
    joins = " ".join(
        f"ASOF LEFT JOIN read_parquet('{folder / key}.parquet') AS {key}"
        f" ON entity.{key}_id = {key}.{key}_id AND entity.event_timestamp >= {key}.event_timestamp"
        for key in KEYS
    )
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        # It takes an Arrow table for one row, and would loop over all feature rows for each.
        connection.execute("SET asof_loop_join_threshold = 0")
        connection.register("entity", pa.Table.from_pandas(frame))
        return connection.sql(f"SELECT entity.*, {columns} FROM entity {joins}").to_arrow_table()


def seconds(action: Callable[[], pa.Table], repeats: int) -> float:
    """The least of `repeats` runs: what the machine's other work adds is not the store's."""
    taken = []
    for _ in range(repeats):
        began = time.perf_counter()
        action()
        taken.append(time.perf_counter() - began)
    return min(taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="entity rows, and feature rows of each view")
    parser.add_argument("--users", type=int, default=200_000)
    parser.add_argument("--businesses", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--feast", type=int, metavar="N", help="add Feast's own duckdb store, at N entity rows")
    args = parser.parse_args()
    print(f"{platform.platform()}, {os.cpu_count()} cores, DuckDB {duckdb.__version__}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        frame = write_tables(folder, args.rows, {"user": args.users, "business": args.businesses}, seed=0)
        ours = open_store(folder, "asof_store.AsofOfflineStore")
        views = [feature_view(key) for key in KEYS]
        ours.apply([*(Entity(name=key, join_keys=[f"{key}_id"], value_type=ValueType.STRING) for key in KEYS), *views])
        print(f"{args.rows:,} entity rows x {len(KEYS)} views of as many ({args.users:,} and {args.businesses:,} keys)")
        plain = seconds(lambda: bare(folder, frame), args.repeats)
        print(f"DuckDB, ASOF JOIN alone      {plain:8.2f} s")
        asof = seconds(lambda: through_feast(ours, frame), args.repeats)
        print(f"Feast with AsofOfflineStore  {asof:8.2f} s  {asof / plain:.2f} x")
        if args.feast:
            few = frame.head(args.feast)
            with chdir(folder):  # Feast's store reads relative paths from the working directory
                theirs = seconds(lambda: through_feast(open_store(folder, "duckdb"), few), 1)
            same = seconds(lambda: through_feast(ours, few), args.repeats)
            print(f"at {len(few):,} entity rows: Feast with its duckdb store {theirs:.2f} s, with ours {same:.2f} s")


if __name__ == "__main__":
    main()
