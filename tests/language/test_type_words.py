"""What types texts speak for: tests/language/types.txt is the specification."""

from pathlib import Path

import pytest

from pipelines.core.extractive.lexicons import lexicon
from pipelines.core.extractive.type_words import types_of, types_said
from pipelines.core.vocabulary import restaurant_types

LINES = Path(__file__).with_name("types.txt").read_text(encoding="utf-8").splitlines()[1:]


@pytest.mark.parametrize(("text", "kind"), [[part.strip() for part in line.split("|")] for line in LINES])
def test_the_table(text, kind):
    assert (types_of([text]) or ["-"])[0] == kind


def test_every_target_is_in_the_vocabulary():
    words, types = lexicon("dish_words"), set(restaurant_types())
    assert set(words["words"]) == types  # and every type has words
    assert set(words["weak"]) <= types
    assert set(words["implied"]) | {kind for kinds in words["implied"].values() for kind in kinds} <= types
    assert set(lexicon("type_synonyms")["synonyms"].values()) <= types
    assert {kind for kinds in lexicon("zomato_cuisines")["cuisines"].values() for kind in kinds} <= types
    assert len(lexicon("zomato_cuisines")["cuisines"]) == 44


def test_a_text_is_damped_and_texts_add_up():
    shouting, quiet = "sushi " * 50, "biryani"
    assert types_of([shouting, quiet, quiet])[0] == "indian_restaurant"
    assert all(weight <= 1 for _, weight in types_said(shouting))
    assert types_of([quiet, shouting, quiet]) == types_of([shouting, quiet, quiet])


def test_a_side_dish_is_no_type():
    assert "thai_restaurant" in types_of(["biryani"] * 20 + ["pad thai, tom yum and green curry"])
    assert "thai_restaurant" not in types_of(["biryani"] * 24 + ["pad thai, tom yum and green curry"])


def test_what_is_implied_follows():
    assert types_of(["A plate of nigiri."]).index("sushi_restaurant") >= 0
    assert "japanese_restaurant" in types_of(["A plate of nigiri."])
