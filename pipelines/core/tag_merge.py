"""One tag answer out of those about the chunks of a long history, without asking again."""

import json
from collections import Counter
from collections.abc import Sequence

from pipelines.core.vocabulary import MOST_SUBTYPES

SAYS_NOTHING = "none"


def merge_tags(answers: Sequence[str]) -> str:
    """Answers `{"price": ..., "types": [...]}` in reading order, as one.

    The price that most chunks name; a chunk that names none has seen no clue and has no vote; of a tie, the one named
    first. Types by the number of chunks that name them, then by how far in front they stand, then by which was read
    first.
    """
    read = [json.loads(answer) for answer in answers]
    prices = Counter(answer["price"] for answer in read if answer.get("price", SAYS_NOTHING) != SAYS_NOTHING)
    votes: Counter[str] = Counter()
    places: Counter[str] = Counter()
    for answer in read:
        for place, name in enumerate(answer.get("types", [])):
            votes[name] += 1
            places[name] += place
    # both sorts are stable, and a Counter knows the order in which names came
    types = sorted(votes, key=lambda name: (-votes[name], places[name] / votes[name]))
    price = max(prices, key=lambda name: prices[name]) if prices else SAYS_NOTHING
    return json.dumps({"price": price, "types": types[:MOST_SUBTYPES]})
