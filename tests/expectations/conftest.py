"""Worlds of good tables and a checker, made once."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.expectations.faults import PROTOCOLS
from tests.expectations.world import World

if TYPE_CHECKING:
    from pipelines.checks import Checker


@pytest.fixture(scope="session")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, World]]:
    made = {protocol: World(tmp_path_factory.mktemp(protocol), protocol) for protocol in PROTOCOLS.values()}
    yield made
    for world in made.values():
        world.connection.close()


@pytest.fixture(scope="session")
def by_time(worlds: dict[str, World]) -> World:
    return worlds["point_in_time"]


@pytest.fixture(scope="session")
def checker(tmp_path_factory: pytest.TempPathFactory) -> "Checker":
    from pipelines.checks import Checker

    return Checker(tmp_path_factory.mktemp("docs"))
