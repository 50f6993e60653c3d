"""The vocabularies, and free answers to them: tests/language/answers.txt is the specification."""

import csv
import json
import random
from pathlib import Path

import pytest

from pipelines.core.extractive.lexicons import lexicon
from pipelines.core.free_answers import tags_of, types_named
from pipelines.core.questions import UnusableAnswer
from pipelines.core.vocabulary import MOST_SUBTYPES, PRICE_TAGS, restaurant_types

LINES = Path(__file__).with_name("answers.txt").read_text(encoding="utf-8").splitlines()[1:]
TAXONOMY = Path(__file__).parents[3] / "shared" / "data" / "taxonomy" / "overture_categories.csv"


def test_179_types_sorted_with_their_source():
    types, file = restaurant_types(), lexicon("restaurant_types")
    assert len(set(types)) == len(types) == 179
    assert list(types) == sorted(types) == file["types"]
    assert "Overture Maps Foundation" in file["source"] and "CC BY 4.0" in file["licence"]
    assert len(file["left_out"]) == 9 and set(file["left_out"]).isdisjoint(types)


@pytest.mark.skipif(not TAXONOMY.is_file(), reason="../shared/data/taxonomy is not there")
def test_they_are_overtures():
    with TAXONOMY.open(encoding="utf-8-sig") as file:
        below = {row[0] for row in csv.reader(file, delimiter=";") if "[eat_and_drink,restaurant," in row[1]}
    assert len(below) == 188
    assert set(restaurant_types()) | set(lexicon("restaurant_types")["left_out"]) == below


@pytest.mark.parametrize(("answer", "price", "types"), [[part.strip() for part in line.split("|")] for line in LINES])
def test_the_table(answer, price, types):
    assert tags_of(answer.replace("\\n", "\n")) == (price, types.split())


def test_every_type_is_known_by_its_code_and_by_its_name():
    for kind in restaurant_types():
        assert types_named(kind) == (kind,)
        assert types_named(kind.replace("_", " ").title()) == (kind,)
    for name, kind in lexicon("type_synonyms")["synonyms"].items():
        assert types_named(name)[0] == kind, name


def test_at_most_eleven_in_order():
    chooser = random.Random(0)
    names = chooser.sample(restaurant_types(), 40)
    _, types = tags_of(json.dumps({"price": "fair", "types": names + names}))
    assert types == names[:MOST_SUBTYPES]


@pytest.mark.parametrize(
    "answer", ["", "fair, Thai", "[1, 2]", '"fair"', "{", '{"price": "fair"', "{" * 10_000, "[" * 10_000]
)
def test_no_object_is_unusable(answer):
    with pytest.raises(UnusableAnswer, match="no JSON object"):
        tags_of(answer)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("{}", "no price in the answer"),
        ('{"error": "overloaded"}', "no price in the answer"),
        ('{"types": ["thai"]}', "no price in the answer"),
        ('{"price": "fair"}', "no types in the answer"),
        ('{"price": "fair"} {"types": []}', "no price in the answer"),
        ('{"price": "fair", "types": 7}', "the types 7 are no list"),
        ('{"price": "fair", "types": {"a": 1}}', 'the types {"a": 1} are no list'),
        ('{"price": "$$", "types": []}', 'the price "$$" is no tag'),
        ('{"price": "banana", "types": []}', 'the price "banana" is no tag'),
        ('{"price": 5, "types": []}', "the price 5 is no tag"),
        ('{"price": ["fair", 5], "types": []}', 'the price ["fair", 5] is no tag'),
        ('{"price": "a\\n\\u202eb", "types": []}', 'the price "a\\n\\u202eb" is no tag'),
        ('{"price": "overpriced or fair", "types": []}', 'the price "overpriced or fair" names more than one tag'),
        ('{"price": "fair/cheap", "types": []}', 'the price "fair/cheap" names more than one tag'),
        ('{"price": "none or fair", "types": []}', 'the price "none or fair" names more than one tag'),
        ('{"price": "expensive or cheap", "types": []}', 'the price "expensive or cheap" names more than one tag'),
        ('{"price": "pricey, but fair", "types": []}', 'the price "pricey, but fair" names more than one tag'),
        ('{"price": "overpriced, fair", "types": []}', 'the price "overpriced, fair" names more than one tag'),
        ('{"price": ["fair", "cheap"], "types": []}', 'the price ["fair", "cheap"] names more than one tag'),
    ],
)
def test_what_answers_nothing_or_two_things_is_unusable(answer, reason):
    with pytest.raises(UnusableAnswer) as caught:
        tags_of(answer)
    assert str(caught.value) == reason


def test_an_unusable_value_is_shown_in_short():
    for price in ("x" * 10**6, ["x" * 1000] * 1000, "\n\u202e" * 1000):
        with pytest.raises(UnusableAnswer) as caught:
            tags_of(json.dumps({"price": price, "types": []}))
        assert len(str(caught.value)) < 100 and str(caught.value).isprintable()


def test_whatever_it_is_given_no_word_is_outside_the_vocabulary():
    chooser = random.Random(1)
    values = [
        "thai",
        "evil",
        3,
        None,
        True,
        1.5,
        {"name": "Thai"},
        ["cheap"],
        "cheap, but sushi",
        "\ufffd",
        "é" * 500,
        {"a": {}},
    ]
    usable = 0
    for _ in range(500):
        found = {
            key: chooser.choice([chooser.choice(values), chooser.choices(values, k=15)])
            for key in chooser.sample(["price", "types", "Price", "category", "x"], 4)
        }
        try:
            price, types = tags_of(f"{chooser.choice(['', 'Well: ', '```'])}{json.dumps(found)}")
        except UnusableAnswer:
            continue
        usable += 1
        assert price in PRICE_TAGS and set(types) <= set(restaurant_types())
        assert len(set(types)) == len(types) <= MOST_SUBTYPES
    assert usable > 20
