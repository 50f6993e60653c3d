"""A free answer about a restaurant, in the vocabulary's words: whatever a model says, nothing else gets through."""

import json
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from pipelines.core.extractive.lexicons import lexicon
from pipelines.core.extractive.price_words import said_of_price
from pipelines.core.extractive.words import Phrases, Words, words_of
from pipelines.core.questions import UnusableAnswer
from pipelines.core.vocabulary import MOST_SUBTYPES, PRICE_TAGS, restaurant_types

PRICE_KEYS = ("price", "pricetag", "pricing", "pricelevel", "pricerange")
TYPE_KEYS = (
    "types",
    "type",
    "subtypes",
    "subtype",
    "restauranttypes",
    "restauranttype",
    "categories",
    "category",
    "cuisines",
    "cuisine",
)
FILLERS = frozenset(
    words_of(
        "restaurant food cuisine place joint style shop eatery dish cooking type kitchen outlet house spot authentic"
    )
)
SEPARATORS = re.compile(r"[,;/|\n]+|\band\b|&")
NEGATIONS = frozenset(words_of("not no non none without never"))
MOST_WORDS = 8  # of a type's name; more are prose, which may speak of anything
MOST_OBJECTS = 50  # places where a JSON object may begin that are tried
MOST_NAMES = 200  # of a list that are looked at


def tags_of(answer: str) -> tuple[str, list[str]]:
    """(price tag, types) of an answer, whatever else it holds; UnusableAnswer where there is no JSON object in it.

    1. The answer's first JSON object that has a price or types, else its first; fences and prose around do not matter.
    2. Price: a tag by its name, else what the price lexicon reads in it (`over-priced`, `low price`), else `none`.
    3. Types: each name by itself, then its parts at commas and `and`: Overture's code or name with or without
       `restaurant`, `food` and the like; a synonym (`north indian`); a dish (`biryani`); else the known names in it
       where nothing is denied. What is left is dropped. Distinct, in the order given, at most MOST_SUBTYPES.
    """
    found = _object_in(answer)
    fields = {re.sub(r"[^a-z]", "", key.lower()): value for key, value in reversed(found.items())}
    price = next((_price_of(fields[key]) for key in PRICE_KEYS if key in fields), "none")
    names: Any = next((fields[key] for key in TYPE_KEYS if key in fields), [])
    types = dict.fromkeys(kind for name in _names_in(names) for kind in types_named(name))
    return price, list(types)[:MOST_SUBTYPES]


def types_named(name: str) -> tuple[str, ...]:
    """The types that a free name stands for; none where it stands for none."""
    whole = _types_of(words_of(name))
    if whole:
        return whole
    parts = [part for part in SEPARATORS.split(name) if part.strip()]
    return tuple(
        dict.fromkeys(kind for part in parts for kind in _types_of(words_of(part)) or _types_within(words_of(part)))
    )


def _types_of(words: Words) -> tuple[str, ...]:
    bare = tuple(word for word in words if word not in FILLERS)
    for index in (_codes(), _synonyms(), _dishes()):
        for form in (words, bare):
            if form in index:
                return index[form]
    return ()


def _types_within(words: Words) -> tuple[str, ...]:
    if len(words) > MOST_WORDS or not NEGATIONS.isdisjoint(words):
        return ()
    return tuple(kind for _, _, name in _spoken().within(words) for kind in _types_of(words_of(name)))


@cache
def _codes() -> dict[Words, tuple[str, ...]]:
    """Names of types, whole and without what every restaurant is called; the whole name has the say."""
    whole: dict[Words, tuple[str, ...]] = {words_of(code.replace("_", " ")): (code,) for code in restaurant_types()}
    bare = {tuple(word for word in words if word not in FILLERS): codes for words, codes in whole.items()}
    return {words: codes for words, codes in bare.items() if words} | whole


@cache
def _synonyms() -> dict[Words, tuple[str, ...]]:
    return {words_of(name): (code,) for name, code in lexicon("type_synonyms")["synonyms"].items()}


@cache
def _dishes() -> dict[Words, tuple[str, ...]]:
    dishes: dict[Words, tuple[str, ...]] = {}
    for code, names in lexicon("dish_words")["words"].items():
        for name in names:
            dishes[words_of(name)] = (*dishes.get(words_of(name), ()), code)
    return dishes


@cache
def _spoken() -> Phrases:
    return Phrases([" ".join(words) for words in (*_codes(), *_synonyms())])


def _object_in(answer: str) -> dict[str, Any]:
    decoder = json.JSONDecoder()
    first: dict[str, Any] | None = None
    place = answer.find("{")
    for _ in range(MOST_OBJECTS):
        if place < 0:
            break
        end = place + 1
        try:
            found, end = decoder.raw_decode(answer, place)
        except (ValueError, RecursionError):
            found = None
        if isinstance(found, dict):
            if any(re.sub(r"[^a-z]", "", key.lower()) in (*PRICE_KEYS, *TYPE_KEYS) for key in found):
                return found
            first = found if first is None else first
        place = answer.find("{", end)
    if first is None:
        raise UnusableAnswer("no JSON object in the answer")
    return first


def _price_of(value: Any) -> str:
    if isinstance(value, list):
        value = next((item for item in value if isinstance(item, str)), None)
    if not isinstance(value, str):
        return "none"
    words = words_of(value)
    for tag in PRICE_TAGS:
        if words in (words_of(tag), words_of(f"{tag} price"), words_of(f"{tag}ly priced")):
            return tag
    return said_of_price(value) or said_of_price(f"the price is {value}") or "none"


def _names_in(value: Any) -> Iterator[str]:
    """Strings of a list, or one string; of objects in it, what they name."""
    for item in (value if isinstance(value, list) else [value])[:MOST_NAMES]:
        if isinstance(item, dict):
            item = next((item[key] for key in ("name", "type", "cuisine", "category") if key in item), None)
        if isinstance(item, str):
            yield item
