"""Worlds of good tables and a judge, made once."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.expectations.faults import WORLDS
from tests.expectations.world import World

if TYPE_CHECKING:
    from tests.expectations.judge import Judge


@pytest.fixture(scope="session")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, World]]:
    made = {name: World(tmp_path_factory.mktemp(name), **changes) for name, changes in WORLDS.items()}
    yield made
    for world in made.values():
        world.connection.close()


@pytest.fixture(scope="session")
def by_time(worlds: dict[str, World]) -> World:
    return worlds["time"]


@pytest.fixture(scope="session")
def judge() -> "Judge":
    from tests.expectations.judge import Judge

    return Judge()
