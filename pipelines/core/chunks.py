"""A long history in chunks that fit, in reading order and stable at the front.

A history that grew has the same earlier chunks.
"""

from collections.abc import Callable, Sequence

Fits = Callable[
    [Sequence[str]], bool
]  # whether these texts can be asked about at once; true of fewer and shorter ones too


def chunks(texts: Sequence[str], fits: Fits) -> list[tuple[str, ...]]:
    """Each as many texts as fit, from the first on.

    A text that does not fit alone is cut into pieces, and joined they are the text.
    """
    made: list[tuple[str, ...]] = []
    rest = list(texts)
    at = 0
    while at < len(rest):
        length = _most(len(rest) - at, lambda n: fits(rest[at : at + n]))  # noqa: B023 (called within this turn)
        if length:
            made.append(tuple(rest[at : at + length]))
            at += length
        else:
            head, rest[at] = _cut(rest[at], fits)
            made.append((head,))
    return made


def _most(limit: int, holds: Callable[[int], bool]) -> int:
    """The largest n up to `limit` for which it holds (0 is taken to hold): doubled until it fails, then halved."""
    low, high = 0, 1
    while high <= limit and holds(high):
        low, high = high, high * 2
    high = min(high, limit + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def _cut(text: str, fits: Fits) -> tuple[str, str]:
    """The longest beginning that fits, up to the end of a word if there is one in its second half, and the rest."""
    length = _most(len(text) - 1, lambda n: fits([text[:n]]))
    assert length > 0, "not even one character fits"
    space = max(text.rfind(space, length // 2, length) for space in " \n\t")
    length = space + 1 if space >= 0 else length
    return text[:length], text[length:]
