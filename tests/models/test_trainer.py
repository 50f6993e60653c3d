from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from models import stacked
from models.dlrm import DLRM, Bag
from models.losses import class_weights
from models.metrics import auc, log_loss
from models.reducer import Reducer, UpstreamClassifier
from models.trainer import Diverged, Epoch, Fitted, Member, Rows, Schedule, fit, predict, seeded
from tests.models.networks import recommender
from tests.models.training_sets import MODELS, rows_of, table

EVEN = torch.tensor([[0.5, 0.5]])
SCHEDULE = Schedule(learning_rate=0.01, weight_decay=0.0, epochs=6, patience=10, batch_size=32)


def quiet(epoch: Epoch) -> None:
    """No one watches."""


def fit_one(network: torch.nn.Module, train: Rows, validation: Rows, schedule: Schedule, seed: int = 1) -> Fitted:
    return fit(network, {"train": train, "validation": validation}, EVEN, schedule, [seed], quiet)


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
    fit_one(network, tiny, tiny, replace(SCHEDULE, learning_rate=0.02, epochs=150, patience=150))
    assert (np.abs(predict(network, tiny.inputs, EVEN)[0] - tiny.labels) < 0.1).all()


@pytest.mark.parametrize("model", MODELS)
def test_each_variant_end_to_end_learns_a_tiny_batch_by_heart(model: str) -> None:
    made = recommender(model)
    labels = np.random.default_rng(0).integers(0, 2, 16).astype(np.int8)
    tiny = Rows(made.inputs(rows_of(table(16, 7, model)).columns), labels)
    for _, layer in stacked.dropouts(made.network):
        layer.rates.zero_()
    before = {name: tensor.clone() for name, tensor in made.network.state_dict().items()}
    fit_one(made.network, tiny, tiny, replace(SCHEDULE, learning_rate=0.02, epochs=200, patience=200))
    assert (np.abs(predict(made.network, tiny.inputs, EVEN)[0] - labels) < 0.1).all()
    for name, tensor in made.network.state_dict().items():  # every part took part in it
        assert not torch.equal(tensor, before[name]), name


def test_the_reducer_learns_too() -> None:
    train = rows(400, 1)
    labels = (train.inputs["text"][:, 0] > 0).numpy().astype(np.int8)
    texts = Rows({"text": train.inputs["text"]}, labels)
    with seeded(1):
        network = UpstreamClassifier(Reducer("text", 4, [16, 4], 0.1), 4)
    epochs = fit_one(network, texts, texts, replace(SCHEDULE, epochs=20)).epochs
    ranked = epochs[-1].figures["validation"].auc
    assert ranked is not None
    assert ranked[0] > 0.95
    assert network.reducer.project(texts.inputs["text"]).shape == (400, 4)


def test_same_seed_same_bits_and_another_seed_others() -> None:
    networks = [dlrm(), dlrm(), dlrm()]
    histories = [
        fit_one(network, rows(200, 1), rows(60, 2), SCHEDULE, seed)
        for network, seed in zip(networks, (1, 1, 2), strict=True)
    ]
    losses = [[epoch.figures["validation"].log_loss.tolist() for epoch in history.epochs] for history in histories]
    assert losses[0] == losses[1] != losses[2]
    assert bits(networks[0]) == bits(networks[1]) != bits(networks[2])


def test_random_numbers_outside_are_not_touched() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    fit_one(dlrm(), rows(50, 1), rows(20, 2), replace(SCHEDULE, epochs=1))
    assert torch.equal(torch.rand(3), expected)


def test_it_stops_early_and_keeps_the_best_epoch() -> None:
    train, validation = rows(60, 1), rows(60, 2)
    noise = replace(validation, labels=np.random.default_rng(3).integers(0, 2, 60).astype(np.int8))
    network = dlrm()
    fitted = fit_one(network, train, noise, replace(SCHEDULE, epochs=200, patience=5))
    best = fitted.best["validation"]
    assert len(fitted.epochs) == best.epochs[0] + 5 == fitted.last[0] < 200
    probabilities = predict(network, noise.inputs, EVEN)[0]
    assert log_loss(noise.labels, probabilities) == pytest.approx(best.scores[0], abs=1e-6)
    assert best.scores[0] < fitted.epochs[-1].figures["validation"].log_loss[0]
    assert not network.training


