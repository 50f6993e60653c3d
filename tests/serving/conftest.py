"""A small world that is served: tables, features, a feature repo that is materialized, both models trained on it."""

import argparse
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pipelines import reduce, train
from pipelines.core.params import Params
from pipelines.register import apply
from tests.expectations.world import make_world
from tests.models.training_sets import MODELS
from tests.params import ROOT, params_with, write_params
from tests.serving.http_client import Client, app_of, running

OF_THIS_WORLD = {
    "validate__min_reviews": 100,
    "reduce__epochs": 3,
    "reduce__batch_size": 64,
    "train__epochs": 5,
    "train__batch_size": 64,
}
# Materialized up to the world's end, whenever the tests run.
START, END = datetime(2000, 1, 1, tzinfo=UTC), datetime(2030, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class ServedWorld:
    """Where a world lies: `root` holds data/, feature_repo/, params.yaml and a model file a model.

    240 reviews from 2020-01-01 on, an hour or three apart, of 24 users u00… and 10 businesses b0… (b0 `Place 0` is
    Thai and a Bar and has no price, the others are Diners at prices 0 to 8), with summaries, tags and photos of made-up
    vectors (tests/expectations/world.py). All views are materialized into SQLite at data/feast/online.db.
    """

    root: Path

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def repo(self) -> Path:
        return self.root / "feature_repo"

    @property
    def online(self) -> Path:
        return self.data / "feast" / "online.db"

    def model(self, name: str = "proposed") -> Path:
        return self.root / f"{name}.safetensors"

    def params(self, **changes: Any) -> Params:
        """Its params.yaml with these changes (`section__key=value`); the file stays as it is."""
        with tempfile.TemporaryDirectory() as folder:
            return params_with(Path(folder), **(OF_THIS_WORLD | changes))

    def write_params(self, **changes: Any) -> Path:
        """Its params.yaml, written with these changes: in a copy."""
        return write_params(self.root / "params.yaml", **(OF_THIS_WORLD | changes))

    def copied(self, to: Path) -> "ServedWorld":
        """The same world elsewhere, to break; paths in the registry are relative, so it reads its own tables."""
        return ServedWorld(Path(shutil.copytree(self.root, to)))


def train_both(world: ServedWorld) -> None:
    """A model file of each of the paper's models, in a few epochs: what it says is no matter here."""
    for name in MODELS:
        params = world.params(model=name)
        paths = {"training_set": world.data / "training_set", "reducer": world.root / f"{name}.reducer"}
        reduce.main(argparse.Namespace(training_set=paths["training_set"], out=paths["reducer"]), params)
        live = world.root / "live" / name
        train.main(argparse.Namespace(**paths, out=world.model(name), live=live), params)


def make_served_world(root: Path) -> ServedWorld:
    """All of a `ServedWorld`, under `protocol: point_in_time`."""
    world = ServedWorld(root)
    root.mkdir()
    world.write_params()
    make_world(world.data, world.params())
    train_both(world)
    shutil.copytree(ROOT / "feature_repo", world.repo, ignore=shutil.ignore_patterns("__pycache__"))
    apply(world.repo).materialize(START, END)
    return world


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> ServedWorld:
    """The world, made once: do not change it; take `served.copied(tmp_path / "copy")` to break things."""
    return make_served_world(tmp_path_factory.mktemp("served") / "world")


@pytest.fixture
def broken(served: ServedWorld, tmp_path: Path) -> ServedWorld:
    """A copy that a test may break."""
    return served.copied(tmp_path / "copy")


@pytest.fixture(scope="session")
def client(served: ServedWorld) -> Iterator[Client]:
    """Of an app that serves the world with its proposed model; what it has counted so far is anybody's."""
    with running(app_of(served)) as running_client:
        running_client.until_ready()
        yield running_client
