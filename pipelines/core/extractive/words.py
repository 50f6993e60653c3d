"""Words of a text in one form, and the longest phrases of a lexicon among them."""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

WORD = re.compile(r"[^\W_]+")
APOSTROPHES = re.compile(r"(?<=\w)['’`´](?=\w)")
KEEP_S = ("ss", "us", "is")
MOST_READ = 20_000  # characters of one text: reviews have up to 5,000, and one stranger shall not hold up all others
BLOCK = re.compile(r"\S{1,500}")

Words = tuple[str, ...]


def beginning(text: str) -> str:
    """What is read of a text: its first MOST_READ characters, up to a space, blanks before them left out."""
    if len(text) <= MOST_READ:
        return text
    text = text.lstrip()
    # The last word may be cut in two: it is left out, unless there is no other.
    return text if len(text) <= MOST_READ else text[:MOST_READ].rsplit(maxsplit=1)[0]


def normalized(form: Literal["NFC", "NFKD"], text: str) -> str:
    """Word by word, and words of over 500 characters in blocks: ordering n accents of one letter takes n² steps."""
    if text.isascii() or len(text) <= 500:
        return unicodedata.normalize(form, text)
    return BLOCK.sub(lambda block: unicodedata.normalize(form, block.group()), text)


def words_of(text: str) -> Words:
    """Lower case, without accents, apostrophes and a plural's s: `Crêpes & po'boys` is crepe, and, poboy."""
    plain = text.lower()
    if not plain.isascii():
        plain = "".join(part for part in normalized("NFKD", plain) if not unicodedata.combining(part))
    found = WORD.findall(APOSTROPHES.sub("", plain.replace("&", " and ")))
    return tuple("and" if word == "n" else singular(word) for word in found)  # `fish n chips`


def singular(word: str) -> str:
    """Without a plural's s; no grammar, but the same for a text and for a lexicon."""
    if len(word) <= 3 or not word.endswith("s") or word.endswith(KEEP_S):
        return word
    return word[:-3] + "y" if len(word) > 5 and word.endswith("ies") else word[:-1]


class Phrases:
    """A lexicon's phrases, found in a text from left to right, the longest first, none within another."""

    def __init__(self, phrases: Iterable[str]):
        """A phrase is known by its words: `names` gives back its first spelling."""
        self.names: dict[Words, str] = {}
        for phrase in phrases:
            self.names.setdefault(words_of(phrase), phrase)
        self.names.pop((), None)
        self._longest: dict[str, int] = {}  # by a phrase's first word
        for words in self.names:
            self._longest[words[0]] = max(self._longest.get(words[0], 0), len(words))

    def within(self, words: Sequence[str]) -> Iterator[tuple[int, int, str]]:
        """(first word, one after the last word, the phrase as the lexicon spells it)."""
        place = 0
        while place < len(words):
            if words[place] not in self._longest:  # nearly always
                place += 1
                continue
            for length in range(min(self._longest[words[place]], len(words) - place), 0, -1):
                name = self.names.get(tuple(words[place : place + length]))
                if name is not None:
                    yield place, place + length, name
                    place += length
                    break
            else:
                place += 1
