"""The paper's experiment: both models, every weighting, every dropout, repeated; trained and chosen as the paper did.

Runs of one model and one seed are one stack, trained at once; stacks go to all cores. A stack that is done is kept in
the cache folder by all that decides it, so that an interrupted sweep goes on where it was. One by one, through the same
code: `dvc exp run --queue -S selection=paper -S reduce.mode=paper -S history.numbers=paper -S train.wide=false` with
`-S model=baseline,proposed -S class_weights=basic,sqrt -S dropout=0.1,0.3,0.5` and seeds.
"""

import argparse
import dataclasses
import json
import multiprocessing
import os
import signal
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from functools import lru_cache
from multiprocessing.queues import SimpleQueue
from pathlib import Path

import torch

from models.columns import Unencodable
from models.trainer import Epoch, Member
from models.variants import VARIANTS
from pipelines.core.command import run_stage
from pipelines.core.errors import UserError
from pipelines.core.json_files import write_json
from pipelines.core.params import Params
from pipelines.core.progress import progress
from pipelines.core.training_rows import TrainingRows, fingerprint, read_splits
from pipelines.learning import check_selectable, encoding_for, fit_encodings
from pipelines.paper.described import data_of
from pipelines.paper.kept import code_digest, key_of
from pipelines.paper.runs import SELECTED, Run, Stack, train_runs
from pipelines.paper.tables import write_tables

NETWORK = {"bottom": True, "top": True, "wide": True}  # of `train`; its pace is the paper's here
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


def key(stack: Stack, params: Params, print_: str) -> str:
    """Of all that decides a stack's runs, and of nothing else. `print_`: the training set's fingerprint."""
    told = paper_params(params, stack.model)
    return key_of(
        stack.model,
        [dataclasses.asdict(member) for member in stack.members],
        told.model_dump(mode="json", include={"protocol": True, "paper": True, "reduce": True, "train": NETWORK}),
        told.history.numbers,
        print_,
        code_digest("pipelines/paper/runs.py"),
    )


def kept(path: Path) -> list[Run] | None:
    """The runs of a stack that is done; None where it is not, or where the file is broken."""
    try:
        runs: list[Run] = json.loads(path.read_text(encoding="utf-8"))["runs"]
    except (FileNotFoundError, ValueError, KeyError):
        return None
    return runs


# --- workers ---------------------------------------------------------------------------------------------------------

_epochs: "SimpleQueue[int]"


def begin(epochs: "SimpleQueue[int]") -> None:
    """Of a worker: one thread, and where it says how far it is. Ctrl-C is the parent's to hear, which ends workers."""
    global _epochs
    _epochs = epochs
    signal.signal(signal.SIGINT, signal.SIG_IGN)
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
    except UserError as error:
        raise UserError(f"sweep, {stack.model}, seed {stack.members[0].seed}: {error}") from None
    write_json({"runs": runs}, path)


def train_all(folder: Path, stacks: list[Stack], params: Params, paths: list[Path]) -> list[list[Run]]:
    """The runs of every stack: those that are kept, and the others trained on all cores.

    UserError where one cannot be trained, or on Ctrl-C: the other workers are ended, and what is done is kept.
    """
    todo = [i for i, path in enumerate(paths) if kept(path) is None]
    if len(todo) < len(stacks):
        print(f"sweep: {len(stacks) - len(todo)} of {len(stacks)} stacks are done already")
    if todo:
        train_stacks(folder, [stacks[i] for i in todo], params, [paths[i] for i in todo])
    made = [runs for path in paths if (runs := kept(path)) is not None]
    if len(made) < len(stacks):
        raise UserError(f"{paths[0].parent}: results of stacks that were done are gone; run it again")
    return made


def train_stacks(folder: Path, stacks: list[Stack], params: Params, paths: list[Path]) -> None:
    """Train `stacks` on all cores, each kept at its path."""
    context = multiprocessing.get_context("spawn")
    epochs: SimpleQueue[int] = context.SimpleQueue()
    pool = ProcessPoolExecutor(min(len(os.sched_getaffinity(0)), len(stacks)), context, begin, (epochs,))
    longest = params.paper.epochs
    try:
        # At most so many epochs of single runs, as if none stopped early.
        with progress(sum(len(one.members) for one in stacks) * longest, "sweep", "epoch") as bar:
            running = {
                pool.submit(work, folder, stack, params, path): path for stack, path in zip(stacks, paths, strict=True)
            }
            while running:
                ended, _ = wait(running, POLL, FIRST_COMPLETED)
                bar.update(sum(waiting(epochs)))
                for future in ended:
                    future.result()
                    # Whoever stopped before the last epoch has no more to do.
                    bar.total -= sum(longest - run["epochs"] for run in kept(running.pop(future)) or [])
        pool.shutdown()
    except BaseException as error:
        # Leaving a `with` would wait for every stack; what is done is kept, and files appear whole.
        for process in list(pool._processes.values()):
            process.terminate()
        pool.shutdown(wait=False, cancel_futures=True)
        if isinstance(error, KeyboardInterrupt):
            done_ = sum(kept(path) is not None for path in paths)
            raise UserError(
                f"sweep: interrupted; {done_} of these {len(stacks)} stacks are kept, run it again"
            ) from None
        raise


def waiting(epochs: "SimpleQueue[int]") -> Iterator[int]:
    while not epochs.empty():
        yield epochs.get()


def check_encodable(splits: Mapping[str, TrainingRows], params: Params) -> None:
    """Whatever a model cannot take is said before anything is trained. Unencodable names it."""
    for model, variant in VARIANTS.items():
        train = splits["train"].columns
        told = paper_params(params, model)
        encoding = encoding_for(train, variant, fit_encodings(train, variant), told)
        for rows in splits.values():
            encoding.encode(rows.columns)


# --- the stage -------------------------------------------------------------------------------------------------------


def main(args: argparse.Namespace, params: Params) -> None:
    splits = read_splits(args.training_set, None)
    try:
        check_encodable(splits, params)
    except Unencodable as error:
        raise UserError(f"{args.training_set}: {error}; run `dvc repro` to remake the tables") from None
    check_selectable(splits, tuple(SELECTED.values()))
    folder, print_ = params.cache.folder() / "sweep", fingerprint(args.training_set)
    stacks = stacks_of(params)
    paths = [folder / f"{key(stack, params, print_)}.json" for stack in stacks]
    runs = [run for of_stack in train_all(args.training_set, stacks, params, paths) for run in of_stack]
    content = {
        "data": data_of(splits, params),
        "schedule": params.paper.model_dump() | params.sweep.model_dump(include={"mode", "numbers", "wide"}),
        "runs": runs,
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
