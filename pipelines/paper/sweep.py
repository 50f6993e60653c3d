"""The paper's experiment: both models, every weighting, every dropout, repeated; trained and chosen as the paper did.

Runs of one model and one seed are one stack, trained at once; stacks go to all cores. A stack that is done is kept in
the cache folder by all that decides it, so that an interrupted sweep goes on where it was. One by one, through the same
code: `dvc exp run --queue -S selection=paper -S reduce.mode=paper -S history.numbers=paper -S train.wide=false` with
`-S model=baseline,proposed -S class_weights=basic,sqrt -S dropout=0.1,0.3,0.5` and seeds.
"""

import argparse
import hashlib
import json
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from functools import lru_cache
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from models.columns import Unencodable
from models.trainer import Epoch, Member
from models.variants import VARIANTS
from pipelines.core.command import run_stage
from pipelines.core.errors import UserError
from pipelines.core.json_files import write_json
from pipelines.core.params import Params
from pipelines.core.progress import progress
from pipelines.core.training_rows import TrainingRows, fingerprint, read_splits
from pipelines.learning import schedule_of
from pipelines.paper.repeats import cells_of
from pipelines.paper.runs import Run, Stack, train_runs
from pipelines.paper.tables import write_tables

ROOT = Path(__file__).resolve().parents[2]
# What runs are computed by: a change of it makes those that are kept worthless.
COMPUTES = ("models/*.py", "pipelines/learning.py", "pipelines/core/training_rows.py", "pipelines/paper/runs.py")
POLL = 0.5  # seconds


def stacks_of(params: Params) -> list[Stack]:
    """A stack a model and seed: its members draw the same batches, which are then gathered once for all."""
    grid = params.sweep
    cells = [(weights, dropout) for weights in grid.class_weights for dropout in grid.dropout]
    return [
        Stack(model, tuple(Member(params.seed + repeat, dropout, weights) for weights, dropout in cells))
        for repeat in range(grid.repeats)
        for model in VARIANTS
    ]


def paper_params(params: Params, model: str) -> Params:
    """`params` with what `sweep` says in place of what single runs are told."""
    return params.model_copy(
        update={
            "model": model,
            "selection": "paper",
            "reduce": params.reduce.model_copy(update={"mode": params.sweep.mode}),
            "history": params.history.model_copy(update={"numbers": params.sweep.numbers}),
            "train": params.train.model_copy(update={"wide": params.sweep.wide}),
        }
    )


# --- what is kept ----------------------------------------------------------------------------------------------------


def code_digest() -> str:
    """sha256 of the code that computes runs, and of torch's version."""
    digest = hashlib.sha256(torch.__version__.encode())
    for path in sorted(path for pattern in COMPUTES for path in ROOT.glob(pattern)):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def key_of(stack: Stack, params: Params, print_: str) -> str:
    """Of all that decides a stack's runs. `print_`: the training set's fingerprint."""
    decides = paper_params(params, stack.model).model_dump(
        mode="json", include={"protocol", "model", "paper", "reduce", "train", "history"}
    )
    said = [decides, print_, code_digest(), [member.__dict__ for member in stack.members]]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def kept(path: Path) -> list[Run] | None:
    """The runs of a stack that is done; None where it is not."""
    try:
        runs: list[Run] = json.loads(path.read_text(encoding="utf-8"))["runs"]
    except FileNotFoundError:
        return None
    return runs


# --- workers ---------------------------------------------------------------------------------------------------------

_epochs: "SimpleQueue[int]"


def begin(epochs: "SimpleQueue[int]") -> None:
    """Of a worker: one thread, and where it says how far it is."""
    global _epochs
    _epochs = epochs
    torch.set_num_threads(1)  # stacks take the cores; and the last bits depend on it


@lru_cache(maxsize=2)
def rows_of(folder: Path, model: str) -> dict[str, TrainingRows]:
    return read_splits(folder, model)


def work(folder: Path, stack: Stack, params: Params, path: Path) -> None:
    """Train one stack in this worker and keep its runs at `path`."""

    def on_epoch(epoch: Epoch) -> None:
        _epochs.put(len(epoch.members))

    try:
        runs = train_runs(rows_of(folder, stack.model), stack, paper_params(params, stack.model), on_epoch)
    except Unencodable as error:
        raise UserError(f"{folder}: {error}; run `dvc repro` to remake the tables") from None
    write_json({"runs": runs}, path)


def train_all(folder: Path, stacks: list[Stack], params: Params, paths: list[Path]) -> list[list[Run]]:
    """The runs of every stack: those that are kept, and the others trained on all cores."""
    made = {i: runs for i, path in enumerate(paths) if (runs := kept(path)) is not None}
    if made:
        print(f"sweep: {len(made)} of {len(stacks)} stacks are done already")
    todo = [i for i in range(len(stacks)) if i not in made]
    context = multiprocessing.get_context("spawn")
    epochs: SimpleQueue[int] = context.SimpleQueue()
    workers = min(len(os.sched_getaffinity(0)), len(todo))
    if not workers:
        return [made[i] for i in range(len(stacks))]
    with (
        ProcessPoolExecutor(workers, context, begin, (epochs,)) as pool,
        bar_of(sum(len(stacks[i].members) for i in todo), params) as bar,
    ):
        running = {pool.submit(work, folder, stacks[i], params, paths[i]): i for i in todo}
        try:
            while running:
                done, _ = wait(running, POLL, FIRST_COMPLETED)
                bar.update(sum(waiting(epochs)))
                for future in done:
                    i = running.pop(future)
                    future.result()
                    made[i] = kept(paths[i]) or []
                    # Whoever stopped before the last epoch has no more to do.
                    bar.total -= sum(schedule_of(paper_params(params, "")).epochs - run["epochs"] for run in made[i])
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [made[i] for i in range(len(stacks))]


def bar_of(runs: int, params: Params) -> "tqdm[Any]":
    """Progress in epochs of single runs; at most as many as if none stopped early."""
    return progress(runs * schedule_of(paper_params(params, "")).epochs, "sweep", "epoch")


def waiting(epochs: "SimpleQueue[int]") -> Iterator[int]:
    while not epochs.empty():
        yield epochs.get()


# --- the stage -------------------------------------------------------------------------------------------------------


def main(args: argparse.Namespace, params: Params) -> None:
    splits = read_splits(args.training_set, params.model)  # whatever is amiss is said before anything is trained
    folder, print_ = params.cache.folder() / "sweep", fingerprint(args.training_set)
    stacks = stacks_of(params)
    paths = [folder / f"{key_of(stack, params, print_)}.json" for stack in stacks]
    runs = [run for of_stack in train_all(args.training_set, stacks, params, paths) for run in of_stack]
    content = {
        "data": {
            "source": params.ingest.source,
            "protocol": params.protocol,
            "rows": {split: len(rows.labels) for split, rows in splits.items()},
            "negative_share": {split: float((rows.labels == 0).mean()) for split, rows in splits.items()},
        },
        "schedule": params.paper.model_dump() | params.sweep.model_dump(include={"mode", "numbers", "wide"}),
        "runs": runs,
        "cells": cells_of(runs),
    }
    write_json(content, args.out)
    write_tables(content, args.tables)


if __name__ == "__main__":
    run_stage(
        main,
        __doc__,
        {
            "training-set": "folder of train, validation and test",
            "out": "the runs and their means, as JSON",
            "tables": "folder of the paper's tables: tables.md, tables.html, tables.json",
        },
    )
