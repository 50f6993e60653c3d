"""The embedded default: raw reviews of people who do not exist, in google_local's layout, with the truth beside them.

    OUT/reviews.jsonl, metadata.jsonl      as google_local has them
    OUT/photos/*.png, photos/photos.jsonl  rendered photos and their captions
    OUT/truth/*.parquet                    tastes, quality over time, each review's expected utility

What is measured on it says something about the code, nothing about people.
"""

import argparse
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from pipelines.core.command import run_stage
from pipelines.core.params import Params, Simulate
from pipelines.simulation_photos import render
from pipelines.simulation_text import DISHES, caption, review_text
from pipelines.simulation_world import CUISINES, MONTH_MS, MONTHS, START_MS, World, simulate_world

SILENT_SHARE = 0.04  # reviews of stars alone
KINDS = ("Kitchen", "House", "Corner", "Garden", "Table", "Grill", "Room", "Terrace")
FIRST = ("Golden", "Old", "Little", "Blue", "Happy", "Royal", "Green", "Quiet", "Silver", "Sunny")


def user_ids(rng: np.random.Generator, count: int) -> list[str]:
    """Distinct strings of 21 digits; the running number at the end keeps them apart."""
    return [f"1{head:012d}{number:08d}" for number, head in enumerate(rng.integers(10**12, size=count).tolist())]


def business_ids(rng: np.random.Generator, count: int) -> list[str]:
    """Distinct strings in the shape of a gmap_id."""
    return [f"0x{head:012x}:0x{number:08x}" for number, head in enumerate(rng.integers(2**48, size=count).tolist())]


def photo_owners(rng: np.random.Generator, reviews: int, photos: int) -> dict[int, list[str]]:
    """Review number -> its photo ids; a review may have several."""
    owners: dict[int, list[str]] = {}
    for number, review in enumerate(rng.integers(reviews, size=photos).tolist()):
        owners.setdefault(review, []).append(f"synthetic-photo-{number:06d}")
    return owners


def menus(rng: np.random.Generator, world: World) -> list[tuple[str, ...]]:
    """Four dishes of its cuisine a business."""
    return [tuple(rng.permutation(DISHES[CUISINES[cuisine]])[:4].tolist()) for cuisine in world.cuisine]


def review_records(
    rng: np.random.Generator,
    world: World,
    users: list[str],
    businesses: list[str],
    dishes: list[tuple[str, ...]],
    pictures: dict[int, list[str]],
) -> Iterator[dict[str, Any]]:
    """Reviews as google_local writes them, in the world's order."""
    columns = (world.user.tolist(), world.business.tolist(), world.time_ms.tolist(), world.rating.tolist())
    for number, (user, business, time_ms, rating) in enumerate(zip(*columns, strict=True)):
        cuisine = int(world.cuisine[business])
        text = review_text(
            rng,
            stars=rating,
            cuisine=CUISINES[cuisine],
            dishes=dishes[business],
            service=float(world.service[business]),
            price_gap=float(world.price[business] - world.budget[user]),
            taste=float(world.taste[user, cuisine]),
        )
        urls = [{"url": [f"https://photos.example/p/{photo}=w150-h150-k-no-p"]} for photo in pictures.get(number, [])]
        yield {
            "user_id": users[user],
            "name": f"Reviewer {user}",
            "time": time_ms,
            "rating": rating,
            "text": None if rng.uniform() < SILENT_SHARE else text,
            "pics": urls or None,
            "resp": None,
            "gmap_id": businesses[business],
        }


def metadata_records(rng: np.random.Generator, world: World, businesses: list[str]) -> Iterator[dict[str, Any]]:
    """Metadata as google_local writes it, a record a business."""
    counts = np.bincount(world.business, minlength=len(businesses))
    sums = np.bincount(world.business, weights=world.rating, minlength=len(businesses))
    for number, gmap_id in enumerate(businesses):
        cuisine = CUISINES[world.cuisine[number]]
        first, kind = FIRST[rng.integers(len(FIRST))], KINDS[rng.integers(len(KINDS))]
        yield {
            "gmap_id": gmap_id,
            "name": f"{first} {cuisine} {kind}",
            "category": [f"{cuisine} restaurant", "Restaurant"],
            # Real metadata lacks the price of some places.
            "price": "$" * int(world.price[number]) if rng.uniform() < 0.9 else None,
            "avg_rating": round(sums[number] / counts[number], 1) if counts[number] else None,
            "num_of_reviews": int(counts[number]),
        }


