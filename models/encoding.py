"""Feature columns to model inputs: the one way, for training, judging and ranking alike.

Whatever is fitted, is fitted on train rows and kept with the weights, and so is every vocabulary.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from models.columns import Columns, Floats, Unencodable
from models.history_numbers import COLUMNS, ENTITIES, history_numbers
from models.tags import ListEncoding, OneHotEncoding
from models.vectors import VectorEncoding, has_vector


@dataclass(frozen=True)
class DenseEncoding:
    """Which numbers, and the train rows' figures that make them comparable.

    `texts`: entity -> the embedding whose being there is its `has_text`. `scales` is 0 where train rows held one value
    or none: such a number has taught nothing, so it always says 0.
    """

    names: tuple[str, ...]
    texts: dict[str, str]
    priors: dict[str, float]
    means: tuple[float, ...]
    scales: tuple[float, ...]

    @classmethod
    def fit(cls, columns: Columns, names: tuple[str, ...], texts: Mapping[str, str]) -> Self:
        """From train rows."""
        priors = {}
        for entity in ENTITIES:
            means = columns[f"{entity}_history__rating_mean"].astype(np.float64)
            known = means[~np.isnan(means)]
            priors[entity] = float(known.mean()) if len(known) else 0.0
        numbers = dense_numbers(columns, priors, texts)
        known_of = [numbers[name][~np.isnan(numbers[name])] for name in names]
        centres = tuple(float(known.mean()) if len(known) else 0.0 for known in known_of)
        spreads = (float(known.std()) if len(known) else 0.0 for known in known_of)
        # A constant column's standard deviation is not always 0 in floating point.
        scales = tuple(spread if spread > 1e-9 else 0.0 for spread in spreads)
        return cls(names, dict(texts), priors, centres, scales)

    def encode(self, columns: Columns) -> NDArray[np.float32]:
        """(N, K) float32, finite: standardised, null as the train mean."""
        numbers = dense_numbers(columns, self.priors, self.texts)
        raw = np.stack([numbers[name] for name in self.names], axis=1)
        scales = np.asarray(self.scales)
        scaled = (raw - np.asarray(self.means)) / np.where(scales > 0, scales, np.inf)
        return np.nan_to_num(scaled, nan=0.0).astype(np.float32)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> Self:
        names, means, scales = (tuple(kept[key]) for key in ("names", "means", "scales"))
        return cls(names, dict(kept["texts"]), dict(kept["priors"]), means, scales)


def dense_numbers(columns: Columns, priors: Mapping[str, float], texts: Mapping[str, str]) -> dict[str, Floats]:
    """The history numbers, and `has_text` of each entity of `texts`; name -> (N,)."""
    flags = {f"{entity}_has_text": has_vector(columns[name]).astype(np.float64) for entity, name in texts.items()}
    return history_numbers(columns, priors) | flags


@dataclass(frozen=True)
class Encoding:
    """All that a network reads: `dense`, and a named input per field, in the order of the fields."""

    numbers: DenseEncoding
    price_tag: OneHotEncoding | None
    lists: Mapping[str, ListEncoding]
    vectors: Mapping[str, VectorEncoding]

    @property
    def dense_width(self) -> int:
        return len(self.numbers.names) + (self.price_tag.width if self.price_tag else 0)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns that `encode` reads, each once."""
        tags = (self.price_tag.column,) if self.price_tag else ()
        lists = (part.column for part in self.lists.values())
        vectors = (name for part in self.vectors.values() for name in part.names)
        return tuple(dict.fromkeys([*COLUMNS, *self.numbers.texts.values(), *tags, *lists, *vectors]))

    def encode(self, columns: Columns) -> dict[str, np.ndarray]:
        """`dense` (N, K) float32, lists (N, L) int64, vectors (N, W) float32.

        Unencodable names a column that is missing, of another width, or says a word outside its vocabulary.
        """
        missing = [name for name in self.columns if name not in columns]
        if missing:
            raise Unencodable(f"the model reads {missing}, which the rows lack")
        dense = [self.numbers.encode(columns)]
        if self.price_tag:
            dense.append(self.price_tag.encode(columns))
        made: dict[str, np.ndarray] = {"dense": np.concatenate(dense, axis=1)}
        made |= {name: part.encode(columns) for name, part in self.lists.items()}
        made |= {name: part.encode(columns) for name, part in self.vectors.items()}
        return made

    def to_json(self) -> dict[str, Any]:
        return {
            "numbers": self.numbers.to_json(),
            "price_tag": self.price_tag.to_json() if self.price_tag else None,
            # Pairs: keys of an object would come back sorted, and the fields' order is the network's.
            "lists": [[name, part.to_json()] for name, part in self.lists.items()],
            "vectors": [[name, part.to_json()] for name, part in self.vectors.items()],
        }

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> Self:
        return cls(
            DenseEncoding.from_json(kept["numbers"]),
            OneHotEncoding.from_json(kept["price_tag"]) if kept["price_tag"] else None,
            {name: ListEncoding.from_json(part) for name, part in kept["lists"]},
            {name: VectorEncoding.from_json(part) for name, part in kept["vectors"]},
        )
