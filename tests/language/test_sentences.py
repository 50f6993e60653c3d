"""Sentences of dirty texts: tests/language/sentences.txt says what comes of what."""

import random
from pathlib import Path

import pytest

from pipelines.core.extractive.sentences import MOST_WORDS, split_sentences, word_count

CASES = Path(__file__).with_name("sentences.txt")


def cases() -> list[tuple[str, list[str]]]:
    found: list[tuple[str, list[str]]] = []
    for line in CASES.read_text(encoding="utf-8").splitlines()[1:]:
        if line.startswith("    "):
            found[-1][1].append(line.strip())
        else:
            found.append((line.encode("ascii").decode("unicode_escape"), []))
    return found


@pytest.mark.parametrize(("text", "sentences"), cases())
def test_the_table(text, sentences):
    assert list(split_sentences(text)) == sentences


def test_what_runs_on_is_cut_at_its_clauses():
    text = "the soup was cold and thin, " * 6 + "and the waiter who brought it said so himself " * 5
    sentences = split_sentences(text)
    assert len(sentences) > 1
    assert all(word_count(sentence) <= MOST_WORDS for sentence in sentences)
    words = " ".join(sentences).lower().replace(",", "").replace(".", "").split()
    assert words == text.replace(",", "").split()  # cut, not lost
    assert sentences[0].endswith("thin.")


def test_what_has_no_end_at_all_is_cut_hard_and_what_is_no_word_is_dropped():
    assert [word_count(sentence) for sentence in split_sentences("word " * 100)] == [40, 40, 20]
    assert split_sentences("x" * 5000) == ()
    assert split_sentences("see " + "x" * 5000 + " there") == ("See there.",)


def test_any_text_comes_to_readable_sentences():
    chooser = random.Random(0)
    letters = "abc ABC .!?…,;:-–*•\n\r\t\"'()&#@123 \ufffd\u200b\x00\ud800😍👍éя"
    for _ in range(2000):
        text = "".join(chooser.choices(letters, k=chooser.randint(0, 120)))
        for sentence in split_sentences(text):
            assert sentence == " ".join(sentence.split())
            assert sentence.rstrip("\"'”’)]")[-1] in ".!?"
            assert sentence[0] not in "-*•–.!?,;: "
            assert any(letter.isalpha() for letter in sentence)
            assert word_count(sentence) <= MOST_WORDS
            sentence.encode()
