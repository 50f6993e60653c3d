"""A stranger's text to readable sentences: what real reviews do to spaces, full stops, lists and emojis is undone.

Of one text the beginning is read (`words.MOST_READ` characters), in time that grows as its length does.
"""

import re
import unicodedata
from functools import lru_cache

from pipelines.core.extractive.words import beginning, normalized

MOST_WORDS = 40  # of a sentence; what runs on is cut at its clauses
MOST_LETTERS = 60  # of a word; longer ones are no words
FEWEST_CUT = 4  # words on either side of a clause that is cut off
ENDS = ".!?…"

INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufe00-\ufe0f\ufeff]")
EMOJI = re.compile("[\U0001f000-\U0001faff\u2190-\u21ff\u2300-\u27bf\u2900-\u2bff\u3030\u303d\u3297\u3299\u20e3]+")
SMILEY = re.compile(r"(?<!\w)(?:[:;=8][-^']?[)(\]\[dDpPoO/|*3]+|<3+|[)(]-?[:;]|\^_*\^|xD+)(?!\w)")
BULLET = re.compile(r"^\s*(?:[-*•·●○▪■►»>~+#=_|–—]+\s*|\(?\d{1,2}[.):](?!\d)\s*|\(?[a-hA-H][.)]\s+)+")
# What ends with a full stop and is no end. `e.g` and the like: their inner stops are followed by no space.
TITLES = frozenset(["mr", "mrs", "ms", "dr", "st", "jr", "sr", "prof"])
UNITS = frozenset(["rs", "inr", "no", "nos", "approx", "hrs", "mins", "min", "max", "ave", "rd", "dept", "govt"])
ABBREVIATIONS = TITLES | UNITS | {"vs", "etc", "eg", "ie", "e.g", "i.e", "a.m", "p.m"}
DOMAINS = frozenset(["com", "in", "org", "net", "co", "fit", "io", "uk", "us", "info", "html", "www"])
# Runs of end marks, with closing quotes and brackets.
MARKS = re.compile(r"[.!?…]+[\"'”’)\]]*")
AT_EMOJIS = re.compile(r"\x00\s*(?=[^\W\d_a-z]|\x00)")
LAST_WORD = re.compile(r"[\w.]*$")
LETTERS = re.compile(r"[^\W\d_]+")
FOLLOWING = re.compile(r"\s*(\S?)")
LEADING = re.compile(r"^\W*?(?=[\"“‘'(@#$€£₹]?\w)")
# A run of marks is looked at once, from its start: the time would grow with its square.
TRAILING = re.compile(r"(?<![\s,;:(*{&/+~•#@_|<>=·-])[\s,;:(*{&/+~•#@_|<>=·-]+$|\s[\[–—]+$")
CLAUSES = (
    re.compile(r"(?<=[;:])\s+|\s+[-–—]+\s+"),
    re.compile(r"(?<=,)\s+"),
    re.compile(r"\s+(?=(?:and|but|so|also|then)\s)"),
)


def split_sentences(text: str) -> tuple[str, ...]:
    """The sentences of the beginning of `text`: of at most MOST_WORDS words, without bullets and emojis, with an end.

    Each is on one line. Nothing that holds no letter is a sentence, so a text of emojis alone has none.
    """
    return _split(beginning(text))


@lru_cache(maxsize=65536)
def _split(text: str) -> tuple[str, ...]:
    found = []
    for line in _lines(_clean(text)):
        for piece in _at_marks(BULLET.sub("", line)):
            for part in _cut(piece.split()):
                sentence = _finished(part)
                if sentence:
                    found.append(sentence)
    return tuple(found)


def word_count(sentence: str) -> int:
    """Words between white space that hold a letter or a digit."""
    return sum(any(letter.isalnum() for letter in word) for word in sentence.split())


def _clean(text: str) -> str:
    text = normalized("NFC", text.encode("utf-8", "replace").decode())
    text = INVISIBLE.sub("", text.replace("\r\n", "\n").replace("\r", "\n").replace("\u2028", "\n"))
    text = "\n".join(line if line.isprintable() else _printable(line) for line in text.split("\n"))
    text = SMILEY.sub(" \x00 ", text.replace("\ufffd", " "))
    return text if text.isascii() else EMOJI.sub(" \x00 ", text)


