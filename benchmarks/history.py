"""History numbers and mean vectors over random reviews, beside what one would write in pandas.

    python -m benchmarks.history --reviews 1000000

Ours makes count, mean, spread, trend and newest instant of users and businesses with ties kept apart; the pandas
beside it a shifted expanding count and mean alone, which lets ties see each other.
"""

import argparse
import os
import platform
import time
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pyarrow as pa

from pipelines.core.feature_rows import number_tables, vector_tables
from pipelines.core.params import History
from pipelines.core.review_vectors import Vectors
from pipelines.core.tables import INSTANT

HISTORY = History(numbers="full", leave_out="pair", as_of=datetime(2020, 1, 1, tzinfo=UTC))


def random_members(rows: int, seed: int = 0) -> pa.Table:
    """Long-tailed users and businesses, a review a minute or so, one in ten a tie."""
    random = np.random.default_rng(seed)
    users = (rows / 8 * random.beta(0.6, 2, rows)).astype(int)
    businesses = (rows / 100 * random.beta(0.6, 2, rows)).astype(int)
    minutes = random.integers(0, rows, rows)
    return pa.table(
        {
            "review_id": [f"r{i}" for i in range(rows)],
            "user_id": users.astype(str),
            "business_id": businesses.astype(str),
            "rating": random.integers(1, 6, rows).astype(np.float32),
            "event_timestamp": pa.array(minutes * 60_000_000, INSTANT),
            "split": random.choice(["train", "validation", "test"], rows, p=[0.6, 0.15, 0.25]),
            "fold": random.integers(0, 5, rows).astype(np.int8),
        }
    )


def plain_pandas(members: pd.DataFrame) -> None:
    for key in ("user_id", "business_id"):
        ordered = members.sort_values([key, "event_timestamp"])
        ratings = ordered.groupby(key)["rating"]
        count = ratings.cumcount()
        _ = (ratings.cumsum() - ordered["rating"]) / count.where(count > 0)


def seconds_of(work) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reviews", type=int, default=1_000_000)
    parser.add_argument("--vectors", type=int, default=200_000, help="reviews of the vector benchmark")
    parser.add_argument("--width", type=int, default=384)
    args = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    members = random_members(args.reviews)
    frame = members.to_pandas()
    pandas_seconds = seconds_of(lambda: plain_pandas(frame))
    print(f"pandas, cumulative count and mean:     {args.reviews / pandas_seconds:>12,.0f} reviews/s")
    for protocol in ("point_in_time", "leave_one_out"):
        ours = seconds_of(lambda protocol=protocol: number_tables(members, protocol, HISTORY))
        print(
            f"ours, all numbers, {protocol:<14}      {args.reviews / ours:>12,.0f} reviews/s"
            f"   {ours / pandas_seconds:.1f} x the time of pandas"
        )
    some = members.slice(0, args.vectors).to_pandas()
    values = np.random.default_rng(1).integers(-(2**24), 2**24, (len(some), args.width)).astype(np.int32)
    vectors = {"embedding": Vectors.one_each(values, np.ones(len(some), bool))}
    for protocol in ("point_in_time", "leave_one_out"):

        def run(protocol=protocol) -> None:
            for view in ("user_text", "business_text"):
                for _ in vector_tables(some, vectors, view, protocol, HISTORY):
                    pass

        print(f"ours, mean vectors, {protocol:<14}     {len(some) / seconds_of(run):>12,.0f} reviews/s")


if __name__ == "__main__":
    main()
