"""A simulated world: people with tastes, restaurants whose quality drifts, and who reviewed what when.

Arrays only; what is drawn here is the ground truth that `simulate` writes beside the raw files.
"""

from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

CUISINES = (
    "Italian",
    "Mexican",
    "Indian",
    "Chinese",
    "Japanese",
    "Thai",
    "American",
    "Mediterranean",
    "French",
    "Korean",
)
MONTHS = 48
START_MS = int(datetime(2018, 1, 1, tzinfo=UTC).timestamp() * 1000)
MONTH_MS = 30 * 24 * 3600 * 1000
DAY_MS = 24 * 3600 * 1000

# What an expected stay is worth: shares of the four things a history can tell, and what it cannot.
TASTE, QUALITY, PRICE, STRICTNESS, NOISE = 0.7, 0.9, 0.5, 0.8, 1.2
# Of the negatives: 1, 2 and 3 stars; of the positives: 4 stars (as review sites have them: the ends are popular).
NEGATIVE_STARS = (0.38, 0.20, 0.42)
FOUR_OF_POSITIVE = 0.34

BURST_SHARE, TIE_SHARE, REPEAT_SHARE = 0.10, 0.03, 0.02
CANDIDATES = 6  # restaurants a person weighs before going to one


@dataclass(frozen=True)
class World:
    """U users, B businesses, C cuisines, N reviews."""

    taste: Floats  # U x C, about N(0, 1)
    strictness: Floats  # U, about N(0, 1): high means fewer stars for the same dinner
    budget: Floats  # U, the price level a user is at ease with, 1 to 4
    cuisine: Ints  # B
    price: Ints  # B, 1 to 4
    popularity: Floats  # B, sums to 1
    quality: Floats  # B x MONTHS, a random walk
    service: Floats  # B, what reviews say about the service
    user: Ints  # N
    business: Ints  # N
    time_ms: Ints  # N, since 1970
    expected: Floats  # N, the expected utility
    utility: Floats  # N, expected plus noise
    rating: Ints  # N, 1 to 5


def long_tail(rng: np.random.Generator, size: int, exponent: float) -> Floats:
    """Shares of `size` things, Zipf-Mandelbrot's with an offset of 1 % of them, in random order, summing to 1."""
    weights = (np.arange(1, size + 1) + size / 100) ** -exponent
    return rng.permutation(weights / weights.sum())


def simulate_world(
    rng: np.random.Generator, *, reviews: int, users: int, businesses: int, negative_share: float
) -> World:
    """Draw a world; the share of ratings below 4 is `negative_share` to within one review."""
    taste = rng.normal(size=(users, len(CUISINES)))
    strictness = rng.normal(size=users)
    budget = rng.uniform(1, 4, size=users)
    cuisine = rng.integers(len(CUISINES), size=businesses)
    price = rng.choice(np.arange(1, 5), size=businesses, p=[0.28, 0.42, 0.22, 0.08])
    popularity = long_tail(rng, businesses, 0.8)
    steps = rng.normal(scale=0.13, size=(businesses, MONTHS))
    quality = rng.normal(scale=0.7, size=(businesses, 1)) + np.cumsum(steps, axis=1)
    service = rng.normal(size=businesses)

    user = who_writes(rng, reviews, users)
    business = where_they_go(rng, user, taste, cuisine, popularity)
    business = go_again(rng, user, business)
    time_ms = when(rng, business)

    month = (time_ms - START_MS) // MONTH_MS
    expected = (
        TASTE * taste[user, cuisine[business]]
        + QUALITY * quality[business, month]
        - PRICE * np.abs(price[business] - budget[user])
        - STRICTNESS * strictness[user]
    )
    utility = expected + rng.normal(scale=NOISE, size=reviews)
    rating = stars(utility, negative_share)
    return World(
        taste, strictness, budget, cuisine, price, popularity, quality, service,
        user, business, time_ms, expected, utility, rating,
    )  # fmt: skip


def who_writes(rng: np.random.Generator, reviews: int, users: int) -> Ints:
    """N user numbers: everybody once where there are enough reviews, the rest by a long tail."""
    once = rng.permutation(users)[:reviews]
    rest = rng.choice(users, size=reviews - len(once), p=long_tail(rng, users, 1.25))
    return rng.permutation(np.concatenate([once, rest]))


def where_they_go(rng: np.random.Generator, user: Ints, taste: Floats, cuisine: Ints, popularity: Floats) -> Ints:
    """N business numbers: the best of a few popular candidates, by taste and chance (memory N x CANDIDATES).

    Who would go where they have been draws again, three times at most: people like to try places.
    """
    business = np.zeros(len(user), dtype=np.int64)
    undecided = np.arange(len(user))
    for _ in range(4):
        candidates = rng.choice(len(popularity), size=(len(undecided), CANDIDATES), p=popularity)
        appeal = 0.7 * taste[user[undecided, None], cuisine[candidates]] + rng.gumbel(size=candidates.shape)
        business[undecided] = candidates[np.arange(len(undecided)), appeal.argmax(axis=1)]
        pair = user * len(popularity) + business
        undecided = np.setdiff1d(np.arange(len(user)), np.unique(pair, return_index=True)[1])
    return business


def go_again(rng: np.random.Generator, user: Ints, business: Ints) -> Ints:
    """Send some reviews to the restaurant of the same user's neighbouring review: a pair that stands twice."""
    order = np.argsort(user, kind="stable")
    follows = np.flatnonzero(user[order][1:] == user[order][:-1]) + 1
    again = rng.permutation(follows)[: round(REPEAT_SHARE * len(user))]
    returned = business.copy()
    returned[order[again]] = business[order[again - 1]]
    return returned


def when(rng: np.random.Generator, business: Ints) -> Ints:
    """N instants in ms: more in later months, some within a restaurant's busy day, some exactly tied."""
    size = len(business)
    span = MONTHS * MONTH_MS
    time_ms = START_MS + (np.sqrt(rng.uniform(0.02, 1, size=size)) * span).astype(np.int64)
    busy_day = START_MS + rng.integers(span - DAY_MS, size=business.max() + 1)
    in_burst = rng.uniform(size=size) < BURST_SHARE
    within = (rng.beta(2, 5, size=size) * DAY_MS).astype(np.int64)
    time_ms = np.where(in_burst, busy_day[business] + within, time_ms)
    # Half of the ties are between neighbours in one restaurant, half between strangers.
    by_business = np.argsort(business, kind="stable")
    pairs = rng.permutation(size - 1)[: round(TIE_SHARE * size)]
    inside, across = pairs[::2], pairs[1::2]
    time_ms[by_business[inside + 1]] = time_ms[by_business[inside]]
    time_ms[across + 1] = time_ms[across]
    return np.minimum(time_ms, START_MS + span - 1)


def stars(utility: Floats, negative_share: float) -> Ints:
    """Ratings 1 to 5 by rank, so that the share below 4 is `negative_share` to within one review."""
    positive = 1 - negative_share
    shares = np.array([*(negative_share * np.array(NEGATIVE_STARS)), positive * FOUR_OF_POSITIVE])
    cuts = np.round(np.cumsum(shares) * len(utility)).astype(np.int64)
    rank = np.empty(len(utility), dtype=np.int64)
    rank[np.argsort(utility, kind="stable")] = np.arange(len(utility))
    return 1 + np.searchsorted(cuts, rank, side="right")
