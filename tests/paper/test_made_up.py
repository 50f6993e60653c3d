"""What the report's tests are made of has the shape that the stages write: each is run on a small world."""

import argparse
import json
from collections.abc import Iterator
from typing import Any

from pipelines.paper import backwards, compare, leak, sweep
from tests.models.training_sets import write_splits
from tests.paper import made_up
from tests.paper.test_backwards import write_stage
from tests.paper.test_sweep import SMALL
from tests.params import params_with

FEW = {"train__epochs": 2, "compare__seeds": 2, "compare__replicates": 200}


def paths(content: Any, at: str = "") -> Iterator[str]:
    """Every key by its path; a list's elements are one, `[]`."""
    if isinstance(content, dict):
        for key, value in content.items():
            yield f"{at}.{key}"
            yield from paths(value, f"{at}.{key}")
    elif isinstance(content, list):
        yield f"{at}[]"
        for value in content:
            yield from paths(value, f"{at}[]")


def test_paths_are_keys_and_lists():
    assert set(paths({"a": [{"b": 1}, {"c": []}], "d": {"e": None}})) == {
        ".a", ".a[]", ".a[].b", ".a[].c", ".a[].c[]", ".d", ".d.e",
    }  # fmt: skip


def test_the_sweeps(tmp_path):
    write_splits(tmp_path / "set")
    small = SMALL | {"sweep__repeats": 2, "sweep__dropout": [0.1], "sweep__class_weights": ["basic"]}
    args = argparse.Namespace(training_set=tmp_path / "set", out=tmp_path / "out.json", tables=tmp_path / "tables")
    sweep.main(args, params_with(tmp_path, **small, cache__dir=str(tmp_path / "cache")))
    assert set(paths(json.loads(args.out.read_text()))) == set(paths(made_up.sweep()))


def test_the_comparisons(tmp_path):
    """Nobody is ranked for, so that no Feast is asked: of rankings' differences there are none."""
    write_splits(tmp_path / "set")
    params = params_with(tmp_path, **FEW, cache__dir=str(tmp_path / "cache"))
    params = params.model_copy(update={"compare": params.compare.model_copy(update={"ranked_users": 0})})
    args = argparse.Namespace(training_set=tmp_path / "set", repo=None, registry=None, out=tmp_path / "out.json")
    compare.main(args, params)
    found = set(paths(json.loads(args.out.read_text())))
    assert {
        path for path in set(paths(made_up.compare())) ^ found if not path.startswith(".paired_ranking[].")
    } == set()


def test_the_leaks(tmp_path, monkeypatch):
    monkeypatch.setattr(backwards, "EPOCHS", 1)
    args = write_stage(tmp_path, timed=True)
    few = {"leak__seeds": 2, "leak__networks": 2, "leak__permutations": 2, "train__epochs": 2}
    leak.main(args, params_with(tmp_path, **few, cache__dir=str(tmp_path / "cache")))
    different = set(paths(json.loads(args.out.read_text()))) ^ set(paths(made_up.leak()))
    assert {path for path in different if not path.startswith(".explains.ours[].")} == set()  # nobody reads these
