"""Embeddings to what a reducer reads: centred, scaled, side by side, and a flag each for being there."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from models.columns import Columns, Floats, Unencodable
from models.variants import Spaces

BLOCK = 8192  # rows in float64 at a time


def has_vector(embedding: np.ndarray) -> NDArray[np.bool_]:
    """(N, W) -> (N,): true where the row is no row of NaN."""
    if embedding.shape[1] == 0:  # nobody has one
        return np.zeros(len(embedding), dtype=np.bool_)
    return ~np.isnan(embedding[:, 0])


@dataclass(frozen=True)
class VectorEncoding:
    """Which embeddings, and the train rows' figures that make them comparable.

    Centred, because all reviews' means share one large direction; scaled, because MiniLM's 384 numbers are near 0.05
    and a layer drawn for unit inputs would learn nothing from them. An embedding that no train row has is 0 wide: it
    has taught nothing, so it says 0 whatever comes.
    """

    names: tuple[str, ...]
    means: tuple[Floats, ...]  # (W,) each
    scales: tuple[float, ...]  # 0 where train rows all had one vector

    @classmethod
    def fit(cls, columns: Columns, spaces: Spaces) -> Self:
        """From train rows. Embeddings of one space share their scale, so that the surer mean stays the smaller."""
        names: list[str] = []
        centres: list[Floats] = []
        scales: list[float] = []
        for space in spaces:
            squares, count = 0.0, 0
            for name in space:
                embedding = columns[name]
                known = embedding[has_vector(embedding)]
                if not len(known):
                    centre = np.zeros(0)
                else:
                    centre = known.mean(axis=0, dtype=np.float64)
                    squares += sum_of_squares(known, centre)
                    count += known.size
                names.append(name)
                centres.append(centre)
            spread = float(np.sqrt(squares / count)) if count else 0.0
            scales += [1 / spread if spread > 1e-9 else 0.0] * len(space)
        return cls(tuple(names), tuple(centres), tuple(scales))

    @property
    def width(self) -> int:
        return sum(map(len, self.means)) + len(self.names)

    def encode(self, columns: Columns) -> NDArray[np.float32]:
        """(N, sum of the W + their number) float32, finite: the vectors (zeros for null), then their flags.

        Unencodable names an embedding of another width than train's. One of width 0 is null throughout.
        """
        rows = len(columns[self.names[0]])
        encoded = np.zeros((rows, self.width), np.float32)
        start = 0
        for i, (name, centre, scale) in enumerate(zip(self.names, self.means, self.scales, strict=True)):
            embedding, width = columns[name], len(centre)
            if width and embedding.shape[1]:
                if embedding.shape[1] != width:
                    raise Unencodable(f"`{name}` is {embedding.shape[1]} wide, the model wants {width}")
                known = has_vector(embedding)
                part = encoded[:, start : start + width]
                # Computed in float64 block by block: the whole at once would be twice what it ends as.
                np.subtract(embedding, centre, out=part, casting="same_kind")
                np.multiply(part, scale, out=part, casting="same_kind")
                part[~known] = 0.0
                encoded[:, i - len(self.names)] = known
            start += width
        return encoded

    def to_json(self) -> dict[str, Any]:
        return {"names": self.names, "means": [centre.tolist() for centre in self.means], "scales": self.scales}

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> Self:
        means = tuple(np.asarray(centre, dtype=np.float64) for centre in kept["means"])
        return cls(tuple(kept["names"]), means, tuple(kept["scales"]))


def sum_of_squares(vectors: NDArray[np.float32], centre: Floats) -> float:
    """Of (N, W) about (W,)."""
    return sum(
        float(np.square(vectors[start : start + BLOCK] - centre).sum()) for start in range(0, len(vectors), BLOCK)
    )
