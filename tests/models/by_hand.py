"""Two rows of columns to compute by hand: one whose user and business are known, one cold."""

import numpy as np


def columns(**changes: np.ndarray) -> dict[str, np.ndarray]:
    """As the baseline reads them, texts two wide and no photos, with `changes`."""
    day = np.array(["2019-01-11", "2019-01-11"], "datetime64[us]")
    made: dict[str, np.ndarray] = {"event_timestamp": day}
    for entity in ("user", "business"):
        made |= {
            f"{entity}_history__review_count": np.array([3, 0]),
            f"{entity}_history__rating_mean": np.array([5.0, np.nan]),
            f"{entity}_history__rating_std": np.array([0.5, np.nan]),
            f"{entity}_history__rating_trend": np.array([-0.25, np.nan]),
            f"{entity}_history__newest_review_at": np.array(["2019-01-01", "NaT"], "datetime64[us]"),
            f"{entity}_text__embedding": np.array([[3.0, 4.0], [np.nan, np.nan]], np.float32),
        }
    return made | changes


def names(*values: object) -> np.ndarray:
    """(N,) of names, or of lists of names."""
    made = np.empty(len(values), dtype=object)
    made[:] = list(values)
    return made