def _printable(line: str) -> str:
    return "".join(" " if unicodedata.category(letter)[0] == "C" else letter for letter in line)


def _lines(text: str) -> list[str]:
    """Lines that stand alone: a line that goes on in lower case where the last one had no end belongs to it."""
    lines: list[str] = []
    joins = False
    for line in text.split("\n"):
        bare = line.strip()
        if not bare:
            joins = False
        elif joins and bare[0].islower() and not BULLET.match(bare):
            lines[-1] += " " + bare
        else:
            lines.append(bare)
        if bare:
            joins = bare[-1] not in ENDS + ":\x00"
    return lines


def _at_marks(line: str) -> list[str]:
    """Pieces of a line, cut after end marks that do end something, and at emojis before a capital."""
    pieces, start = [], 0
    for match in MARKS.finditer(line):
        if match.start() >= start and _ends(line, match):
            pieces.append(line[start : match.end()])
            start = match.end()
    pieces.append(line[start:])
    return [part for piece in pieces for part in AT_EMOJIS.split(piece)]


def _ends(line: str, match: re.Match[str]) -> bool:
    """Looks around the mark alone: a line may hold thousands."""
    end = match.end()
    following = FOLLOWING.match(line, end)
    first = following.group(1) if following else ""
    if not first:
        return True
    word = LAST_WORD.search(line[max(0, match.start() - MOST_LETTERS) : match.start()])
    last = word.group().lower() if word else ""
    if match.group()[:1] == "." and len(match.group().rstrip("\"'”’)]")) == 1:
        if last in ABBREVIATIONS or (len(last) == 1 and last.isalpha() and last != "i" and not line[end].isspace()):
            # `approx. 20`, `Rs.500`, `U.S`; but `etc. The` ends
            return last == "etc" and first.isupper()
        if last[-1:].isdigit() and line[end].isdigit():
            return False
        letters = LETTERS.match(line, end)
        if letters and letters.group().lower() in DOMAINS:
            return False
        if line[end].isspace() and first.islower() and len(last) <= 1:
            return False
    return line[end].isspace() or line[end] == "\x00" or line[end].isalpha() or line[end].isdigit()


def _cut(words: list[str]) -> list[str]:
    """Words to pieces of at most MOST_WORDS: at the clause nearest to the middle, else hard."""
    pieces: list[str] = []
    waiting = [[word for word in words if len(word) <= MOST_LETTERS]]  # the next one last
    while waiting:
        words = waiting.pop()
        text = " ".join(words)
        cut = _clause_in(text) if len(words) > MOST_WORDS else None
        if cut is not None:
            waiting += [text[cut.end() :].split(), text[: cut.start()].split()]
        else:
            pieces += [" ".join(words[at : at + MOST_WORDS]) for at in range(0, max(1, len(words)), MOST_WORDS)]
    return pieces


def _clause_in(text: str) -> re.Match[str] | None:
    """Where to cut words between single spaces: of the first kind of clause that leaves enough on either side."""
    spaces = text.count(" ")
    for clause in CLAUSES:
        cuts = []
        before = place = 0  # spaces in text[:place]
        for match in clause.finditer(text):
            before += text.count(" ", place, match.start())
            place = match.start()
            after = spaces - before - text.count(" ", place, match.end())
            if min(before, after) + 1 >= FEWEST_CUT:
                cuts.append(match)
        if cuts:
            return min(cuts, key=lambda match: abs(match.start() - len(text) / 2))
    return None


def _finished(piece: str) -> str:
    """One readable sentence, or "" where there is no letter."""
    text = BULLET.sub("", piece.replace("\x00", " "))
    text = TRAILING.sub("", LEADING.sub("", " ".join(text.split())))
    text = re.sub(r"\s+([,;:.!?…])", r"\1", text)
    text = re.sub(r"([!?])[.!?…]+", r"\1", text)
    text = re.sub(r"\.{2,}|…", "...", text)
    text = re.sub(r"(?<!\.)\.{2,}$", ".", text)
    text = re.sub(r",{2,}", ",", text)
    if not any(letter.isalpha() for letter in text):
        return ""
    text = text[0].upper() + text[1:]
    return text if text.rstrip("\"'”’)]")[-1:] in tuple(".!?") else text + "."
