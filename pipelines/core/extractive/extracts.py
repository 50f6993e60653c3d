"""A summary in the reviews' own words: their most central sentences, none much like another, in reading order."""

import re

import numpy as np
import numpy.typing as npt

from pipelines.core.extractive.lexrank import lexrank, ranking
from pipelines.core.extractive.sentences import split_sentences, word_count
from pipelines.core.extractive.similarity import dot_products

MOST_SENTENCES = 2000  # of one question: the graph is quadratic (32 MB)
FEWEST_WORDS = 3  # `Good food.` says little; shorter ones only where nothing else is
DAMPING = 0.85
SHARPNESS = 2  # similarities are squared: a few near sentences say more than many distant ones
DUPLICATE = 0.8  # a sentence more similar than that to a chosen one is left out
# Telling of oneself is less of a summary. benchmarks/language.py measures what this and SHARPNESS are worth.
PERSONAL = 0.8
FIRST_PERSON = re.compile(r"\b(?:i|i'm|i've|my|me|we|our|us|he|she|his|her|husband|wife|son|daughter)\b", re.IGNORECASE)
LONGER, ENOUGH = 1.1, 0.9  # of the words asked for: never more (but for a first sentence), and enough


def sentences_of(texts: tuple[str, ...]) -> tuple[str, ...]:
    """The sentences that may be chosen, in reading order; the first MOST_SENTENCES of a text longer than that."""
    found = [sentence for text in texts for sentence in split_sentences(text)]
    telling = [sentence for sentence in found if word_count(sentence) >= FEWEST_WORDS]
    return tuple((telling or found)[:MOST_SENTENCES])


def extract(sentences: tuple[str, ...], vectors: npt.NDArray[np.float32], words: int) -> str:
    """About `words` words of `sentences` (N,), whose unit vectors are `vectors` (N, D). A function of these alone."""
    if not sentences:
        return ""
    similarity = np.clip(dot_products(vectors, vectors), 0.0, None)
    scores = lexrank(similarity**SHARPNESS, DAMPING)
    personal = np.array([FIRST_PERSON.search(sentence.replace("’", "'")) is not None for sentence in sentences])
    chosen: list[int] = []
    count = 0
    for place in ranking(np.where(personal, PERSONAL * scores, scores)):
        length = word_count(sentences[place])
        too_long = count + length > LONGER * words
        if chosen and (too_long or similarity[place, chosen].max() > DUPLICATE):
            continue
        chosen.append(place)
        count += length
        if count >= ENOUGH * words:
            break
    return " ".join(sentences[place] for place in sorted(chosen))
