"""Random review histories, small and nasty: ties, double pairs, singles; and the worlds that the prover reads."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pyarrow as pa
from hypothesis import strategies as st

from pipelines.core.feature_rows import Vectors
from pipelines.core.params import History
from pipelines.core.tables import REVIEWS, SPLIT
from pipelines.prove import World

DAY = datetime(2020, 1, 1, tzinfo=UTC)
MEMBERS = pa.schema([*(REVIEWS.field(n) for n in ("review_id", "user_id", "business_id", "rating")),
                     REVIEWS.field("event_timestamp"), SPLIT.field("split"), SPLIT.field("fold")])  # fmt: skip


def history_params(leave_out: str = "pair") -> History:
    return History(numbers="full", leave_out=leave_out, as_of=DAY)


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
    """(review_id, user_id, business_id, rating, hour, split, fold, has_text) rows to a world with random vectors."""
    *columns, known = zip(*rows, strict=True)
    columns[4] = [DAY + timedelta(hours=hour) for hour in columns[4]]
    members = pa.table([pa.array(c, f.type) for c, f in zip(columns, MEMBERS, strict=True)], schema=MEMBERS)
    known = np.array(known)
    values = np.random.default_rng(seed).integers(-(2**24), 2**24, (len(rows), 5)).astype(np.int32)
    return World(members.to_pandas(), Vectors(np.where(known[:, None], values, 0).astype(np.int32), known))


def shuffled(world: World, seed: int) -> World:
    order = np.random.default_rng(seed).permutation(len(world.members))
    members = world.members.iloc[order].reset_index(drop=True)
    return World(pd.DataFrame(members), Vectors(world.vectors.values[order], world.vectors.known[order]))
