"""The paper's sixty trainings at the paper's size, on random tensors, beside one run alone and a plain torch DLRM.

    python -m benchmarks.sweep              # all of it: both models, 350 epochs and more; some twenty minutes
    python -m benchmarks.sweep --epochs 3   # rates alone

57,005 train and 17,402 test rows; after every epoch all of them are judged, as the paper does. Random labels teach
nothing; what is measured is time. A sample is a training row of one member in one epoch.
"""

import argparse
import itertools
import json
import multiprocessing
import os
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import torch
from torch import Tensor, nn

from models.dlrm import DLRM, Bag
from models.stacked import stack
from models.trainer import Member, Rows, Schedule, fit, seeded
from pipelines.core.params import load_params
from pipelines.paper.runs import of_selection
from pipelines.paper.sweep import ROOT, paper_params, stacks_of

TRAIN, TEST, TYPES, LONGEST, WIDTH = 57_005, 17_402, 179, 11, 32
LIKED = 0.885
# Model -> dense numbers (the paper's three; with the price tag seven), lists, vectors.
FIELDS = {"baseline": (3, [], ["text"]), "proposed": (7, ["category"], ["text", "caption"])}


def random_rows(model: str, count: int, seed: int) -> Rows:
    """As reducers leave them."""
    generator = torch.Generator().manual_seed(seed)
    dense, lists, vectors = FIELDS[model]
    inputs = {"dense": torch.randn(count, dense, generator=generator)}
    for name in lists:
        lengths = torch.randint(1, LONGEST + 1, (count, 1), generator=generator)
        drawn = torch.randint(0, TYPES, (count, LONGEST), generator=generator)
        inputs[name] = torch.where(torch.arange(LONGEST) < lengths, drawn, TYPES)
    inputs |= {name: torch.randn(count, WIDTH, generator=generator).relu() for name in vectors}
    return Rows(inputs, (torch.rand(count, generator=generator) < LIKED).numpy().astype(np.int8))


def network_of(model: str, member: Member, bottom: list[int], top: list[int]) -> DLRM:
    dense, lists, vectors = FIELDS[model]
    with seeded(member.seed):
        bags = {name: Bag(TYPES + 1, LONGEST) for name in lists}
        return DLRM(dense, bags, vectors, bottom, top, member.dropout, wide=False)


def train(model: str, members: tuple[Member, ...], epochs: int | None) -> dict[str, float]:
    """Train and judge one stack; `epochs` in place of the paper's schedule. Seconds, and samples that were trained."""
    torch.set_num_threads(1)
    params = paper_params(load_params(ROOT / "params.yaml"), model)
    schedule = Schedule(**params.paper.model_dump())
    if epochs is not None:
        schedule = Schedule(**params.paper.model_dump() | {"epochs": epochs})
    watched = {"train": random_rows(model, TRAIN, 1), "test": random_rows(model, TEST, 2)}
    network = stack([network_of(model, member, params.train.bottom, params.train.top) for member in members])
    weights = torch.tensor([[0.8853, 0.1147] if m.class_weights == "basic" else [0.7354, 0.2646] for m in members])
    seeds = [member.seed for member in members]
    optimizer_import = torch.optim.Adam(network.parameters())  # imports much at its first use: not a run's time
    optimizer_import.zero_grad()
    began = time.perf_counter()
    fitted = fit(network, watched, weights, schedule, seeds, lambda epoch: None, ("paper",), with_auc=False)
    of_selection(network, watched, weights, fitted.best["paper"])
    return {"seconds": time.perf_counter() - began, "samples": float(fitted.last.sum()) * TRAIN}


