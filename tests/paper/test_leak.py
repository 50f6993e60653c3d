"""The quarantined leak: its features are those that an obvious loop makes, and nobody else can come by them."""

import ast
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings

from pipelines.core.visibility import VECTOR_UNIT
from pipelines.obvious import World, obvious_numbers
from pipelines.paper.leaky_features import with_own_review
from tests.histories import world_of, worlds
from tests.params import ROOT

ENTITIES = ("user", "business")
PROTOCOLS = ("point_in_time", "leave_one_out")
QUARANTINED = "pipelines.paper.leaky_features"


def seen_with_own(world: World, at: int, entity: str, protocol: str) -> pd.DataFrame:
    """The reviews of the entity that the leak sees at review number `at`."""
    review = world.members.iloc[at]
    of_entity = world.members[world.members[f"{entity}_id"] == review[f"{entity}_id"]]
    if protocol == "point_in_time":
        return of_entity[of_entity["event_timestamp"] <= review["event_timestamp"]]
    own_pair = (of_entity[["user_id", "business_id"]] == review[["user_id", "business_id"]]).all(axis=1)
    return of_entity[(of_entity["split"] == "train") | own_pair]


def mean_text(world: World, seen: pd.DataFrame) -> np.ndarray | None:
    text = world.vectors["text"]
    rows = [text.values[i] / VECTOR_UNIT for i, owner in enumerate(text.owner) if owner in seen.index]
    return np.mean(rows, axis=0) if rows else None


@pytest.mark.parametrize("protocol", PROTOCOLS)
@settings(max_examples=60, deadline=None)
@given(world=worlds())
def test_leaky_features_are_the_obvious_loops(protocol, world):
    columns = with_own_review(world.members, world.vectors["text"], protocol)
    for at in range(len(world.members)):
        for entity in ENTITIES:
            seen = seen_with_own(world, at, entity, protocol)
            assert at in seen.index
            expected = obvious_numbers(seen, protocol)
            for name in ("review_count", "rating_mean", "rating_std"):
                assert columns[f"{entity}_history__{name}"][at] == expected[name]  # bit for bit
            trend, newest = (columns[f"{entity}_history__{name}"][at] for name in ("rating_trend", "newest_review_at"))
            if protocol == "point_in_time":
                assert trend == expected["rating_trend"]
                assert newest == expected["newest_review_at"].to_datetime64()
            else:
                assert np.isnan(trend)
                assert np.isnat(newest)
            text, mean = mean_text(world, seen), columns[f"{entity}_text__embedding"][at]
            assert np.isnan(mean).all() if text is None else np.abs(mean - text).max() < 1e-6


def test_a_trend_looks_back_over_ten_instants_and_no_further():
    world = world_of([(f"r{i:02}", "u0", f"b{i}", 1 + i % 5, i // 2, "train", 0, True) for i in range(60)])
    columns = with_own_review(world.members, world.vectors["text"], "point_in_time")
    for at in range(60):
        expected = obvious_numbers(seen_with_own(world, at, "user", "point_in_time"), "point_in_time")
        assert columns["user_history__rating_trend"][at] == expected["rating_trend"]


def test_a_world_without_words_has_no_text_but_has_its_numbers():
    world = world_of([(f"r{i}", "u0", "b0", 3, i, "train", 0, False) for i in range(3)])
    columns = with_own_review(world.members, world.vectors["text"], "point_in_time")
    assert np.isnan(columns["user_text__embedding"]).all()
    assert columns["user_history__review_count"].tolist() == [1, 2, 3]


def test_only_the_experiment_and_tests_may_import_what_leaks():
    rooms = ("pipelines", "models", "feature_repo", "serving", "benchmarks")
    files = [file for room in rooms for file in (ROOT / room).rglob("*.py")]
    found = {str(file.relative_to(ROOT)) for file in files if imports_the_leak(file)}
    assert found == {"pipelines/paper/leak.py"}
    first_line = (ROOT / "pipelines/paper/leaky_features.py").read_text().splitlines()[0]
    assert first_line.startswith('"""QUARANTINED')


def imports_the_leak(file: Path) -> bool:
    """By any of Python's ways of naming a module, in code or in a text that is imported by name."""
    tree = ast.parse(file.read_text())
    imported = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom | ast.Import)]
    named = [f"{getattr(node, 'module', None) or ''}.{alias.name}" for node in imported for alias in node.names]
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return any("leaky_features" in name for name in named) or QUARANTINED in texts
