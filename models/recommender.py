"""A trained recommender, self-sufficient: feature columns in, calibrated probabilities out."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from models import saved
from models.columns import Columns
from models.dlrm import DLRM, Bag
from models.encoding import Encoding
from models.reducer import Recommender, Reducer
from models.trainer import predict
from models.vectors import VectorEncoding


@dataclass(frozen=True)
class TrainedRecommender:
    """The networks, the encoding and class weights they were trained with, and where they come from."""

    network: Recommender
    encoding: Encoding
    weights: tuple[float, float]
    feature_service: str
    fingerprint: str
    params: Mapping[str, Any]  # with `model`, `dropout`, `train` and `reduce`; of the last three the network is built

    def inputs(self, columns: Columns) -> dict[str, torch.Tensor]:
        """Feature columns of N rows to the network's inputs. Unencodable where they say what the model cannot take."""
        return {name: torch.from_numpy(array) for name, array in self.encoding.encode(columns).items()}

    def probabilities(self, columns: Columns) -> NDArray[np.float64]:
        """(N,) chance that the user will like the business. Unencodable as `inputs`."""
        return predict(self.network, self.inputs(columns), self.weights)

    def save(self, path: Path) -> None:
        about = {
            "kind": "model",
            "feature_service": self.feature_service,
            "fingerprint": self.fingerprint,
            "params": self.params,
            "encoding": self.encoding.to_json(),
            "class_weights": self.weights,
        }
        saved.save(path, self.network.state_dict(), about)

    @classmethod
    def load(cls, path: Path) -> Self:
        """UnusableWeights where the file is missing, broken or holds something else."""
        tensors, about = saved.load(path, "model")
        with saved.described(path):
            encoding = Encoding.from_json(about["encoding"])
            network = build(about["params"], encoding)
            weights = (float(about["class_weights"][0]), float(about["class_weights"][1]))
        saved.fill(network, tensors, path)
        network.eval()
        return cls(network, encoding, weights, about["feature_service"], about["fingerprint"], about["params"])


def build(params: Mapping[str, Any], encoding: Encoding) -> Recommender:
    """An untrained network for what `encoding` makes. `params`: `dropout`, `train` and `reduce`."""
    reduce, train = params["reduce"], params["train"]
    if reduce["hidden"][-1] != train["bottom"][-1]:
        raise ValueError(
            f"`reduce.hidden` ends in {reduce['hidden'][-1]} and `train.bottom` in {train['bottom'][-1]}:"
            " fields that meet in dot products are equally wide"
        )
    reducers = build_reducers(reduce, encoding.vectors)
    bags = {name: Bag(part.padding + 1, part.length) for name, part in encoding.lists.items()}
    names = list(encoding.vectors)
    dlrm = DLRM(encoding.dense_width, bags, names, train["bottom"], train["top"], params["dropout"], train["wide"])
    return Recommender(reducers, dlrm)


def build_reducers(reduce: Mapping[str, Any], vectors: Mapping[str, VectorEncoding]) -> list[Reducer]:
    """An untrained reducer a field, in their order. `reduce`: its section of params."""
    return [Reducer(field, part.width, reduce["hidden"], reduce["dropout"]) for field, part in vectors.items()]
