"""Names out of closed vocabularies to numbers: a price tag one-hot, restaurant types as lists of indices."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from models.columns import Columns, Unencodable


@dataclass(frozen=True)
class OneHotEncoding:
    """A name, or null, out of `vocabulary`."""

    column: str
    vocabulary: tuple[str, ...]

    @property
    def width(self) -> int:
        return len(self.vocabulary)

    def encode(self, columns: Columns) -> NDArray[np.float32]:
        """(N, V) float32, null as zeros. Unencodable names a word outside the vocabulary."""
        names = columns[self.column]
        index = {name: i for i, name in enumerate(self.vocabulary)}
        encoded = np.zeros((len(names), self.width), np.float32)
        for row, name in enumerate(names):
            if name is None:
                continue
            if name not in index:
                raise Unencodable(f"`{self.column}` says {name!r}, the model knows {', '.join(self.vocabulary)}")
            encoded[row, index[name]] = 1.0
        return encoded

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> Self:
        return cls(kept["column"], tuple(kept["vocabulary"]))


@dataclass(frozen=True)
class ListEncoding:
    """At most `length` names, or null, out of `vocabulary`; the index behind its last is padding."""

    column: str
    vocabulary: tuple[str, ...]
    length: int

    @property
    def padding(self) -> int:
        return len(self.vocabulary)

    def encode(self, columns: Columns) -> NDArray[np.int64]:
        """(N, length) int64: each name's index once, in the vocabulary's order, then padding; null as padding.

        Unencodable names a word outside the vocabulary, or a list that is too long.
        """
        lists = columns[self.column]
        index = {name: i for i, name in enumerate(self.vocabulary)}
        encoded = np.full((len(lists), self.length), self.padding, np.int64)
        for row, names in enumerate(lists):
            if names is not None:
                indices = self._indices(names, index)
                encoded[row, : len(indices)] = indices
        return encoded

    def _indices(self, names: Sequence[str], index: Mapping[str, int]) -> list[int]:
        # Sorted: a sum of numbers in floating point depends on their order, and a set of types has none.
        unknown = [name for name in names if name not in index]
        if unknown:
            raise Unencodable(f"`{self.column}` says {unknown[0]!r}, which is none of the model's {len(index)} names")
        indices = sorted({index[name] for name in names})
        if len(indices) > self.length:
            raise Unencodable(f"`{self.column}` has {len(indices)} names in a row, the model takes {self.length}")
        return indices

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> Self:
        return cls(kept["column"], tuple(kept["vocabulary"]), int(kept["length"]))
