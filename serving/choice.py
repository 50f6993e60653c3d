"""Among which businesses a ranking chooses, and which of them it answers with."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from pipelines.core.errors import UserError
from pipelines.core.vocabulary import PRICE_TAGS, restaurant_types
from serving.catalogue import NOTHING_KNOWN, Business, Businesses
from serving.ranker import PRICE_TAG, Ranker, Ranking
from serving.requests import RankAnswer, Ranked
from serving.rows import Unreachable


@dataclass(frozen=True)
class Asked:
    """What a ranking is to be of; None: no such condition."""

    user_id: str
    candidates: Sequence[str] | None = None  # None: all of the business table
    category: str | None = None  # of the source, or a tagged type; in any case
    price_tag: str | None = None
    max_price: float | None = None
    exclude: Sequence[str] = ()
    top: int = 10
    at: datetime | None = None


@dataclass(frozen=True)
class Choice:
    """One business out of a ranking."""

    business_id: str
    business: Business
    probability: float
    reviews: int
    price_tag: str | None
    types: tuple[str, ...]


@dataclass(frozen=True)
class Chosen:
    known: bool  # the user has a history
    at: datetime
    candidates: int  # that meet all conditions
    best: list[Choice]  # most probable first, of equals the smaller id
    rankings: list[Ranking]  # that it took


def choose(ranker: Ranker, businesses: Businesses, asked: Asked, most_at_once: int) -> Chosen:
    """The best of what meets the conditions. All businesses are ranked, however many, `most_at_once` at a time.

    A tagged type and a price tag are known once the rows are read, so what fails these is ranked and then left out. A
    business without a price fails every `max_price`. UserError where a condition cannot be met, or as `Ranker.rank`.
    """
    check(ranker, businesses, asked)
    excluded = set(asked.exclude)
    ids = [
        one
        for one in dict.fromkeys(businesses.ids if asked.candidates is None else asked.candidates)
        if one not in excluded and affordable(businesses.of.get(one, NOTHING_KNOWN), asked.max_price)
    ]
    # Nobody to rank: still, whether the user is known, and when
    rankings = rank_blocks(ranker, asked, [ids[i : i + most_at_once] for i in range(0, max(len(ids), 1), most_at_once)])
    left = [places_that_meet(ranking, businesses, asked) for ranking in rankings]
    return Chosen(
        rankings[0].user_known,
        rankings[0].at,
        sum(map(len, left)),
        [choice_of(ranking, i, businesses) for ranking, i in best_of(rankings, left, asked.top)],
        rankings,
    )


def rank_blocks(ranker: Ranker, asked: Asked, blocks: Sequence[Sequence[str]]) -> list[Ranking]:
    """Every block as of one instant."""
    rankings = [ranker.rank(asked.user_id, blocks[0], asked.at)]
    try:
        rankings += [ranker.rank(asked.user_id, block, rankings[0].at) for block in blocks[1:]]
    except Unreachable:
        raise
    except UserError:
        if asked.at is not None:
            raise
        # A later block knows of a later review, that was written since the ranker looked for the newest one.
        at = max(ranker.rank(asked.user_id, block).at for block in blocks)
        rankings = [ranker.rank(asked.user_id, block, at) for block in blocks]
    return rankings


def check(ranker: Ranker, businesses: Businesses, asked: Asked) -> None:
    """UserError where what is asked can have no answer."""
    if asked.candidates is None and not businesses.ids:
        raise UserError(
            "`candidates` is missing, and there is no table of all businesses here (data/tables/businesses.parquet):"
            " name the candidates"
        )
    if asked.category is not None and businesses.categories:
        wanted = asked.category.casefold()
        if wanted not in {name.casefold() for name in (*businesses.categories, *restaurant_types())}:
            raise UserError(
                f"`category` is {asked.category!r:.70}: no business and no type is called so; GET /catalogue lists the"
                " businesses' own"
            )
    if asked.price_tag is None:
        return
    if asked.price_tag not in PRICE_TAGS:
        raise UserError(f"`price_tag` is {asked.price_tag!r:.70}: it is one of {', '.join(PRICE_TAGS)}")
    if not reads_tags(ranker):
        raise UserError(
            f"`price_tag` is {asked.price_tag!r}: the model's feature service {ranker.service} has no tags; leave it"
            " out, or serve a model that reads them"
        )


def reads_tags(ranker: Ranker) -> bool:
    """Whether the model's feature service has price tags and types."""
    return any(f"{view}__{feature}" == PRICE_TAG for view, features in ranker.views.items() for feature in features)


def affordable(business: Business, max_price: float | None) -> bool:
    return max_price is None or (business.price is not None and business.price <= max_price)


def places_that_meet(ranking: Ranking, businesses: Businesses, asked: Asked) -> np.ndarray:
    """Places in the ranking of what meets the conditions that are known now."""
    places = np.arange(len(ranking.ids))
    if asked.price_tag is not None:
        places = np.array([i for i in places if ranking.price_tags[i] == asked.price_tag], np.int64)
    if asked.category is not None:
        wanted = asked.category.casefold()
        places = np.array([i for i in places if is_of(ranking, int(i), businesses, wanted)], np.int64)
    return places


def is_of(ranking: Ranking, i: int, businesses: Businesses, category: str) -> bool:
    tagged = any(name.casefold() == category for name in ranking.types[i])
    return tagged or businesses.of.get(ranking.ids[i], NOTHING_KNOWN).is_of(category)


def best_of(rankings: Sequence[Ranking], left: Sequence[np.ndarray], top: int) -> list[tuple[Ranking, int]]:
    """A ranking and a place in it, most probable first, of equals the smaller id; only the best are sorted."""
    probabilities = np.concatenate(
        [ranking.probabilities[places] for ranking, places in zip(rankings, left, strict=True)]
    )
    least = -np.inf if len(probabilities) <= top else np.partition(probabilities, -top)[-top]
    found = [
        (ranking, int(i))
        for ranking, places in zip(rankings, left, strict=True)
        for i in places[ranking.probabilities[places] >= least]
    ]
    return sorted(found, key=lambda one: (-one[0].probabilities[one[1]], one[0].ids[one[1]]))[:top]


def choice_of(ranking: Ranking, i: int, businesses: Businesses) -> Choice:
    one = ranking.ids[i]
    return Choice(
        one,
        businesses.of.get(one, NOTHING_KNOWN),
        float(ranking.probabilities[i]),
        int(ranking.reviews[i]),
        ranking.price_tags[i],
        tuple(ranking.types[i]),
    )


def answer_of(ranker: Ranker, asked: Asked, chosen: Chosen) -> RankAnswer:
    """As everybody is told."""
    return RankAnswer(
        user_id=asked.user_id,
        known=chosen.known,
        at=chosen.at,
        feature_service=ranker.service,
        model=ranker.digest,
        candidates=chosen.candidates,
        ranking=[
            Ranked(
                business_id=one.business_id,
                name=one.business.name,
                probability=one.probability,
                reviews=one.reviews,
                categories=list(one.business.categories),
                price=one.business.price,
                price_tag=one.price_tag,
                types=list(one.types),
            )
            for one in chosen.best
        ],
    )
