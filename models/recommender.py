"""A trained recommender, self-sufficient: feature columns in, calibrated probabilities out."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from models import saved
from models.dlrm import DLRM
from models.encoding import Columns, DenseEncoding, TextEncoding
from models.reducer import Recommender, Reducer
from models.trainer import predict


@dataclass(frozen=True)
class TrainedRecommender:
    """Both networks, the encodings and class weights they were trained with, and where they come from."""

    network: Recommender
    dense: DenseEncoding
    text: TextEncoding
    weights: tuple[float, float]
    feature_service: str
    fingerprint: str
    params: Mapping[str, Any]  # with `dropout`, `train` and `reduce`, from which the network is built

    def inputs(self, columns: Columns) -> dict[str, torch.Tensor]:
        """Feature columns of N rows to the network's inputs, (N, K) and (N, W) float32."""
        return {name: torch.from_numpy(encoding.encode(columns)) for name, encoding in self._encodings().items()}

    def probabilities(self, columns: Columns) -> NDArray[np.float64]:
        """(N,) chance that the user will like the business."""
        return predict(self.network, self.inputs(columns), self.weights)

    def _encodings(self) -> dict[str, DenseEncoding | TextEncoding]:
        return {"dense": self.dense, "text": self.text}

    def save(self, path: Path) -> None:
        about = {
            "kind": "model",
            "feature_service": self.feature_service,
            "fingerprint": self.fingerprint,
            "params": self.params,
            "encoding": {name: encoding.to_json() for name, encoding in self._encodings().items()},
            "class_weights": self.weights,
        }
        saved.save(path, self.network.state_dict(), about)

    @classmethod
    def load(cls, path: Path) -> Self:
        """UnusableWeights where the file is missing, broken or holds something else."""
        tensors, about = saved.load(path, "model")
        dense = DenseEncoding.from_json(about["encoding"]["dense"])
        text = TextEncoding.from_json(about["encoding"]["text"])
        network = build(about["params"], len(dense.names), text.width)
        saved.fill(network, tensors, path)
        network.eval()
        weights = (float(about["class_weights"][0]), float(about["class_weights"][1]))
        return cls(network, dense, text, weights, about["feature_service"], about["fingerprint"], about["params"])


def build(params: Mapping[str, Any], dense: int, text: int) -> Recommender:
    """An untrained network for `dense` numbers and `text` wide texts. `params`: `dropout`, `train` and `reduce`."""
    reduce, train = params["reduce"], params["train"]
    if reduce["hidden"][-1] != train["bottom"][-1]:
        raise ValueError(
            f"`reduce.hidden` ends in {reduce['hidden'][-1]} and `train.bottom` in {train['bottom'][-1]}:"
            " fields that meet in dot products are equally wide"
        )
    dlrm = DLRM(dense, ["text"], train["bottom"], train["top"], params["dropout"], train["wide"])
    return Recommender(build_reducer(reduce, text), dlrm)


def build_reducer(reduce: Mapping[str, Any], text: int) -> Reducer:
    """An untrained reducer for `text` wide texts. `reduce`: its section of params."""
    return Reducer(text, reduce["hidden"], reduce["dropout"])
