"""What sentences and texts say of prices: tests/language/prices.txt is the specification."""

from pathlib import Path

import pytest

from pipelines.core.extractive.lexicons import lexicon
from pipelines.core.extractive.price_words import price_tag, prices_said, said_of_price
from pipelines.core.vocabulary import PRICE_TAGS

LINES = Path(__file__).with_name("prices.txt").read_text(encoding="utf-8").splitlines()[1:]


@pytest.mark.parametrize(("sentence", "tag"), [[part.strip() for part in line.split("|")] for line in LINES])
def test_the_table(sentence, tag):
    assert (said_of_price(sentence) or "-") == tag


@pytest.mark.parametrize(
    ("texts", "tag"),
    [
        ([], "none"),
        (["Lovely soup.", "Rude staff."], "none"),
        (["Overpriced."], "overpriced"),
        (["Overpriced.", "Reasonable.", "Fair price."], "overpriced"),  # a third of those that speak
        (["Overpriced.", "Reasonable.", "Fair price.", "Value for money."], "fair"),
        (["Overpriced.", "Very cheap."], "fair"),
        (["Cheap and good.", "Cheap!", "A bit costly."], "cheap"),
        (["Overpriced. Overpriced! Overpriced!!", "Cheap.", "Cheap."], "cheap"),  # a text has one voice
        (["Overpriced."] + ["Lovely soup."] * 49, "overpriced"),
        (["Overpriced."] + ["Lovely soup."] * 50, "none"),  # one of 51 is too little
    ],
)
def test_texts_together(texts, tag):
    assert price_tag(texts) == tag
    assert price_tag(texts[::-1]) == tag


def test_the_next_sentence_may_turn_it():
    assert prices_said("A bit expensive. But worth it.") == ("fair",)
    assert prices_said("A bit expensive. But not worth it.") == ("overpriced",)
    assert prices_said("Lovely soup. Worth it.") == ()


def test_the_lexicon_contradicts_itself_nowhere():
    words = lexicon("price_words")
    for one, other in (
        ("overpriced", "fair"),
        ("overpriced", "cheap"),
        ("fair", "cheap"),
        ("high", "low"),
        ("high", "right"),
    ):
        assert set(words[one]).isdisjoint(words[other]), (one, other)
    assert set(PRICE_TAGS) - {"none"} <= set(words)
