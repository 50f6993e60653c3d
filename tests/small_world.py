"""A world of 90 reviews with words in them, for what reads texts: its tables as the stages want them."""

import argparse
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from PIL import Image

from pipelines.core.tables import PHOTOS, REVIEWS, SPLIT, write_table

DISHES = ("thai curry", "pizza", "sushi", "tacos", "a burger", "dim sum", "falafel", "biryani")
HOW = ("cold", "wonderful", "overpriced", "cheap", "as always", "the best in town", "too salty", "fairly priced")
FIRST_INSTANT, STEP = 1_500_000_000, 3_600  # s since 1970


@dataclass(frozen=True)
class Files:
    """Where a world lies: `data` is laid out as the pipeline's data folder, `pictures` is the photos' folder."""

    data: Path
    pictures: Path

    def stage(self, name: str) -> argparse.Namespace:
        """The arguments of summarize and tag; of describe_photos and plan too."""
        return argparse.Namespace(
            reviews=self.data / "tables" / "reviews.parquet",
            split=self.data / "split.parquet",
            features=self.data / "features" / name,
            photos_table=self.data / "tables" / "photos.parquet",
            photos=self.pictures,
            out=self.data / "photos" / "descriptions.parquet",
            rejects=self.data / "photos" / "rejects.parquet",
        )


def honest_reviews(count: int = 90, users: int = 12, businesses: int = 10) -> pd.DataFrame:
    """Reviews of u0… about b0…, an hour apart; each says something about two dishes."""
    random = np.random.default_rng(4)
    said = [
        " ".join(f"We had {DISHES[random.integers(8)]} here and it was {HOW[random.integers(8)]}." for _ in range(2))
        for _ in range(count)
    ]
    return reviews_of(
        [f"r{number:03}" for number in range(count)],
        [f"u{number}" for number in random.integers(0, users, count)],
        [f"b{number}" for number in random.integers(0, businesses, count)],
        [f"{text} That was visit number {number}." for number, text in enumerate(said)],
        [FIRST_INSTANT + STEP * number for number in range(count)],
    )


def reviews_of(
    ids: Sequence[str], users: Sequence[str], businesses: Sequence[str], texts: Sequence[str], seconds: Sequence[int]
) -> pd.DataFrame:
    stars = np.array([1 + len(text) % 5 for text in texts], np.float32)
    return pd.DataFrame(
        {
            "review_id": list(ids),
            "user_id": list(users),
            "business_id": list(businesses),
            "rating": stars,
            "text": list(texts),
            "event_timestamp": pd.to_datetime(list(seconds), unit="s", utc=True).as_unit("us"),
            "label": (stars >= 4).astype("int8"),
        }
    )


def membership(reviews: pd.DataFrame) -> pd.DataFrame:
    """All in train but every tenth review, and a fold a review that depends on its id alone."""
    numbers = [int(hashlib.sha256(name.encode()).hexdigest(), 16) for name in reviews["review_id"]]
    return pd.DataFrame(
        {
            "review_id": reviews["review_id"],
            "split": ["test" if number % 10 == 0 else "train" for number in numbers],
            "fold": np.array([number // 10 % 5 for number in numbers], np.int8),
        }
    ).sort_values("review_id", ignore_index=True)


def write_world(folder: Path, reviews: pd.DataFrame, photos: int = 0) -> Files:
    """The tables of `reviews`, and so many photos of the first of them with their files."""
    files = Files(folder / "data", folder / "pictures")
    args = files.stage("summarize")
    write_table(pa.Table.from_pandas(reviews, preserve_index=False), args.reviews, REVIEWS)
    write_table(pa.Table.from_pandas(membership(reviews), preserve_index=False), args.split, SPLIT)
    files.pictures.mkdir(parents=True)
    rows = []
    for number, (_, review) in zip(range(photos), reviews.iterrows(), strict=False):
        path = files.pictures / f"p{number}.png"
        Image.fromarray(np.random.default_rng(number).integers(0, 255, (32, 32, 3), np.uint8)).save(path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        photo = {"photo_id": f"p{number}", "review_id": review["review_id"], "business_id": review["business_id"]}
        rows.append(photo | {"path": str(path), "caption": None, "sha256": digest})
    write_table(pa.Table.from_pylist(rows, PHOTOS), args.photos_table, PHOTOS)
    return files
