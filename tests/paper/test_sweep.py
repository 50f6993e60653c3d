"""The sweep over a small training set: real processes, real files."""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipelines.core.errors import UserError
from pipelines.core.params import Params
from pipelines.core.training_rows import fingerprint
from pipelines.paper import kept, sweep
from tests.models.training_sets import write_splits
from tests.params import ROOT, params_with, write_params
from tests.test_train import QUICK, run_all, say

SMALL = QUICK | {
    "paper__epochs": 6,
    "paper__least_epochs": 2,
    "paper__patience": 3,
    "sweep__repeats": 2,
    "sweep__dropout": [0.1, 0.5],
    "paper__batch_size": 64,
}


def run_sweep(folder: Path, params: Params) -> dict[str, Any]:
    paths = {"training_set": folder / "set", "out": folder / "sweep.json", "tables": folder / "tables"}
    sweep.main(argparse.Namespace(**paths), params)
    return json.loads((folder / "sweep.json").read_text())


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Params]:
    folder = tmp_path_factory.mktemp("swept")
    write_splits(folder / "set")
    params = params_with(folder, **SMALL, cache__dir=str(folder / "cache"))
    run_sweep(folder, params)
    return folder, params


def test_every_run_of_the_grid_is_there_once(swept: tuple[Path, Params]) -> None:
    folder, _ = swept
    said = json.loads((folder / "sweep.json").read_text())
    keys = {(run["model"], run["class_weights"], run["dropout"], run["seed"]) for run in said["runs"]}
    assert len(keys) == len(said["runs"]) == 2 * 2 * 2 * 2
    assert {run["epochs"] for run in said["runs"]} <= {5, 6}
    for run in said["runs"]:
        for other in ("validation_selected", "validation_fpr_selected"):
            assert 1 <= run[other]["epoch"] <= run["epochs"]
            assert run["test_selected"]["test"]["fpr"] <= run[other]["test"]["fpr"]
    assert "selected on the test set" in (folder / "tables/tables.md").read_text()


def test_a_run_of_the_sweep_is_the_run_that_the_stages_make(swept: tuple[Path, Params], tmp_path: Path) -> None:
    """`dvc exp run -S selection=paper …` goes through the same code: same epoch, same figures."""
    folder, _ = swept
    runs = json.loads((folder / "sweep.json").read_text())["runs"]
    for wanted in (runs[1], runs[-1]):
        alone = tmp_path / f"{wanted['model']}{wanted['dropout']}"
        alone.mkdir()
        (alone / "set").symlink_to(folder / "set")
        told = {name: wanted[name] for name in ("model", "class_weights", "dropout", "seed")}
        told |= {"selection": "paper", "reduce__mode": "paper", "history__numbers": "paper", "train__wide": False}
        run_all(alone, params_with(tmp_path, **SMALL, **told))
        figures = json.loads((alone / "metrics.json").read_text())["test"]
        said = wanted["test_selected"]["test"]
        for name in ("auc", "fpr", "tpr", "accuracy", "fpr_at_tpr_90"):
            assert figures[name] == pytest.approx(said[name], abs=0.005), (wanted, name)
        assert json.loads((alone / "live/metrics.json").read_text())["best_epoch"] == wanted["test_selected"]["epoch"]


def test_what_is_kept_is_not_trained_again(swept: tuple[Path, Params]) -> None:
    folder, params = swept
    before = (folder / "sweep.json").read_bytes()
    one = next((folder / "cache/sweep").iterdir())
    one.unlink()
    started = {path: path.stat().st_mtime_ns for path in (folder / "cache/sweep").iterdir()}
    run_sweep(folder, params)
    assert (folder / "sweep.json").read_bytes() == before
    assert one.exists()
    assert {path: path.stat().st_mtime_ns for path in started} == started


def test_all_that_decides_a_stack_is_in_its_key(swept: tuple[Path, Params], tmp_path: Path) -> None:
    folder, params = swept
    print_ = fingerprint(folder / "set")

    def keys(changed: Params, print_: str = print_) -> set[str]:
        return {sweep.key(stack, changed, print_) for stack in sweep.stacks_of(changed)}

    made = keys(params)
    assert len(made) == 4
    for change in (
        {"seed": 70},
        {"paper__learning_rate": 0.02},
        {"paper__patience": 2},
        {"reduce__dropout": 0.1},
        {"train__top": [8]},
        {"sweep__mode": "joint"},
        {"sweep__numbers": "full"},
        {"sweep__wide": True},
        {"sweep__class_weights": ["none"]},
        {"protocol": "leave_one_out"},
    ):
        assert not made & keys(params_with(tmp_path, **(SMALL | change))), change
    assert not made & keys(params, "another training set")
    # what single runs are told decides nothing here
    told = {"dropout": 0.9, "class_weights": "basic", "model": "baseline", "selection": "validation", "networks": 3}
    told |= {"reduce__mode": "split", "history__numbers": "full", "train__wide": True, "train__learning_rate": 0.1}
    assert made == keys(params_with(tmp_path, **(SMALL | told)))