def write_photos(
    rng: np.random.Generator, world: World, dishes: list[tuple[str, ...]], pictures: dict[int, list[str]], folder: Path
) -> None:
    """Render every photo and write their captions, in the order of the photos' ids."""
    folder.mkdir()
    owner_of = sorted((photo, review) for review, photos in pictures.items() for photo in photos)
    with (folder / "photos.jsonl").open("w", encoding="utf-8") as captions:
        for photo, review in tqdm(owner_of, desc="photos", unit="photo", delay=5):
            business = int(world.business[review])
            month = (int(world.time_ms[review]) - START_MS) // MONTH_MS
            price = int(world.price[business])
            dish = dishes[business][rng.integers(len(dishes[business]))]
            render(
                rng,
                folder / f"{photo}.png",
                cuisine=int(world.cuisine[business]),
                price=price,
                quality=float(world.quality[business, month]),
            )
            captions.write(json.dumps({"photo_id": photo, "caption": caption(rng, dish, price)}) + "\n")


def truth_tables(world: World, users: list[str], businesses: list[str]) -> dict[str, pa.Table]:
    """The ground truth, by file name; `source_row` is the review's line in reviews.jsonl, counted from 1."""
    count = len(businesses)
    return {
        "users": pa.table(
            {"user_id": users, "strictness": world.strictness, "budget": world.budget}
            | {f"taste_{cuisine.lower()}": world.taste[:, number] for number, cuisine in enumerate(CUISINES)}
        ),
        "businesses": pa.table(
            {
                "business_id": businesses,
                "cuisine": [CUISINES[cuisine] for cuisine in world.cuisine],
                "price_level": world.price,
                "popularity": world.popularity,
                "service": world.service,
            }
        ),
        "quality": pa.table(
            {
                "business_id": pa.array(businesses).take(pa.array(np.repeat(np.arange(count), MONTHS))),
                "month": np.tile(np.arange(MONTHS), count),
                "quality": world.quality.ravel(),
            }
        ),
        "reviews": pa.table(
            {
                "source_row": np.arange(1, len(world.user) + 1),
                "user_id": pa.array(users).take(pa.array(world.user)),
                "business_id": pa.array(businesses).take(pa.array(world.business)),
                "time_ms": world.time_ms,
                "rating": world.rating,
                "expected_utility": world.expected,
                "utility": world.utility,
            }
        ),
    }


def write_lines(path: Path, records: Iterator[dict[str, Any]], total: int) -> None:
    """JSON Lines, with progress."""
    with path.open("w", encoding="utf-8") as lines:
        for record in tqdm(records, desc=path.name, total=total, unit="record", delay=5):
            lines.write(json.dumps(record) + "\n")


def write_world(out: Path, settings: Simulate) -> None:
    """Write the whole raw folder to `out`, which must not hold anything yet. Same seed, same bytes."""
    rng = np.random.default_rng(settings.seed)
    world = simulate_world(
        rng,
        reviews=settings.reviews,
        users=settings.users,
        businesses=settings.businesses,
        negative_share=settings.negative_share,
    )
    users, businesses = user_ids(rng, settings.users), business_ids(rng, settings.businesses)
    dishes, pictures = menus(rng, world), photo_owners(rng, settings.reviews, settings.photos)
    records = review_records(rng, world, users, businesses, dishes, pictures)
    write_lines(out / "reviews.jsonl", records, settings.reviews)
    write_lines(out / "metadata.jsonl", metadata_records(rng, world, businesses), settings.businesses)
    write_photos(rng, world, dishes, pictures, out / "photos")
    (out / "truth").mkdir()
    for name, table in truth_tables(world, users, businesses).items():
        pq.write_table(table, out / "truth" / f"{name}.parquet", compression="zstd")


def main(args: argparse.Namespace, params: Params) -> None:
    """Write the folder beside `--out` first, then put it in its place."""
    out: Path = args.out
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as staging:
        fresh = Path(staging) / "fresh"
        fresh.mkdir()
        write_world(fresh, params.simulate)
        if out.exists():
            shutil.move(out, Path(staging) / "old")
        fresh.rename(out)
    print(f"{out}: {params.simulate.reviews} simulated reviews, seed {params.simulate.seed}")


if __name__ == "__main__":
    run_stage(main, __doc__, {"out": "folder of the raw files"})
