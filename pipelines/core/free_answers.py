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
EITHER = re.compile(r"\bor\b|[/|]", re.IGNORECASE)
NEGATIONS = frozenset(words_of("not no non none without never"))
DENIALS = frozenset(words_of("not no never neither nor isn't aren't wasn't weren't"))
EXCEPTIONS = frozenset(words_of("but except excluding"))  # `anything but Thai`; `but Thai` alone is Thai
# `none` in other words; an answer may go on after them (`unclear from the reviews`).
NOTHING = tuple(
    words_of(phrase)
    for phrase in (
        *("none", "null", "nil", "unknown", "unclear", "unspecified", "unsure", "undetermined", "n/a", "na"),
        *("not mentioned", "not specified", "not stated", "not given", "not provided", "not indicated", "not known"),
        *("not clear", "not sure", "not available", "not applicable", "not enough", "not determined", "not discussed"),
        *("no clear", "no indication", "no mention", "no information", "no info", "no data", "no answer", "no price"),
        *("insufficient", "cannot tell", "can't tell", "cannot say", "can't say", "cannot be determined"),
    )
)
MOST_WORDS = 8  # of a type's name; more are prose, which may speak of anything
MOST_OBJECTS = 50  # places where a JSON object may begin that are tried
MOST_NAMES = 100  # of a list that are looked at
MOST_LETTERS = 400  # of a price or a name that are looked at
SHOWN = 60  # characters of a value in an error


def tags_of(answer: str) -> tuple[str, list[str]]:
    """(price tag, types) of an answer, whatever else it holds; UnusableAnswer where it does not answer both questions.

    1. The answer's first JSON object that has a price and types; fences and prose around do not matter.
    2. Price: a tag by its name, `none` for what says that nothing is known (null, ``, `not mentioned`), else what the
       price lexicon reads in it (`over-priced`, `low price`). Unusable if it reads nothing (`$$`) or names two tags.
    3. Types: each name by itself, then its parts at commas and `and`: Overture's code or name with or without
       `restaurant`, `food` and the like; a synonym (`north indian`); a dish (`biryani`); else the known names in it
       where nothing is denied. What is left is dropped. Distinct, in the order given, at most MOST_SUBTYPES.
       null and an empty list are no types; what is neither list nor name is unusable.
    """
    price, names = _fields_in(answer)
    types = dict.fromkeys(kind for name in _names_in(names) for kind in types_named(name))
    return _price_of(price), list(types)[:MOST_SUBTYPES]


def types_named(name: str) -> tuple[str, ...]:
    """The types that a free name stands for; none where it stands for none."""
    name = name[:MOST_LETTERS]
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
    words = words[1:] if words[:1] == ("but",) else words
    words = words[: next((place for place, word in enumerate(words) if word in EXCEPTIONS), len(words))]
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


def _fields_in(answer: str) -> tuple[Any, Any]:
    """(price, types) as the answer's first JSON object with both has them."""
    decoder = json.JSONDecoder()
    missing = "no JSON object in the answer"
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
            fields = {re.sub(r"[^a-z]", "", key.lower()): value for key, value in reversed(found.items())}
            price = next((key for key in PRICE_KEYS if key in fields), None)
            types = next((key for key in TYPE_KEYS if key in fields), None)
            if price is not None and types is not None:
                return fields[price], fields[types]
            missing = f"no {'types' if price is not None else 'price'} in the answer"
        place = answer.find("{", end)
    raise UnusableAnswer(missing)


def _price_of(value: Any) -> str:
    """The tag that a price stands for; several prices must stand for one tag."""
    values = value[:MOST_NAMES] if isinstance(value, list) else [value]
    tags = {_tag_in(item) for item in values} or {"none"}
    if None in tags:
        raise UnusableAnswer(f"the price {_shown(value)} is no tag")
    if len(tags) > 1:
        raise UnusableAnswer(f"the price {_shown(value)} names more than one tag")
    return str(tags.pop())


def _tag_in(value: Any) -> str | None:
    if value is None:
        return "none"
    if not isinstance(value, str):
        return None
    value = value[:MOST_LETTERS]
    words = words_of(value)
    if (tag := _tag_named(words)) is not None or not value.strip(" .?-–—"):
        return tag or "none"
    parts = [part for part in EITHER.split(value) if part.strip()]
    if any(words[: len(phrase)] == phrase for phrase in NOTHING) and _tag_named(words_of(parts[0])) is None:
        return "none"  # before the lexicon: `no clear indication of a fair price`
    named = {word for place, word in enumerate(words) if word in PRICE_TAGS and not _denied(words[:place])}
    read = {tag for part in parts if (tag := _tag_named(words_of(part)) or said_of_price(part)) is not None}
    if len(named | read) > 1:
        raise UnusableAnswer(f"the price {_shown(value)} names more than one tag")
    return said_of_price(value) or said_of_price(f"the price is {value}")


def _tag_named(words: Words) -> str | None:
    """The tag whose name `words` are."""
    if words in NOTHING:
        return "none"
    return next(
        (tag for tag in PRICE_TAGS if words in (words_of(form) for form in (tag, f"{tag} price", f"{tag}ly priced"))),
        None,
    )


def _denied(before: Words) -> bool:
    return not DENIALS.isdisjoint(before[-2:])


def _shown(value: Any) -> str:
    """On one line, in ASCII, of at most SHOWN characters."""
    text = json.dumps(value[:SHOWN] if isinstance(value, str) else value)
    return text if len(text) <= SHOWN else text[: SHOWN - 3] + "..."


def _names_in(value: Any) -> Iterator[str]:
    """Strings of a list, or one string; of objects in it, what they name."""
    if isinstance(value, list):
        yield from (name for item in value[:MOST_NAMES] if (name := _name_of(item)) is not None)
    elif value is not None:
        name = _name_of(value)
        if name is None:
            raise UnusableAnswer(f"the types {_shown(value)} are no list")
        yield name


def _name_of(item: Any) -> str | None:
    if isinstance(item, dict):
        item = next((item[key] for key in ("name", "type", "cuisine", "category") if key in item), None)
    return item if isinstance(item, str) else None
