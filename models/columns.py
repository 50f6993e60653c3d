"""Feature columns as the encodings take them, and the one error for those that they cannot take.

Columns come under Feast's full names: counts int64 (N,), numbers float64 (N,) with NaN for null, instants
datetime64[us] (N,) with NaT for null, embeddings float32 (N, W) with rows of NaN for null (W is 0 where all are null),
names and lists of names as objects (N,) with None for null, and `event_timestamp`, the instant a row is asked at.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Columns = Mapping[str, np.ndarray]
Floats = NDArray[np.float64]


class Unencodable(ValueError):
    """A column that says what the model cannot take: one line names the column and what it says."""