def test_patience_begins_after_the_least_epochs() -> None:
    """The paper: early stops after the first 300 epochs, then 50 without improvement."""
    noise = replace(rows(60, 2), labels=np.random.default_rng(3).integers(0, 2, 60).astype(np.int8))
    schedule = replace(SCHEDULE, epochs=200, patience=5, least_epochs=40)
    fitted = fit_one(dlrm(), rows(60, 1), noise, schedule)
    assert fitted.best["validation"].epochs[0] < 40
    assert fitted.last[0] == 45


def test_the_papers_selection_takes_the_least_fpr_on_test() -> None:
    watched = {"train": rows(100, 1), "validation": rows(60, 2), "test": rows(60, 3)}
    fitted = fit(dlrm(), watched, EVEN, replace(SCHEDULE, epochs=12), [1], quiet, ("paper", "validation"))
    fprs = [epoch.figures["test"].fpr[0] for epoch in fitted.epochs]
    losses = [epoch.figures["validation"].log_loss[0] for epoch in fitted.epochs]
    assert fitted.best["paper"].epochs[0] == 1 + int(np.argmin(fprs))
    assert fitted.best["validation"].epochs[0] == 1 + int(np.argmin(losses))


def test_figures_of_an_epoch_equal_those_of_its_predictions() -> None:
    network, judged = dlrm(), rows(80, 2)
    weights = torch.tensor([[0.8, 0.2]])
    watched = {"train": rows(60, 1), "validation": judged}
    figures = fit(network, watched, weights, replace(SCHEDULE, epochs=1), [1], quiet).epochs[0].figures["validation"]
    own = predict(network, judged.inputs, EVEN)[0]
    calibrated = predict(network, judged.inputs, weights)[0]
    of_row = np.where(judged.labels == 1, 0.2, 0.8)
    losses = -np.log(np.where(judged.labels == 1, own, 1 - own))
    assert figures.log_loss[0] == pytest.approx(log_loss(judged.labels, calibrated), abs=1e-6)
    assert figures.loss[0] == pytest.approx((losses * of_row).sum() / of_row.sum(), abs=1e-6)
    assert figures.accuracy[0] == ((own >= 0.5) == (judged.labels == 1)).mean()
    assert figures.fpr[0] == (own[judged.labels == 0] >= 0.5).mean()
    assert figures.auc is not None
    assert figures.auc[0] == pytest.approx(auc(judged.labels, own))


def test_weights_do_not_move_the_mean_probability() -> None:
    """What class weights shift is shifted back: calibrated on the whole, with 80 % liked, whatever the weights."""
    train = rows(2000, 1)
    rng = np.random.default_rng(0)
    train = replace(train, labels=(rng.random(2000) < 0.8).astype(np.int8))
    for weights in (EVEN, torch.tensor([[0.8, 0.2]])):
        network = dlrm(dropout=0.0)
        watched = {"train": train, "validation": train}
        fit(network, watched, weights, replace(SCHEDULE, epochs=20, batch_size=250), [1], quiet)
        assert predict(network, train.inputs, weights).mean() == pytest.approx(train.labels.mean(), abs=0.03)


def test_one_class_has_no_auc() -> None:
    train = rows(50, 1)
    ones = replace(train, labels=np.ones(50, np.int8))
    figures = fit_one(dlrm(), train, ones, replace(SCHEDULE, epochs=1)).epochs[0].figures["validation"]
    assert figures.auc is not None
    assert np.isnan(figures.auc[0])
    assert np.isfinite(figures.log_loss[0])


def test_divergence_is_named() -> None:
    with pytest.raises(Diverged, match="epoch 1: the network's output is no longer a number"):
        broken = rows(50, 1)
        broken.inputs["dense"][0, 0] = torch.nan
        fit_one(dlrm(), broken, broken, SCHEDULE)


# --- stacks ----------------------------------------------------------------------------------------------------------

MIXED = [Member(1, 0.0, "none"), Member(2, 0.5, "basic"), Member(1, 0.3, "sqrt"), Member(3, 0.1, "basic")]