def test_code_and_vocabularies_are_in_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("models", "pipelines"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(kept, "ROOT", tmp_path)
    digests = {kept.code_digest("pipelines/paper/runs.py")}
    for count, name in enumerate(
        (
            "models/losses.py",
            "pipelines/learning.py",
            "pipelines/vocabularies/restaurant_types.json",
            "pipelines/paper/runs.py",
        ),
        start=2,
    ):
        with (tmp_path / name).open("a") as file:
            file.write(" ")
        digests.add(kept.code_digest("pipelines/paper/runs.py"))
        assert len(digests) == count, name


def test_divergence_is_one_line(swept: tuple[Path, Params], tmp_path: Path) -> None:
    folder, _ = swept
    wild = params_with(tmp_path, **SMALL, paper__learning_rate=1e20, cache__dir=str(tmp_path / "cache"))
    expected = r"sweep, baseline, seed 7: train: epoch \d+: .*; lower `paper.learning_rate` \(1e\+20\)"
    with pytest.raises(UserError, match=expected):
        paths = {"training_set": folder / "set", "out": tmp_path / "sweep.json", "tables": tmp_path / "tables"}
        sweep.main(argparse.Namespace(**paths), wild)
    assert not (tmp_path / "sweep.json").exists()


def test_what_no_model_takes_is_said_before_anything_is_trained(tmp_path: Path) -> None:
    """Of every model, not of `model` alone."""
    write_splits(tmp_path / "set")
    say("test", "business_tags__subtypes", ["moon_bar"])(tmp_path)
    with pytest.raises(UserError, match="set: `business_tags__subtypes` says 'moon_bar', which is none of"):
        run_sweep(tmp_path, params_with(tmp_path, **SMALL, model="baseline", cache__dir=str(tmp_path / "cache")))
    assert not (tmp_path / "cache").exists()


def test_without_disliked_test_rows_nothing_can_be_chosen_by_their_fpr(tmp_path: Path) -> None:
    write_splits(tmp_path / "set")
    test = pq.read_table(tmp_path / "set/test.parquet")
    pq.write_table(test.filter(test["label"].to_numpy() == 1), tmp_path / "set/test.parquet")
    params = params_with(tmp_path, **SMALL, cache__dir=str(tmp_path / "cache"))
    with pytest.raises(UserError, match=r"selection by the FPR of test: none of its \d+ rows is disliked; take more"):
        run_sweep(tmp_path, params)
    with pytest.raises(UserError, match=r"selection by the FPR of test"):
        run_all(tmp_path, params_with(tmp_path, **SMALL, selection="paper"))


def sweeping(folder: Path, **changes: Any) -> tuple[list[str], Path]:
    """A sweep's command line over a small training set, and where it keeps stacks."""
    write_splits(folder / "set")
    write_params(folder / "params.yaml", **(SMALL | {"cache__dir": str(folder / "cache")} | changes))
    command = [sys.executable, "-m", "pipelines.paper.sweep", "--params", str(folder / "params.yaml")]
    command += ["--training-set", str(folder / "set"), "--out", str(folder / "sweep.json")]
    return [*command, "--tables", str(folder / "tables")], folder / "cache/sweep"


def first_stack(cache: Path, running: subprocess.Popen[str]) -> None:
    while not list(cache.glob("*.json")):
        assert running.poll() is None
        time.sleep(0.05)


@pytest.mark.slow
def test_interrupted_it_stops_at_once_and_goes_on_where_it_was(tmp_path: Path) -> None:
    command, cache = sweeping(tmp_path, paper__epochs=400, paper__least_epochs=390)
    running = subprocess.Popen(command, cwd=ROOT, start_new_session=True, stderr=subprocess.PIPE, text=True)
    first_stack(cache, running)
    os.killpg(running.pid, signal.SIGINT)
    began = time.monotonic()
    _, said = running.communicate(timeout=20)
    assert time.monotonic() - began < 10
    assert running.returncode == 2
    assert re.search(r"^error: sweep: interrupted; [123] of these 4 stacks are kept, run it again$", said, re.MULTILINE)
    assert "Traceback" not in said
    with pytest.raises(ProcessLookupError):  # no worker of its session is left
        for _ in range(50):
            os.killpg(running.pid, 0)
            time.sleep(0.1)


@pytest.mark.slow
def test_killed_it_goes_on_where_it_was(tmp_path: Path) -> None:
    command, cache = sweeping(tmp_path, paper__epochs=60)
    running = subprocess.Popen(command, cwd=ROOT, start_new_session=True, text=True)
    first_stack(cache, running)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    done = {path.name: path.stat().st_mtime_ns for path in cache.glob("*.json")}
    assert not (tmp_path / "sweep.json").exists()
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert f"sweep: {len(done)} of 4 stacks are done already" in ran.stdout
    assert {name: (cache / name).stat().st_mtime_ns for name in done} == done
    assert len(json.loads((tmp_path / "sweep.json").read_text())["runs"]) == 16
