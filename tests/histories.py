"""Random review histories, small and nasty: ties, double pairs, singles; and the worlds that the prover reads."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pyarrow as pa
from hypothesis import strategies as st

from pipelines.core.params import History
from pipelines.core.review_vectors import Vectors
from pipelines.core.tables import REVIEWS, SPLIT
from pipelines.obvious import Rule, World

DAY = datetime(2020, 1, 1, tzinfo=UTC)
OF_REVIEW = ("review_id", "user_id", "business_id", "rating", "text", "event_timestamp")
MEMBERS = pa.schema([*(REVIEWS.field(name) for name in OF_REVIEW), SPLIT.field("split"), SPLIT.field("fold")])


GROWTH = {"user_summary": 2.0, "business_summary": 2.0, "business_tags": 1.5}


def history_params(leave_out: str = "pair") -> History:
    return History(numbers="full", leave_out=leave_out, as_of=DAY)


def rule_of(protocol: str, leave_out: str = "pair") -> Rule:
    return Rule(protocol, history_params(leave_out), GROWTH)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Up to 30 reviews of 4 users and 4 businesses at 6 instants; pairs lie whole in a split and a fold."""
    rows = draw(
        st.lists(
            st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(2, 10), st.integers(0, 5), st.booleans()),
            min_size=1,
            max_size=30,
        )
    )
    of_pair = draw(
        st.fixed_dictionaries(
            {
                (u, b): st.tuples(st.sampled_from(["train", "validation", "test"]), st.integers(0, 2))
                for u in range(4)
                for b in range(4)
            }
        )
    )
    seed = draw(st.integers(0, 2**16))
    return world_of(
        [
            (f"r{i}", f"u{u}", f"b{b}", half_stars / 2, hour, *of_pair[u, b], has_text)
            for i, (u, b, half_stars, hour, has_text) in enumerate(rows)
        ],
        seed,
    )


def world_of(rows: list[tuple], seed: int = 0) -> World:
    """(review_id, user_id, business_id, rating, hour, split, fold, has_text) rows to a world with random vectors.

    A review with a text says its own name; every review has 0 to 2 photos, one in three of them without a caption.
    """
    review_id, user, business, rating, hour, split, fold, known = zip(*rows, strict=True)
    texts = [f"words of {name}" if told else "" for name, told in zip(review_id, known, strict=True)]
    instants = [DAY + timedelta(hours=h) for h in hour]
    columns = [review_id, user, business, rating, texts, instants, split, fold]
    members = pa.table([pa.array(c, f.type) for c, f in zip(columns, MEMBERS, strict=True)], schema=MEMBERS)
    random = np.random.default_rng(seed)
    text = Vectors.one_each(draw_vectors(random, len(rows)), np.array(known))
    owner = np.repeat(np.arange(len(rows)), random.integers(0, 3, len(rows)))
    captioned = owner[random.random(len(owner)) < 0.67]
    photos = {"image_embedding": owner, "caption_embedding": captioned}
    return World(
        members.to_pandas(),
        {"text": text, **{name: Vectors(draw_vectors(random, len(of)), of) for name, of in photos.items()}},
    )


def draw_vectors(random: np.random.Generator, count: int) -> np.ndarray:
    return random.integers(-(2**24), 2**24, (count, 5)).astype(np.int32)


def shuffled(world: World, seed: int) -> World:
    order = np.random.default_rng(seed).permutation(len(world.members))
    members = world.members.iloc[order].reset_index(drop=True)
    return World(pd.DataFrame(members), {name: some.taken(order) for name, some in world.vectors.items()})
