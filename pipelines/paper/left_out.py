"""The same reviews with histories made under three rules, for the experiment of `backwards`.

The features are the platform's own (`feature_rows`), here looked up without Feast, for it has one protocol at a time:

- `pair`: the entity's training reviews less the row's own pair (the paper's section 5.2);
- `fold`: less the row's own fold of pairs, so that an average moves by a whole fold's ratings at once;
- `point_in_time`: the entity's reviews strictly before the row's. A past is not lower because the future is high.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.core.feature_rows import ENTITIES, number_tables, vector_tables
from pipelines.core.params import History, Protocol
from pipelines.core.review_vectors import Vectors
from pipelines.core.tables import HISTORY_NUMBERS, HISTORY_TEXT, TRAINING_SET_KEYS
from pipelines.core.training_rows import TrainingRows, columns, vector_names, vector_width
from pipelines.core.visibility import Entity, Ints, LeaveOut, key_of
from pipelines.split import hash_pairs

Kind = Literal["pair", "fold", "point_in_time"]
KINDS: tuple[Kind, ...] = get_args(Kind)
VIEWS: Mapping[str, list[pa.Field]] = {"history": HISTORY_NUMBERS, "text": HISTORY_TEXT}
LIKED = 4.0  # stars, as the review table's label
NUMBERS = {"history": HISTORY_NUMBERS}
HELD_OUT = 5  # of so many train pairs one is not fitted


@dataclass(frozen=True)
class Histories:
    """N reviews and what histories are made of.

    `members`: review_id, user_id, business_id, rating, event_timestamp, split, fold; `text`: vectors of them.
    """

    members: pa.Table
    text: Vectors
    history: History

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """Without instants nobody knows what was before."""
        timeless = self.members["event_timestamp"].null_count
        return tuple(kind for kind in KINDS if kind != "point_in_time" or not timeless)

    def dealt(self, seed: int) -> "Histories":
        """The ratings dealt anew among all reviews: nothing of others says anything about one's own."""
        ratings = np.random.default_rng(seed).permutation(self.members["rating"].to_numpy())
        at = self.members.schema.get_field_index("rating")
        return replace(self, members=self.members.set_column(at, self.members.schema.field(at), pa.array(ratings)))

    def rows(self, kind: Kind, views: Mapping[str, list[pa.Field]] = VIEWS) -> dict[str, TrainingRows]:
        """Rows with history numbers and mean texts (or those of `views`) under the rule `kind`: train, held, test.

        `held`: a fifth of the train pairs. Their ratings are in the training histories like any train row's, but no
        learner is told their labels: who predicts them better than test rows has read them backwards, where a train
        row may just have been learned by heart.
        """
        table = self.training_set(kind, views)
        widths = {name: vector_width(table[name]) for name in vector_names(table.schema)}
        made = columns(table, widths, f"{kind} histories")
        return {name: taken(table, made, rows) for name, rows in self.parts().items()}

    def parts(self) -> dict[str, Ints]:
        """Which members are train, held and test rows."""
        frame = self.members.select(["user_id", "business_id", "split"]).to_pandas()
        train = (frame["split"] == "train").to_numpy()
        held = hash_pairs(frame["user_id"], frame["business_id"], 0, "held") % np.uint64(HELD_OUT) == 0
        masks = {"train": train & ~held, "held": train & held, "test": (frame["split"] == "test").to_numpy()}
        return {name: np.flatnonzero(mask) for name, mask in masks.items()}

    def training_set(self, kind: Kind, views: Mapping[str, list[pa.Field]]) -> pa.Table:
        """A row per member: TRAINING_SET_KEYS, then the features by their full names."""
        protocol: Protocol = "point_in_time" if kind == "point_in_time" else "leave_one_out"
        leave_out: LeaveOut = "fold" if kind == "fold" else "pair"
        history = self.history.model_copy(update={"leave_out": leave_out})
        frame, text = self.members.to_pandas(), {"embedding": self.text}
        tables: dict[str, list[pa.Table]] = {}
        for name, table in number_tables(self.members, protocol, history).items():
            tables.setdefault(name, []).append(table)
        for entity in ENTITIES if "text" in views else ():
            for name, piece in vector_tables(frame, text, f"{entity}_text", protocol, history):
                tables.setdefault(name, []).append(piece)
        label = pc.cast(pc.greater_equal(self.members["rating"], LIKED), pa.int8())
        made = self.members.append_column("label", label).select(TRAINING_SET_KEYS.names)
        for entity in ENTITIES:
            for view, fields in views.items():
                suffix = "" if protocol == "point_in_time" else "_by_review"
                table = pa.concat_tables(tables[f"{entity}_{view}{suffix}"])
                row = newest_before(frame, table, entity) if protocol == "point_in_time" else of_review(frame, table)
                for field in fields:
                    values = table[field.name].take(pa.array(row, mask=row < 0))
                    filled = pc.fill_null(values, 0) if field.name == "review_count" else values
                    made = made.append_column(f"{entity}_{view}__{field.name}", filled)
        return made


def newest_before(frame: pd.DataFrame, table: pa.Table, entity: Entity) -> Ints:
    """(N,) which row of `table` is the entity's newest strictly before each review; -1: none."""
    key = key_of(entity)
    asked = frame[[key, "event_timestamp"]].assign(review=np.arange(len(frame)))
    known = table.select([key, "event_timestamp"]).to_pandas().assign(row=np.arange(len(table)))
    found = pd.merge_asof(
        asked.sort_values("event_timestamp"),
        known.sort_values("event_timestamp"),
        on="event_timestamp",
        by=key,
        allow_exact_matches=False,
    )
    return found.sort_values("review")["row"].fillna(-1).to_numpy(np.int64)


def of_review(frame: pd.DataFrame, table: pa.Table) -> Ints:
    """(N,) which row of `table` is each review's."""
    found = pc.index_in(pa.array(frame["review_id"], pa.string()), table["review_id"].combine_chunks())
    assert not found.null_count, "leave_one_out makes a row for every review"
    return found.to_numpy(zero_copy_only=False).astype(np.int64)


def taken(table: pa.Table, made: dict[str, np.ndarray], rows: Ints) -> TrainingRows:
    return TrainingRows(table.take(rows), {name: values[rows] for name, values in made.items()})