class Plain(nn.Module):
    """A DLRM as one would write it in torch, one run at a time."""

    def __init__(self, model: str, bottom: list[int], top: list[int], dropout: float) -> None:
        super().__init__()
        dense, self.lists, self.vectors = FIELDS[model]
        fields = 1 + len(self.lists) + len(self.vectors)
        self.bottom = self.mlp([dense, *bottom], dropout)
        self.bag = nn.EmbeddingBag(TYPES + 1, WIDTH, mode="sum", padding_idx=TYPES)
        self.top = nn.Sequential(self.mlp([WIDTH + fields * (fields - 1) // 2, *top], dropout), nn.Linear(top[-1], 1))
        self.pairs = torch.tril_indices(fields, fields, -1)

    @staticmethod
    def mlp(widths: list[int], dropout: float) -> nn.Sequential:
        steps: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            steps += [nn.Linear(before, after), nn.ReLU(), nn.Dropout(dropout)]
        return nn.Sequential(*steps)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        x = self.bottom(inputs["dense"])
        fields = [x, *(self.bag(inputs[name]) for name in self.lists), *(inputs[name] for name in self.vectors)]
        stacked = torch.stack(fields, 1)
        dots = torch.bmm(stacked, stacked.transpose(1, 2))[:, self.pairs[0], self.pairs[1]]
        return self.top(torch.cat([x, dots], 1)).squeeze(1)


def train_plain(model: str, epochs: int) -> dict[str, float]:
    """The same work for one run, in plain torch."""
    torch.set_num_threads(1)
    params = load_params(ROOT / "params.yaml")
    network = Plain(model, params.train.bottom, params.train.top, 0.1)
    rows, test = random_rows(model, TRAIN, 1), random_rows(model, TEST, 2)
    labels = torch.from_numpy(rows.labels.astype(np.float32))
    weight = torch.where(labels > 0.5, 0.1147, 0.8853)
    optimizer = torch.optim.Adam(network.parameters(), lr=params.paper.learning_rate)
    began = time.perf_counter()
    for _ in range(epochs):
        network.train()
        for batch in torch.randperm(TRAIN).split(params.paper.batch_size):
            logits = network({name: tensor[batch] for name, tensor in rows.inputs.items()})
            loss = nn.functional.binary_cross_entropy_with_logits(logits, labels[batch], weight[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        network.eval()
        with torch.no_grad():
            for judged in (rows, test):
                said = torch.cat(
                    [
                        network({name: tensor[start : start + 8192] for name, tensor in judged.inputs.items()})
                        for start in range(0, len(judged.labels), 8192)
                    ]
                )
                (said >= 0)[torch.from_numpy(judged.labels == 0)].double().mean().item()
    return {"seconds": time.perf_counter() - began, "samples": float(epochs * TRAIN)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, help="so many in place of the paper's 300 and patience")
    args = parser.parse_args()
    stacks = stacks_of(load_params(ROOT / "params.yaml"))
    cores = len(os.sched_getaffinity(0))
    said: dict[str, object] = {"runs": sum(len(one.members) for one in stacks), "cores": cores}
    for model in FIELDS:
        alone = train(model, (Member(7, 0.1, "basic"),), 3)
        plain = train_plain(model, 3)
        said[model] = {
            "plain_samples_a_second": round(plain["samples"] / plain["seconds"]),
            "alone_samples_a_second": round(alone["samples"] / alone["seconds"]),
        }
    began = time.perf_counter()
    with ProcessPoolExecutor(cores, multiprocessing.get_context("spawn")) as pool:
        done = list(pool.map(train, *zip(*stacks, strict=True), [args.epochs] * len(stacks)))
    wall = time.perf_counter() - began
    for model in FIELDS:
        its = [one for one, of in zip(done, stacks, strict=True) if of.model == model]
        rate = sum(one["samples"] for one in its) / sum(one["seconds"] for one in its)
        said[model] |= {"stack_samples_a_second_a_core": round(rate)}  # type: ignore[operator]
    samples = sum(one["samples"] for one in done)
    said |= {
        "minutes": round(wall / 60, 1),
        "epochs_of_runs": round(samples / TRAIN),
        "samples_a_second": round(samples / wall),
    }
    print(json.dumps(said, indent=2))


if __name__ == "__main__":
    main()
