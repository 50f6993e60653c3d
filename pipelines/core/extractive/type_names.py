"""Types by similarity, where the lexicon knows no word of a text: a sentence near a type's name speaks for it."""

import numpy as np
import numpy.typing as npt

from pipelines.core.extractive.similarity import dot_products

Vectors = npt.NDArray[np.float32]

# `Nice restaurant.` is as near to every type's name as a sentence about it. A type must be nearer than these.
SAYS_NOTHING = ("restaurant", "food", "bar", "place")
LEAD = 0.1  # by so much
RIVALS = 0.05  # types that are less near than the nearest by more than this are guesses


def name_of(kind: str) -> str:
    """What is embedded of a type: thai_restaurant is `thai restaurant`."""
    return kind.replace("_", " ")


def nearest_types(sentences: Vectors, names: Vectors, nothing: Vectors, threshold: float) -> list[int]:
    """Places in `names` (T, D), the nearest first, of the types that some of `sentences` (N, D) come near.

    `nothing` (M, D) are the vectors of SAYS_NOTHING; all of unit length, so that dot products are similarities.
    """
    if not len(sentences):
        return []
    lead = dot_products(sentences, nothing).max(axis=1, keepdims=True) + LEAD
    similarity = dot_products(sentences, names)
    near = np.where((similarity >= threshold) & (similarity >= lead), similarity, 0.0).max(axis=0)
    return [int(place) for place in np.argsort(-near, kind="stable") if near[place] > max(0.0, near.max() - RIVALS)]
