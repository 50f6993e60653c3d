"""A trained recommender, self-sufficient: feature columns in, calibrated probabilities out."""

from collections.abc import Mapping, Sequence
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
from models.stacked import stack
from models.trainer import Member, predict, seeded
from models.vectors import VectorEncoding


@dataclass(frozen=True)
class RankingStack:
    """A stack of M networks, with the encoding and class weights they were trained with.

    What it says is the mean of what its members say; most have one.
    """

    network: Recommender
    encoding: Encoding
    weights: torch.Tensor  # (M, 2), of labels 0 and 1

    def inputs(self, columns: Columns) -> dict[str, torch.Tensor]:
        """Feature columns of N rows to inputs (N, ·). Unencodable where they say what the model cannot take."""
        return {name: torch.from_numpy(array) for name, array in self.encoding.encode(columns).items()}

    def member_probabilities(self, columns: Columns) -> NDArray[np.float64]:
        """(M, N) chance that the user will like the business, by each member. Unencodable as `inputs`."""
        return predict(self.network, self.inputs(columns), self.weights)

    def probabilities(self, columns: Columns) -> NDArray[np.float64]:
        """(N,): the members' mean. Unencodable as `inputs`."""
        return self.member_probabilities(columns).mean(axis=0)


@dataclass(frozen=True)
class TrainedRecommender(RankingStack):
    """And where they come from."""

    feature_service: str
    fingerprint: str
    params: Mapping[str, Any]  # with `model`, `dropout`, `train` and `reduce`; of the last three the network is built
    digest: str | None = None  # of the file it was loaded from: tells one model from another

    def save(self, path: Path) -> None:
        about = {
            "kind": "model",
            "feature_service": self.feature_service,
            "fingerprint": self.fingerprint,
            "params": self.params,
            "encoding": self.encoding.to_json(),
            "class_weights": self.weights.tolist(),
        }
        saved.save(path, self.network.state_dict(), about)

    @classmethod
    def load(cls, path: Path) -> Self:
        """UnusableWeights where the file is missing, broken or holds something else."""
        tensors, about = saved.load(path, "model")
        with saved.described(path):
            encoding = Encoding.from_json(about["encoding"])
            weights = torch.tensor(about["class_weights"], dtype=torch.float64).reshape(-1, 2)
            alike = [Member(0, about["params"]["dropout"])] * len(weights)
            network = build(about["params"], encoding, alike)
        saved.fill(network, tensors, path)
        network.eval()
        made = (about["feature_service"], about["fingerprint"], about["params"], about[saved.DIGEST])
        return cls(network, encoding, weights, *made)


def build(params: Mapping[str, Any], encoding: Encoding, members: Sequence[Member]) -> Recommender:
    """An untrained stack for what `encoding` makes, each member drawn by its own seed. `params`: `train`, `reduce`."""
    reduce, train = params["reduce"], params["train"]
    if reduce["hidden"][-1] != train["bottom"][-1]:
        raise ValueError(
            f"`reduce.hidden` ends in {reduce['hidden'][-1]} and `train.bottom` in {train['bottom'][-1]}:"
            " fields that meet in dot products are equally wide"
        )
    return stack([build_one(reduce, train, encoding, member) for member in members])


def build_one(reduce: Mapping[str, Any], train: Mapping[str, Any], encoding: Encoding, member: Member) -> Recommender:
    """A stack of one."""
    bags = {name: Bag(part.padding + 1, part.length) for name, part in encoding.lists.items()}
    with seeded(member.seed):
        reducers = [
            Reducer(field, part.width, reduce["hidden"], reduce["dropout"]) for field, part in encoding.vectors.items()
        ]
        dlrm = DLRM(
            encoding.dense_width,
            bags,
            list(encoding.vectors),
            train["bottom"],
            train["top"],
            member.dropout,
            train["wide"],
        )
    return Recommender(reducers, dlrm)


def build_reducers(
    reduce: Mapping[str, Any], vectors: Mapping[str, VectorEncoding], seeds: Sequence[int]
) -> dict[str, Reducer]:
    """Field -> an untrained stack of reducers, each member drawn by its own seed. `reduce`: its section of params."""
    made = {}
    for field, part in vectors.items():
        drawn = []
        for seed in seeds:
            with seeded(seed):
                drawn.append(Reducer(field, part.width, reduce["hidden"], reduce["dropout"]))
        made[field] = stack(drawn)
    return made