def full(count: int, seed: int) -> Rows:
    """Rows with a list and two vectors, liked by odds that all of them move."""
    generator = torch.Generator().manual_seed(seed)
    inputs = {"dense": torch.randn(count, 3, generator=generator)}
    inputs["category"] = torch.randint(0, 8, (count, 3), generator=generator)
    inputs |= {name: torch.randn(count, 4, generator=generator) for name in ("text", "caption")}
    odds = inputs["dense"][:, 0] + inputs["text"][:, 0] * inputs["caption"][:, 0] + (inputs["category"] == 2).any(1) + 1
    liked = torch.rand(count, generator=generator) < torch.sigmoid(odds)
    return Rows(inputs, liked.numpy().astype(np.int8))


def stack_of(members: Sequence[Member]) -> DLRM:
    drawn = []
    for member in members:
        with seeded(member.seed):
            drawn.append(DLRM(3, {"category": Bag(8, 3)}, ["text", "caption"], [8, 4], [8, 4], member.dropout, True))
    return stacked.stack(drawn)


def weights_of(members: Sequence[Member]) -> torch.Tensor:
    return torch.tensor([class_weights({0: 100, 1: 300}, member.class_weights) for member in members])


def fit_stack(members: Sequence[Member], watched: Mapping[str, Rows], **changes: Any) -> tuple[DLRM, Fitted]:
    network, seeds = stack_of(members), [member.seed for member in members]
    schedule = replace(SCHEDULE, batch_size=20, **changes)
    return network, fit(network, watched, weights_of(members), schedule, seeds, quiet)


def state_of(network: DLRM, member: int) -> dict[str, np.ndarray]:
    return {name: tensor[member].numpy() for name, tensor in network.state_dict().items()}


def test_a_member_equals_the_same_run_alone_after_twenty_steps() -> None:
    watched = {"train": full(400, 1), "validation": full(100, 2)}
    together, _ = fit_stack(MIXED, watched, epochs=1)
    for i, member in enumerate(MIXED):
        alone, _ = fit_stack([member], watched, epochs=1)
        drawn = stack_of([member])
        for name, tensor in state_of(together, i).items():
            np.testing.assert_allclose(tensor, state_of(alone, 0)[name], atol=1e-5, err_msg=f"{member} {name}")
            if not name.endswith("tables.category"):
                assert np.abs(tensor - drawn.state_dict()[name][0].numpy()).max() > 1e-3, name


def test_members_differ_where_they_are_told_to() -> None:
    watched = {"train": full(400, 1), "validation": full(100, 2)}
    members = [Member(1, 0.1), Member(1, 0.1), Member(1, 0.5), Member(1, 0.1, "basic"), Member(2, 0.1)]
    made, _ = fit_stack(members, watched, epochs=1)
    first, *others = [made.over_arch.logit.weight[i] for i in range(len(members))]
    assert torch.equal(first, others[0])
    assert not any(torch.equal(first, other) for other in others[1:])


def test_a_member_ends_where_the_same_run_alone_ends() -> None:
    """AUC to 0.005, after stops at different epochs: who stops leaves the stack, and who stays is as if alone."""
    watched = {"train": full(1200, 1), "validation": full(600, 2)}
    together, fitted = fit_stack(MIXED, watched, epochs=60, patience=4)
    assert len(set(fitted.last.tolist())) > 1
    assert stacked.size(together) == len(MIXED)
    said = predict(together, watched["validation"].inputs, weights_of(MIXED))
    for i, member in enumerate(MIXED):
        alone, one = fit_stack([member], watched, epochs=60, patience=4)
        lone = predict(alone, watched["validation"].inputs, weights_of([member]))[0]
        labels = watched["validation"].labels
        assert auc(labels, said[i]) == pytest.approx(auc(labels, lone), abs=0.005)
        assert abs(one.last[0] - fitted.last[i]) <= 4


