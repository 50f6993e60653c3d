"""What an entity without history is given: counts of 0. Training and ranker both call this, and nothing else fills."""

import pyarrow as pa
import pyarrow.compute as pc


def fill_counts(features: pa.Table) -> pa.Table:
    """Replace nulls by 0 in every `<view>__review_count` column (int64); all other columns stay as they are.

    Feast gives null for an entity it has no row of.
    """
    for index, name in enumerate(features.column_names):
        if name.endswith("__review_count"):
            filled = pc.fill_null(features.column(index).cast(pa.int64()), 0)
            features = features.set_column(index, pa.field(name, pa.int64(), nullable=False), filled)
    return features
