"""The lexicons of pipelines/vocabularies: JSON files that a person reads and mends, each with its source."""

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[2] / "vocabularies"
EXTRACTIVE = ("dish_words", "price_words", "restaurant_types", "type_synonyms")  # what decides an extractive answer


@cache
def lexicon(name: str) -> dict[str, Any]:
    """FOLDER/<name>.json. Shared: nobody changes it."""
    content: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return content


@cache
def lexicons_sha256() -> str:
    """Of the bytes of all EXTRACTIVE lexicons."""
    digest = hashlib.sha256()
    for name in EXTRACTIVE:
        digest.update((FOLDER / f"{name}.json").read_bytes() + b"\0")
    return digest.hexdigest()
