"""The model file replaced, broken, taken away and put back under a running ranker."""

import time
from pathlib import Path

import pytest

from models.recommender import TrainedRecommender
from pipelines.core.errors import UserError
from serving.live import AGAIN_S, Live
from tests.serving.conftest import ServedWorld


@pytest.fixture
def world(broken: ServedWorld) -> ServedWorld:
    return broken


def live_of(world: ServedWorld) -> Live:
    return Live(world.model(), world.repo, world.params())


def test_it_is_loaded_once(world: ServedWorld) -> None:
    live = live_of(world)
    assert live.ranker() is live.ranker()
    assert live.state() is None


def test_another_file_is_another_ranker(world: ServedWorld) -> None:
    live = live_of(world)
    first = live.ranker()
    world.model("baseline").replace(world.model())
    assert live.ranker() is not first
    assert live.ranker().model.feature_service == "baseline_point_in_time"


def test_while_the_file_is_gone_the_loaded_model_goes_on(world: ServedWorld) -> None:
    """DVC takes a stage's outputs away before it runs the stage."""
    live = live_of(world)
    first = live.ranker()
    aside = world.model().rename(world.root / "aside")
    assert live.ranker() is first
    assert live.state() == f"{world.model()}: the file is gone; the model that was loaded from it still answers"
    aside.rename(world.model())
    assert live.ranker() is first and live.state() is None


def test_without_a_file_from_the_beginning(world: ServedWorld) -> None:
    aside = world.model().rename(world.root / "aside")
    live = live_of(world)
    for _ in range(2):
        with pytest.raises(UserError, match=r"proposed\.safetensors: no such file; run `dvc repro train`"):
            live.ranker()
    aside.rename(world.model())
    assert live.ranker() and live.state() is None


def test_a_file_that_cannot_be_used_is_answered_for_by_nobody(world: ServedWorld) -> None:
    live = live_of(world)
    loaded = live.ranker()
    whole = world.model().read_bytes()
    world.model().write_bytes(whole[:1000])
    with pytest.raises(UserError, match="not a safetensors file"):
        live.ranker()
    assert "not a safetensors file" in (live.state() or "")
    world.model().unlink()
    assert live.ranker() is loaded, "as before the broken one came"
    world.model().write_bytes(whole)
    assert live.ranker()


def test_a_model_of_a_feature_service_that_the_registry_lacks_until_it_has(world: ServedWorld) -> None:
    registry = world.data / "feast" / "registry.db"
    aside = registry.rename(registry.with_suffix(".aside"))
    live = live_of(world)
    with pytest.raises(UserError, match="cannot answer for"):
        live.ranker()
    registry.unlink(missing_ok=True)
    aside.rename(registry)
    time.sleep(AGAIN_S)
    assert live.ranker()


def test_half_a_file_is_read_again_when_it_is_whole(world: ServedWorld, tmp_path: Path) -> None:
    trained = TrainedRecommender.load(world.model("baseline"))
    live = live_of(world)
    first = live.ranker()
    trained.save(tmp_path / "new")
    world.model().write_bytes((tmp_path / "new").read_bytes()[:5000])
    with pytest.raises(UserError):
        live.ranker()
    world.model().write_bytes((tmp_path / "new").read_bytes())
    assert live.ranker() is not first
