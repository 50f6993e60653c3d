"""What texts say of prices, by a lexicon with negation, contrast and comparison: `overpriced`, `fair`, `cheap`, `none`.

pipelines/vocabularies/price_words.json has the phrases; here are the rules:

- A phrase speaks for its tag (`burns a hole`, `value for money`, `pocket friendly`); so does a price noun with a level
  near it in its clause (`prices are quite high`, `decent price`). The longest phrase wins, and some are of no price
  (`feels cheap`, `reasonable time`).
- Negated within NEGATION_REACH words of its clause, before an `and`: overpriced becomes fair, fair and cheap become
  overpriced. `less expensive` is cheap. What `could be` or `should be` cheaper is overpriced.
- `worth it` is fair where the sentence, or an overpriced one just before it, speaks of prices.
- In one sentence, fair and cheap are cheap; overpriced and cheap are fair; of overpriced and fair, what stands after
  the last `but` wins, else fair (`though pricey, worth it`).
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from math import fsum

from pipelines.core.extractive.lexicons import lexicon
from pipelines.core.extractive.sentences import split_sentences
from pipelines.core.extractive.words import Phrases, Words, beginning, words_of

OVERPRICED, FAIR, CHEAP = "overpriced", "fair", "cheap"
WORTH, WORTHLESS = "worth", "worthless"  # fair and overpriced, where it is of prices
VALUES = {OVERPRICED: 1.0, FAIR: 0.0, CHEAP: -1.0}
NEGATED = {OVERPRICED: FAIR, FAIR: OVERPRICED, CHEAP: OVERPRICED, WORTH: WORTHLESS}
OF_PRICES = {WORTH: FAIR, WORTHLESS: OVERPRICED}
STRONG = 1 / 3  # the mean value of the texts that speak, from which on they say so
LITTLE = 0.02  # of the texts: fewer that speak say too little
LEVELS = {"high": OVERPRICED, "right": FAIR, "low": CHEAP}

NEGATION_REACH = 4  # words between a negation and what it negates
LEVEL_REACH = 4  # words between a price and what it is: `prices here are quite high`
CLAUSE = re.compile(r"(?<![,;:()\[\]!?.])[,;:()\[\]!?.]+\s|\s[-–—]+\s")
TURN = re.compile(r"(?<!anything )\b(but|however|yet|still|nevertheless|nonetheless)\b", re.IGNORECASE)
MODALS = frozenset(words_of("could should can must may might need wish hope would"))
MODAL_REACH = 5
FILLED = frozenset(
    words_of("be have been more bit little a slightly much way made it they were was a lot the price prices to")
)
MONEY = frozenset(
    words_of(
        "money price prices cost bill rupees rs inr bucks dollars penny pay paid spend spent expensive rates amount"
    )
)


@dataclass(frozen=True)
class Cue:
    """A word of a price. `turn`: how many `but`s stand before it in its sentence."""

    tag: str
    turn: int


def price_tag(texts: Sequence[str]) -> str:
    """The tag that `texts` (reviews of one place) together say.

    A text's value is the mean of its sentences' (overpriced 1, fair 0, cheap -1), and theirs the mean of the texts that
    speak: overpriced from STRONG on, cheap up to -STRONG, else fair. `none` where fewer than LITTLE of the texts speak.
    """
    said = [tags for text in texts if (tags := prices_said(text))]
    if not said or len(said) < LITTLE * len(texts):
        return "none"
    mean = round(fsum(fsum(VALUES[tag] for tag in tags) / len(tags) for tags in said) / len(said), 9)
    return OVERPRICED if mean >= round(STRONG, 9) else CHEAP if mean <= -round(STRONG, 9) else FAIR


def prices_said(text: str) -> tuple[str, ...]:
    """The tags of those sentences of the beginning of `text` that say something, in order."""
    return _prices_said(beginning(text))


@lru_cache(maxsize=65536)
def _prices_said(text: str) -> tuple[str, ...]:
    tags: list[str] = []
    for sentence in split_sentences(text):
        cues = _cues(sentence)
        # `A bit expensive. But worth it.`
        if tags and tags[-1] == OVERPRICED and cues and all(cue.tag == WORTH for cue in cues):
            tags[-1] = FAIR
            continue
        tag = _tag(sentence, cues)
        if tag is not None:
            tags.append(tag)
    return tuple(tags)


def said_of_price(sentence: str) -> str | None:
    """`overpriced`, `fair` or `cheap`; None where it says nothing of prices."""
    return _tag(sentence, _cues(sentence))


def _tag(sentence: str, cues: Sequence[Cue]) -> str | None:
    if MONEY.isdisjoint(words_of(sentence)) and all(cue.tag in OF_PRICES for cue in cues):
        return None
    cues = [Cue(OF_PRICES.get(cue.tag, cue.tag), cue.turn) for cue in cues]
    tags = {cue.tag for cue in cues}
    if len(tags) <= 1:
        return next(iter(tags), None)
    if OVERPRICED not in tags:
        return CHEAP
    if CHEAP in tags:
        return FAIR
    last = cues[-1]
    return last.tag if all(cue.turn < last.turn for cue in cues if cue.tag != last.tag) else FAIR


def _cues(sentence: str) -> list[Cue]:
    found = []
    for turn, part in enumerate(TURN.split(sentence)[::2]):
        for clause in CLAUSE.split(part + " "):
            found += [Cue(tag, turn) for tag in _cues_of_clause(words_of(clause))]
    return found


def _cues_of_clause(words: Words) -> Iterator[str]:
    kinds = _kinds()
    spans = [(start, end, kinds[name]) for start, end, name in _phrases().within(words)]
    taken = {place for start, end, _ in spans for place in range(start, end)}
    spans += _levels(words, taken)
    for start, end, tag in sorted(spans):
        if tag == "no_prices":
            continue
        if tag == "complaints":
            if _negated(words, start) and not MONEY.isdisjoint(words[end:]):
                yield FAIR
        elif start > 0 and words[start - 1] in ("less", "least") and tag == OVERPRICED:
            yield CHEAP
        elif tag in (FAIR, CHEAP) and _wished(words, start):
            yield OVERPRICED
        elif _negated(words, start):
            yield NEGATED[tag]
        else:
            yield tag


def _levels(words: Words, taken: set[int]) -> Iterator[tuple[int, int, str]]:
    """(start, end, tag) of the level nearest to each price noun; after it, or just before it."""
    nouns = [(start, end) for start, end, _ in _nouns().within(words) if taken.isdisjoint(range(start, end))]
    adjectives = [
        (start, end, name) for start, end, name in _adjectives().within(words) if taken.isdisjoint(range(start, end))
    ]
    used: set[int] = set()
    for begin, stop in nouns:
        near = [
            (distance, start, end, name)
            for start, end, name in adjectives
            if start not in used
            and (0 <= (distance := start - stop) <= LEVEL_REACH or (distance := begin - end) == 0)
            and taken.isdisjoint(range(min(begin, start), max(stop, end)))
        ]
        if near:
            _, start, end, name = min(near)
            used.add(start)
            yield start, end, LEVELS[_level_of()[name]]


def _negated(words: Words, start: int) -> bool:
    reach = words[max(0, start - NEGATION_REACH - 2) : start]
    negations = [(end, name) for _, end, name in _negations().within(reach)]
    if not negations:
        return False
    end, name = negations[-1]
    between = reach[end:]
    return name in _real_negations() and len(between) <= NEGATION_REACH and "and" not in between


def _wished(words: Words, start: int) -> bool:
    """`could be more affordable`: a modal, and nothing but small words after it."""
    reach = words[max(0, start - MODAL_REACH) : start]
    places = [place for place, word in enumerate(reach) if word in MODALS]
    return bool(places) and all(word in FILLED for word in reach[places[-1] + 1 :]) and not (_negated(words, start))


@cache
def _kinds() -> dict[str, str]:
    words = lexicon("price_words")
    return {
        phrase: kind for kind in ("no_prices", "complaints", WORTH, OVERPRICED, CHEAP, FAIR) for phrase in words[kind]
    }


@cache
def _phrases() -> Phrases:
    return Phrases(_kinds())


@cache
def _nouns() -> Phrases:
    return Phrases(lexicon("price_words")["price_nouns"])


@cache
def _level_of() -> dict[str, str]:
    return {phrase: level for level in LEVELS for phrase in lexicon("price_words")[level]}


@cache
def _adjectives() -> Phrases:
    return Phrases(_level_of())


@cache
def _real_negations() -> frozenset[str]:
    return frozenset(lexicon("price_words")["negations"])


@cache
def _negations() -> Phrases:
    return Phrases([*lexicon("price_words")["no_negations"], *lexicon("price_words")["negations"]])
