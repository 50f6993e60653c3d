"""The words that tags are made of: four price tags, and 179 of Overture's restaurant categories."""

import json
from functools import cache
from pathlib import Path

PRICE_TAGS = ("overpriced", "fair", "cheap", "none")
MOST_SUBTYPES = 11  # a restaurant

TYPES_FILE = Path(__file__).parents[1] / "vocabularies" / "restaurant_types.json"


@cache
def restaurant_types() -> tuple[str, ...]:
    """The 179 names, sorted: Overture's codes. The file names its source and licence."""
    types = tuple(sorted(json.loads(TYPES_FILE.read_text(encoding="utf-8"))["types"]))
    assert len(set(types)) == 179
    return types
