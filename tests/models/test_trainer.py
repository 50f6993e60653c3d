from dataclasses import replace

import numpy as np
import pytest
import torch

from models.dlrm import DLRM
from models.metrics import log_loss
from models.reducer import Reducer, UpstreamClassifier
from models.trainer import Diverged, Epoch, Rows, Schedule, best_epoch, fit, predict, seeded
from tests.models.networks import recommender
from tests.models.training_sets import MODELS, rows_of, table

EVEN = (0.5, 0.5)
SCHEDULE = Schedule(learning_rate=0.01, weight_decay=0.0, epochs=6, patience=10, batch_size=32)


def quiet(epoch: Epoch) -> None:
    """No one watches."""


def dlrm(dropout: float = 0.1, seed: int = 1) -> DLRM:
    with seeded(seed):
        return DLRM(3, {}, ["text"], [8, 4], [8], dropout, wide=True)


def rows(count: int, seed: int) -> Rows:
    generator = torch.Generator().manual_seed(seed)
    dense, text = torch.randn(count, 3, generator=generator), torch.randn(count, 4, generator=generator)
    liked = dense[:, 0] + dense[:, 1] * text[:, 0] > 0
    return Rows({"dense": dense, "text": text}, liked.numpy().astype(np.int8))


def bits(network: torch.nn.Module) -> bytes:
    return b"".join(tensor.numpy().tobytes() for tensor in network.state_dict().values())


def test_a_tiny_batch_is_learnt_by_heart() -> None:
    tiny = rows(16, 0)
    tiny = replace(tiny, labels=np.random.default_rng(0).integers(0, 2, 16).astype(np.int8))
    network = dlrm(dropout=0.0)
    fit(network, tiny, tiny, EVEN, replace(SCHEDULE, learning_rate=0.02, epochs=150, patience=150), 1, quiet)
    assert (np.abs(predict(network, tiny.inputs, EVEN) - tiny.labels) < 0.1).all()


@pytest.mark.parametrize("model", MODELS)
def test_each_variant_end_to_end_learns_a_tiny_batch_by_heart(model: str) -> None:
    made = recommender(model)
    labels = np.random.default_rng(0).integers(0, 2, 16).astype(np.int8)
    tiny = Rows(made.inputs(rows_of(table(16, 7, model)).columns), labels)
    for layer in made.network.modules():
        if isinstance(layer, torch.nn.Dropout):
            layer.p = 0.0
    before = {name: tensor.clone() for name, tensor in made.network.state_dict().items()}
    fit(made.network, tiny, tiny, EVEN, replace(SCHEDULE, learning_rate=0.02, epochs=200, patience=200), 1, quiet)
    assert (np.abs(predict(made.network, tiny.inputs, EVEN) - labels) < 0.1).all()
    for name, tensor in made.network.state_dict().items():  # every part took part in it
        assert not torch.equal(tensor, before[name]), name


def test_the_reducer_learns_too() -> None:
    train = rows(400, 1)
    labels = (train.inputs["text"][:, 0] > 0).numpy().astype(np.int8)
    texts = Rows({"text": train.inputs["text"]}, labels)
    with seeded(1):
        network = UpstreamClassifier(Reducer("text", 4, [16, 4], 0.1), 4)
    epochs = fit(network, texts, texts, EVEN, replace(SCHEDULE, epochs=20), 1, quiet)
    assert (epochs[-1].validation_auc or 0) > 0.95
    assert network.reducer.project(texts.inputs["text"]).shape == (400, 4)


def test_same_seed_same_bits_and_another_seed_others() -> None:
    networks = [dlrm(), dlrm(), dlrm()]
    histories = [
        fit(network, rows(200, 1), rows(60, 2), EVEN, SCHEDULE, seed, quiet)
        for network, seed in zip(networks, (1, 1, 2), strict=True)
    ]
    assert histories[0] == histories[1] != histories[2]
    assert bits(networks[0]) == bits(networks[1]) != bits(networks[2])


def test_random_numbers_outside_are_not_touched() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    fit(dlrm(), rows(50, 1), rows(20, 2), EVEN, replace(SCHEDULE, epochs=1), 1, quiet)
    assert torch.equal(torch.rand(3), expected)


def test_it_stops_early_and_keeps_the_best_epoch() -> None:
    train, validation = rows(60, 1), rows(60, 2)
    noise = replace(validation, labels=np.random.default_rng(3).integers(0, 2, 60).astype(np.int8))
    network = dlrm()
    seen: list[Epoch] = []
    schedule = replace(SCHEDULE, epochs=200, patience=5)
    epochs = fit(network, train, noise, EVEN, schedule, 1, seen.append)
    best = best_epoch(epochs)
    assert seen == epochs
    assert len(epochs) == best.number + 5 < 200
    probabilities = predict(network, noise.inputs, EVEN)
    assert log_loss(noise.labels, probabilities) == best.validation_log_loss < epochs[-1].validation_log_loss
    assert not network.training


def test_weights_do_not_move_the_mean_probability() -> None:
    """What class weights shift is shifted back: calibrated on the whole, with 80 % liked, whatever the weights."""
    train = rows(2000, 1)
    rng = np.random.default_rng(0)
    train = replace(train, labels=(rng.random(2000) < 0.8).astype(np.int8))
    for weights in (EVEN, (0.8, 0.2)):
        network = dlrm(dropout=0.0)
        fit(network, train, train, weights, replace(SCHEDULE, epochs=20, batch_size=250), 1, quiet)
        assert predict(network, train.inputs, weights).mean() == pytest.approx(train.labels.mean(), abs=0.03)


def test_one_class_has_no_auc() -> None:
    train = rows(50, 1)
    ones = replace(train, labels=np.ones(50, np.int8))
    epochs = fit(dlrm(), train, ones, EVEN, replace(SCHEDULE, epochs=1), 1, quiet)
    assert epochs[0].validation_auc is None
    assert np.isfinite(epochs[0].validation_log_loss)


def test_divergence_is_named() -> None:
    with pytest.raises(Diverged, match="epoch 1: the network's output is no longer a number"):
        broken = rows(50, 1)
        broken.inputs["dense"][0, 0] = torch.nan
        fit(dlrm(), broken, broken, EVEN, SCHEDULE, 1, quiet)
