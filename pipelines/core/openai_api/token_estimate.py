"""How many tokens a text is, without the model's vocabulary: what is likely, and what it cannot exceed."""

import re

_WORDS = re.compile(r"[A-Za-z ]+")
LETTERS_A_TOKEN = 3  # English prose has 4 to 5 in the vocabularies of today's models


def likely_tokens(text: str) -> int:
    """A careful guess: letters and spaces by threes, every other ASCII character one, every byte beyond ASCII one.

    A function of the text alone, since it says where a long history is divided.
    """
    letters = sum(match.end() - match.start() for match in _WORDS.finditer(text))
    return -(-letters // LETTERS_A_TOKEN) + len(text.encode("utf-8", "replace")) - letters


def most_tokens(text: str) -> int:
    """A bound: no token of a byte-level vocabulary is shorter than a byte."""
    return len(text.encode("utf-8", "replace"))
