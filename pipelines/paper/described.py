"""What data a result is of: said the same way in every report, so that no two of different data are ever mixed."""

from collections.abc import Mapping
from typing import Any

from pipelines.core.params import Params
from pipelines.core.training_rows import TrainingRows


def data_of(splits: Mapping[str, TrainingRows], params: Params) -> dict[str, Any]:
    """Source, protocol, and by split the rows and the share of disliked ones (null where there is no row)."""
    return {
        "source": params.ingest.source,
        "protocol": params.protocol,
        "rows": {split: len(rows.labels) for split, rows in splits.items()},
        "negative_share": {
            split: float((rows.labels == 0).mean()) if len(rows.labels) else None for split, rows in splits.items()
        },
    }
