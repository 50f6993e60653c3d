"""The network taken apart by entity says what the whole says."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from serving.scoring import Scorer
from tests.models.networks import recommender
from tests.models.training_sets import MODELS, nothing_known, rows_of, table

both = pytest.mark.parametrize("model", MODELS)


@both
def test_rows_as_the_whole_network_says(model: str) -> None:
    made, rows = recommender(model), rows_of(table(300, 5, model))
    whole = made.probabilities(rows.columns)
    assert np.abs(Scorer(made).probabilities(rows.columns) - whole).max() <= 1e-6
    assert np.ptp(whole) > 0.01, "a network that says one thing would agree with anything"


@both
def test_nothing_known(model: str) -> None:
    made, cold = recommender(model), nothing_known(rows_of(table(20, 3, model)))
    assert np.abs(Scorer(made).probabilities(cold.columns) - made.probabilities(cold.columns)).max() <= 1e-6


@both
def test_one_user_and_many_businesses(model: str) -> None:
    made, columns = recommender(model), rows_of(table(40, 6, model)).columns
    scorer = Scorer(made)
    user = {name: columns[name][:1] for name in scorer.columns_of("user")}
    at = np.full(40, columns["event_timestamp"].max())
    pairs = {
        name: np.repeat(user[name], 40, axis=0) if name in user else values
        for name, values in (columns | {"event_timestamp": at}).items()
    }
    scores = scorer.score(scorer.part("user", user), scorer.part("business", columns), at)
    assert np.abs(scores - made.probabilities(pairs)).max() <= 1e-6


@both
def test_a_stack_with_weights_says_its_members_mean(model: str) -> None:
    rows = rows_of(table(200, 7, model))
    stack = recommender(model, seeds=(1, 2, 3))
    weights = torch.tensor([[0.2, 0.8], [0.5, 0.5], [0.9, 0.1]], dtype=torch.float64)
    stack = replace(stack, weights=weights)
    assert np.abs(Scorer(stack).probabilities(rows.columns) - stack.probabilities(rows.columns)).max() <= 1e-6


@both
def test_every_column_that_the_model_reads_is_of_one_entity(model: str) -> None:
    made = recommender(model)
    scorer = Scorer(made)
    taken = [*scorer.columns_of("user"), *scorer.columns_of("business"), "event_timestamp"]
    assert sorted(taken) == sorted(made.encoding.columns)
