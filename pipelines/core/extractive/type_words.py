"""What types of restaurant texts speak for, by the dishes and cuisines that they name.

pipelines/vocabularies/dish_words.json has the words.
"""

from collections import Counter
from collections.abc import Sequence
from functools import cache, lru_cache
from math import fsum

from pipelines.core.extractive.lexicons import lexicon
from pipelines.core.extractive.words import Phrases, beginning, words_of

WEAK = 0.4  # the weight of a type that every kitchen may have a dish of
IMPLIED = 0.5  # of a type's weight goes to the types that it implies
SHARE = 0.04  # a review in 25
DENIALS = frozenset(words_of("no not without isnt wasnt never nor arent"))


def types_of(texts: Sequence[str]) -> list[str]:
    """The types that `texts` (reviews of one place) speak for, the strongest first; of a tie, by name.

    A type's strength is the sum of its weights over the texts; what has less than SHARE of what as many texts as name
    any type could give it is a side dish.
    """
    said = [weights for text in texts if (weights := types_said(text))]
    strengths: dict[str, list[float]] = {}
    for weights in said:
        for kind, weight in weights:
            strengths.setdefault(kind, []).append(weight)
    summed = {kind: round(fsum(weights), 9) for kind, weights in strengths.items()}
    kept = [kind for kind, strength in summed.items() if strength >= SHARE * len(said)]
    return sorted(kept, key=lambda kind: (-summed[kind], kind))


def types_said(text: str) -> tuple[tuple[str, float], ...]:
    """(type, weight) of the beginning of `text`, sorted: how often it is spoken for, damped: 1 - 2^-mentions.

    So no text says more than 1. Weak types weigh WEAK of that: every kitchen may serve a soup. A word right after a
    denial (`no sushi`, `not Thai`) speaks for nothing. An implied type weighs at least IMPLIED as much as what implies
    it.
    """
    return _types_said(beginning(text))


@lru_cache(maxsize=65536)
def _types_said(text: str) -> tuple[tuple[str, float], ...]:
    words = words_of(text)
    mentions: Counter[str] = Counter()
    for start, _, name in _phrases().within(words):
        if start == 0 or words[start - 1] not in DENIALS:
            mentions.update(_types_of()[words_of(name)])
    weights = {kind: 1 - 2.0**-count for kind, count in mentions.items()}
    said = dict(weights)
    for kind, weight in weights.items():
        for implied in lexicon("dish_words")["implied"].get(kind, ()):
            said[implied] = max(said.get(implied, 0.0), IMPLIED * weight)
    weak = lexicon("dish_words")["weak"]
    return tuple(sorted((kind, weight * WEAK if kind in weak else weight) for kind, weight in said.items()))


@cache
def _phrases() -> Phrases:
    return Phrases([name for names in lexicon("dish_words")["words"].values() for name in names])


@cache
def _types_of() -> dict[tuple[str, ...], tuple[str, ...]]:
    """A phrase's words -> the types that it speaks for."""
    types: dict[tuple[str, ...], dict[str, None]] = {}
    for kind, names in lexicon("dish_words")["words"].items():
        for name in names:
            types.setdefault(words_of(name), {})[kind] = None
    return {words: tuple(kinds) for words, kinds in types.items()}