def test_inputs_of_a_members_own() -> None:
    """Members whose reducers differ see different projections of one row."""
    shared = full(200, 1)
    own = {name: torch.stack([tensor, tensor]) for name, tensor in shared.inputs.items() if name == "text"}
    own["text"][1] = own["text"][1].flip(0)
    members = [Member(1, 0.1), Member(2, 0.1)]
    watched = {split: Rows({**shared.inputs, **own}, shared.labels) for split in ("train", "validation")}
    together, _ = fit_stack(members, watched, epochs=2)
    for i, member in enumerate(members):
        alone = {s: Rows({**shared.inputs, "text": own["text"][i]}, shared.labels) for s in watched}
        lone, _ = fit_stack([member], alone, epochs=2)
        for name, tensor in state_of(together, i).items():
            np.testing.assert_allclose(tensor, state_of(lone, 0)[name], atol=1e-5, err_msg=name)


def test_dropout_is_at_its_rate_and_keeps_the_mean() -> None:
    layer = stacked.Dropout(0.0)
    layer.rates = torch.tensor([0.0, 0.1, 0.5, 0.7], dtype=torch.float64)
    layer.bits = stacked.RandomBits([1, 1, 2, 3])
    out = layer.train()(torch.ones(4, 4000, 50))
    rates = (out == 0).double().mean(dim=(1, 2))
    assert rates.tolist() == pytest.approx([0.0, 0.1, 0.5, 0.7], abs=0.005)
    assert out.mean(dim=(1, 2)).tolist() == pytest.approx([1.0] * 4, abs=0.02)
    # every one of a word's four numbers is as random as the others
    assert [(out[2, :, place::4] == 0).double().mean().item() for place in range(4)] == pytest.approx(
        [0.5] * 4, abs=0.01
    )


def test_who_drops_nothing_is_as_alone_beside_who_does() -> None:
    """Also where reducers have dropout of their own: each layer draws from a stream of its own."""
    made = {seeds: recommender("proposed", seeds=seeds) for seeds in ((1,), (1, 2))}
    columns = rows_of(table(200, 7, "proposed")).columns
    for seeds, one in made.items():
        for number, (name, layer) in enumerate(stacked.dropouts(one.network)):
            layer.rates = torch.tensor([0.0, 0.5][: len(seeds)], dtype=torch.float64)
            if number == 1 or "reducers" in name:
                layer.rates = torch.full((len(seeds),), 0.3, dtype=torch.float64)
        rows_ = Rows(one.inputs(columns), (np.arange(200) % 3 > 0).astype(np.int8))
        watched = {"train": rows_, "validation": rows_}
        fit(one.network, watched, torch.full((len(seeds), 2), 0.5), replace(SCHEDULE, epochs=3), seeds, quiet)
    alone, together = (one.network.state_dict() for one in made.values())
    for name, tensor in alone.items():
        np.testing.assert_allclose(together[name][0].numpy(), tensor[0].numpy(), atol=1e-5, err_msg=name)


def test_a_stack_is_whole_again_after_training() -> None:
    """Its dropout too: who trains it further has the rates that each member had."""
    watched = {"train": full(400, 1), "validation": full(100, 2)}
    together, fitted = fit_stack(MIXED, watched, epochs=60, patience=2)
    assert len(set(fitted.last.tolist())) > 1
    for _, layer in stacked.dropouts(together):
        assert layer.rates.tolist() == [member.dropout for member in MIXED]


def test_almost_everything_may_be_dropped() -> None:
    layer = stacked.Dropout(0.999999)
    assert torch.isfinite(layer.train()(torch.ones(1, 2000, 100))).all()


def test_no_two_layers_or_seeds_drop_the_same() -> None:
    """torch's generator takes 32 bits of its seed: streams that differ above them alone are one stream."""
    streams = [stacked.RandomBits([seed], purpose) for seed in (1, 2) for purpose in range(4)]
    drawn = np.stack([stream.uniform(1, 4000).flatten().double().numpy() for stream in streams])
    assert np.abs(np.corrcoef(drawn) - np.eye(len(streams))).max() < 0.08
    with seeded(1):
        network = DLRM(3, {}, ["text"], [64], [64], 0.5, wide=False)
    stacked.draw_by(network, [1])
    masks = [layer.train()(torch.ones(1, 50, 64)) == 0 for _, layer in stacked.dropouts(network)]
    assert len(masks) == 2
    assert 0.4 < (masks[0] == masks[1]).double().mean() < 0.6
