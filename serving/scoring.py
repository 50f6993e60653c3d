"""The trained network with its first layers taken apart by entity.

A reducer's first layer is linear in what it reads of the user and of the business: each entity's part is a product of
its own, made once per row of the online store. Then a pair costs an addition where it cost 768 x 128 products. The sums
come in another order than in training, so a probability may differ from it in the seventh digit.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.columns import Columns
from models.history_numbers import COLUMNS, ENTITIES
from models.recommender import TrainedRecommender
from models.reducer import Reducer
from models.stacked import Linear
from models.trainer import predict
from models.vectors import VectorEncoding, has_vector

Part = Mapping[str, np.ndarray]
"""What the network needs of N rows of one entity: name -> (N, ...)."""

INSTANT = "event_timestamp"


@dataclass(frozen=True)
class FirstLayer:
    """One entity's share of the first layer of a reducer."""

    vectors: VectorEncoding  # of the entity's embeddings alone
    weight: Tensor  # (M, W, H), W as `vectors` encodes; float64

    def of(self, columns: Columns) -> NDArray[np.float32]:
        """(N, M, H), without the bias. Summed in float64: of the two ways to add, this one then adds no error."""
        encoded = torch.from_numpy(self.vectors.encode(columns)).double()
        return torch.matmul(encoded, self.weight).float().transpose(0, 1).contiguous().numpy()


class Scorer:
    """Chances that users like businesses, from parts that are each made of one entity's columns."""

    def __init__(self, model: TrainedRecommender) -> None:
        self.model = model
        encoding, network = model.encoding, model.network
        self._columns = {
            entity: tuple(name for name in encoding.columns if name != INSTANT and entity_of(name) == entity)
            for entity in ENTITIES
        }
        self._first: dict[str, dict[str, FirstLayer]] = {entity: {} for entity in ENTITIES}  # entity -> field ->
        self._bias: dict[str, Tensor] = {}  # field -> (M, 1, H)
        self._rest: dict[str, nn.Sequential] = {}
        for field, vectors in encoding.vectors.items():
            reducer = network.reducer(field)
            first, self._rest[field] = split(reducer)
            self._bias[field] = first.bias.detach().unsqueeze(1)
            for entity in ENTITIES:
                taken = [i for i, name in enumerate(vectors.names) if entity_of(name) == entity]
                if taken:
                    self._first[entity][field] = share(vectors, taken, first)

    def columns_of(self, entity: str) -> tuple[str, ...]:
        """Those of `entity` that the model reads."""
        return self._columns[entity]

    @torch.no_grad()
    def part(self, entity: str, columns: Columns) -> Part:
        """From N rows of `columns_of(entity)`. Unencodable as `Encoding.encode`."""
        encoding = self.model.encoding
        made: dict[str, np.ndarray] = {name: columns[name] for name in COLUMNS if name in self.columns_of(entity)}
        if entity in encoding.numbers.texts:
            # Of a text the dense numbers ask no more than whether it is there.
            name = encoding.numbers.texts[entity]
            made[name] = np.where(has_vector(columns[name]), 0.0, np.nan).astype(np.float32)[:, None]
        if encoding.price_tag and entity_of(encoding.price_tag.column) == entity:
            made["price_tag"] = encoding.price_tag.encode(columns)
        for field, names in encoding.lists.items():
            if entity_of(names.column) == entity:
                made[f"list {field}"] = names.encode(columns)
        for field, first in self._first[entity].items():
            made[f"first {field}"] = first.of(columns)
        return made

    @torch.no_grad()
    def score(self, user: Part, business: Part, at: NDArray[np.datetime64]) -> NDArray[np.float64]:
        """(N,) probabilities of pairs at the instants `at` (N,). A part of one row is everybody's.

        Unencodable where an instant lies before a row's newest review.
        """
        pairs = len(at)
        parts = {
            name: np.broadcast_to(values, (pairs, *values.shape[1:])) if len(values) == 1 else values
            for name, values in {**user, **business}.items()
        }
        dense = [self.model.encoding.numbers.encode({**parts, INSTANT: at})]
        if "price_tag" in parts:
            dense.append(parts["price_tag"])
        inputs = {"dense": torch.from_numpy(np.concatenate(dense, axis=1))}
        for field in self.model.encoding.lists:
            inputs[field] = torch.from_numpy(np.array(parts[f"list {field}"]))
        for field, bias in self._bias.items():
            shares = [part[f"first {field}"] for part in (user, business) if f"first {field}" in part]
            first = sum(torch.from_numpy(made).transpose(0, 1) for made in shares) + bias
            inputs[field] = self._rest[field](first).expand(-1, pairs, -1)
        return predict(self.model.network.dlrm, inputs, self.model.weights).mean(axis=0)

    def probabilities(self, columns: Columns) -> NDArray[np.float64]:
        """(N,), as `TrainedRecommender.probabilities` of the same rows, up to the order of sums."""
        user, business = (self.part(entity, columns) for entity in ENTITIES)
        return self.score(user, business, columns[INSTANT])


def entity_of(column: str) -> str:
    """user or business; a view is named after whom it is about."""
    return next(entity for entity in ENTITIES if column.startswith(f"{entity}_"))


def split(reducer: Reducer) -> tuple[Linear, nn.Sequential]:
    """A reducer's first linear layer, and what comes after it."""
    first, *rest = reducer.layers
    assert isinstance(first, Linear)
    return first, nn.Sequential(*rest).eval()


def share(vectors: VectorEncoding, taken: list[int], first: Linear) -> FirstLayer:
    """Of the embeddings `taken` (places in `vectors.names`): their encoding, and the weights that meet it."""
    widths = [len(centre) for centre in vectors.means]
    starts = np.concatenate([[0], np.cumsum(widths)])
    places = [np.arange(starts[i], starts[i + 1]) for i in taken]
    flags = [starts[-1] + i for i in taken]
    columns = torch.from_numpy(np.concatenate([*places, flags]).astype(np.int64))
    alone = VectorEncoding(
        names=tuple(vectors.names[i] for i in taken),
        means=tuple(vectors.means[i] for i in taken),
        scales=tuple(vectors.scales[i] for i in taken),
    )
    return FirstLayer(alone, first.weight.detach()[:, :, columns].transpose(1, 2).double().contiguous())
