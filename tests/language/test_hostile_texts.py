"""One stranger's text must not hold up all others: whatever is written, it is read in well under a second."""

import json
import time
from contextlib import suppress

import pytest

from pipelines.core.encoders import TextEncoder
from pipelines.core.extractive.extracts import FIRST_PERSON
from pipelines.core.extractive.price_words import prices_said
from pipelines.core.extractive.provider import ExtractiveProvider
from pipelines.core.extractive.sentences import MOST_LETTERS, MOST_WORDS, split_sentences, word_count
from pipelines.core.extractive.type_words import types_said
from pipelines.core.extractive.words import MOST_READ
from pipelines.core.free_answers import tags_of
from pipelines.core.questions import Prompt, Question, Reply, UnusableAnswer

LETTERS = 130_000
SECONDS = 2.0  # of one text; each takes a tenth of that
UNITS = [
    *(
        "spam ",
        "a. b! ",
        "good food, nice, ",
        "a, a a a, ",
        "and so but ",
        "a - ",
        "; ",
        "a!",
        "x",
        " ",
        "\n",
        "a\n",
        "\nA",
    ),
    *(
        "!",
        ".",
        ". ",
        "…",
        "!a",
        ".a",
        "1.",
        "rs.",
        "(",
        "- ",
        "-",
        "*",
        "[ ",
        " [",
        ",",
        ":;",
        "?!\u201d",
        "a.\u201d\u201d ",
    ),
    *(
        "price high ",
        "not cheap but ",
        "no sushi ",
        "thai ",
        "thai, ",
        "less expensive, ",
        "n'",
        "&",
        "_",
        "^_",
        ":)",
        "<3",
        ":D",
    ),
    *(
        "\U0001f60d",
        "\U0001f60d A",
        "\x00",
        "\x00 ",
        "\u0301",
        "\u0301\u0316",
        "e\u0301",
        "\ufdfa",
        "\u200b",
        "\ud800",
        "\u0130",
        "1) ",
    ),
    *("{", "[", '{"', '{"price":', '{"price": "x"} '),
]
TEXTS = {repr(unit): unit * (LETTERS // len(unit)) for unit in UNITS} | {
    "a word, then marks": "a" * 3000 + " !" * 60_000,
    "accents in the wrong order": "a" + "\u0301" * 65_000 + "\u0316" * 65_000,
    "a smiley that is none": ":" + "D" * LETTERS + "a",
    "blanks before": " " * LETTERS + "a",
}


def read(text: str) -> None:
    for sentence in split_sentences(text):
        assert word_count(sentence) <= MOST_WORDS
        assert len(sentence) <= 20 * MOST_WORDS * (MOST_LETTERS + 1)
        FIRST_PERSON.search(sentence)
    prices_said(text)
    types_said(text)


def answers_with(text: str) -> list[str]:
    values = [{"price": text, "types": text}, {"price": [], "types": [text[:1000]] * 200}]
    return [text, *map(json.dumps, values)]


@pytest.mark.parametrize("name", TEXTS)
def test_long_texts_are_read_at_once(name):
    started = time.perf_counter()
    read(TEXTS[name])
    assert time.perf_counter() - started < SECONDS


@pytest.mark.parametrize("name", TEXTS)
def test_long_answers_are_read_at_once(name):
    answers = answers_with(TEXTS[name])
    started = time.perf_counter()
    for answer in answers:
        with suppress(UnusableAnswer):
            tags_of(answer)
    assert time.perf_counter() - started < SECONDS


@pytest.mark.parametrize("unit", ["spam ", "a. b! ", "x", " ", "\U0001f60d"])
def test_sixteen_million_characters_are_no_longer_than_the_beginning(unit):
    text = unit * (16_000_000 // len(unit))
    started = time.perf_counter()
    read(text)
    assert time.perf_counter() - started < SECONDS
    assert split_sentences(text) == split_sentences(text[: 10 * MOST_READ])


def test_the_beginning_is_what_is_read():
    text = "The soup was cold. " * (MOST_READ // 19 - 1)
    assert set(split_sentences(text + "x" * 18 + " end. " + "More is said. " * 9000)) >= {"The soup was cold."}
    assert "More is said." not in split_sentences(text + "x " * 40 + "More is said. " * 9000)
    assert split_sentences(" " * MOST_READ + "Good soup. ") == ("Good soup.",)
    assert prices_said("Overpriced. " * 10_000 + "Cheap.")[-1] == "overpriced"
    assert [kind for kind, _ in types_said("Nice. " * 10_000 + "Sushi.")] == []


def test_a_summary_of_what_has_no_sentence_is_bounded(tmp_path):
    provider = ExtractiveProvider(TextEncoder("minilm", 16, tmp_path), words=30, similarity=0.5)
    for unit in ("\U0001f60d", "?", "\U0001f60d ", "x"):
        [(_, reply)] = provider.answer(
            [Question("summarize", Prompt("summarize_user", 1, "say it"), (unit * LETTERS,))]
        )
        assert isinstance(reply, Reply) and 0 < len(reply.text) <= 30 * (MOST_LETTERS + 1)
