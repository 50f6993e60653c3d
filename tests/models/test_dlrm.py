import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from models.dlrm import DLRM, Bag, InteractionArch, SparseArch
from models.losses import weighted_log_loss
from models.stacked import Bags, PairwiseDots, stack
from models.trainer import seeded

B, K, D = 9, 5, 4
BAGS = {"category": Bag(rows=8, length=3)}
FIELDS = ["text", "caption"]


def network(wide: bool = False, dropout: float = 0.0, seed: int = 3) -> DLRM:
    with seeded(seed):
        made = DLRM(K, BAGS, FIELDS, [6, D], [7, 3], dropout, wide)
        if made.wide is not None:
            nn.init.normal_(made.wide)
    return made.eval()


def batch(rows: int = B, seed: int = 0) -> dict[str, torch.Tensor]:
    """Of one member, (1, B, ·)."""
    generator = torch.Generator().manual_seed(seed)
    return {
        "dense": torch.randn(1, rows, K, generator=generator),
        "category": torch.randint(0, 8, (1, rows, 3), generator=generator),  # 7 is padding
        **{name: torch.randn(1, rows, D, generator=generator) for name in FIELDS},
    }


def obvious_forward(made: DLRM, inputs: dict[str, torch.Tensor], member: int = 0) -> np.ndarray:
    """(B,): one member, row by row, pair by pair, in float64, from the weights' names alone."""
    weights = {name: tensor[member].double().numpy() for name, tensor in made.state_dict().items()}
    inputs = {name: tensor[member if len(tensor) > 1 else 0] for name, tensor in inputs.items()}

    def layer(name: str, x: np.ndarray) -> np.ndarray:
        return weights[f"{name}.weight"] @ x + weights[f"{name}.bias"]

    def pooled(indices: list[int]) -> np.ndarray:
        table = weights["sparse_arch.tables.category"]
        return sum((table[i] for i in indices if i != 7), np.zeros(D))

    logits = []
    for row in range(len(inputs["dense"])):
        dense = inputs["dense"][row].double().numpy()
        x = dense
        for i in (0, 3):
            x = np.maximum(layer(f"dense_arch.layers.{i}", x), 0)
        vectors = [inputs[name][row].double().numpy() for name in FIELDS]
        fields = [x, pooled(inputs["category"][row].tolist()), *vectors]
        dots = [fields[i] @ fields[j] for i in range(len(fields)) for j in range(i)]
        top = np.concatenate([x, dots])
        for i in (0, 3):
            top = np.maximum(layer(f"over_arch.layers.{i}", top), 0)
        logit = layer("over_arch.logit", top)[0]
        logits.append(logit + (dense @ weights["wide"])[0] if made.wide is not None else logit)
    return np.array(logits)


@pytest.mark.parametrize("wide", [False, True])
def test_equals_an_obvious_forward(wide: bool) -> None:
    made, inputs = network(wide), batch()
    np.testing.assert_allclose(made(inputs)[0].detach().numpy(), obvious_forward(made, inputs), atol=1e-5)


@pytest.mark.parametrize("shared", [False, True])
def test_each_member_of_a_stack_equals_an_obvious_forward(shared: bool) -> None:
    """Whether each has inputs of its own, or all share them."""
    made = stack([network(wide=True, seed=seed) for seed in (3, 4, 5)])
    inputs = batch() if shared else {n: torch.cat([batch(seed=s)[n] for s in range(3)]) for n in batch()}
    logits = made(inputs).detach().numpy()
    assert logits.shape == (3, B)
    for member in range(3):
        np.testing.assert_allclose(logits[member], obvious_forward(made, inputs, member), atol=1e-5)


def test_gradients_equal_those_of_torchs_own_operations() -> None:
    """`Bags` and `PairwiseDots` have backwards of their own."""
    generator = torch.Generator().manual_seed(1)
    lists = torch.randint(0, 8, (2, 6, 3), generator=generator)
    tables = torch.randn(2, 8, 4, generator=generator, dtype=torch.float64)
    tables[:, -1] = 0.0
    tables.requires_grad_()
    weights = torch.randn(2, 6, 4, generator=generator, dtype=torch.float64)
    (ours,) = torch.autograd.grad((Bags.apply(tables, lists) * weights).sum(), tables)
    obvious = torch.stack([tables[m][lists[m]].sum(dim=1) for m in range(2)])
    (theirs,) = torch.autograd.grad((obvious * weights).sum(), tables)
    assert torch.allclose(ours[:, :-1], theirs[:, :-1])
    assert (ours[:, -1] == 0).all()
    fields = torch.randn(5, 4, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(PairwiseDots.apply, (fields,))


def test_interaction_golden_values() -> None:
    fields = torch.tensor([[[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]]])
    # dense, then (1,0), (2,0), (2,1)
    assert InteractionArch()(fields).tolist() == [[[1.0, 2.0, 11.0, 17.0, 39.0]]]


def test_pooling_golden_values() -> None:
    arch = SparseArch(BAGS, 2)
    with torch.no_grad():
        arch.tables["category"][0, :7] = torch.arange(14).reshape(7, 2)
    # the last row is padding; a list of padding alone is zero
    pooled = arch({"category": torch.tensor([[[0, 2, 7], [7, 7, 7], [3, 3, 1]]])})[0]
    assert pooled.tolist() == [[[4, 6], [0, 0], [14, 17]]]


def test_tables_are_drawn_as_the_reference_draws_them() -> None:
    with seeded(1):
        weight = SparseArch({"category": Bag(180, 11)}, 32).tables["category"]
    assert weight.shape == (1, 180, 32)
    assert 0.99 < weight.abs().max().item() * 180**0.5 <= 1
    assert (weight[:, 179] == 0).all()


def test_padding_and_order_change_nothing() -> None:
    made, inputs = network(), batch()
    inputs["category"] = torch.tensor([[[0, 2, 7]] * B])
    moved = {**inputs, "category": torch.tensor([[[7, 2, 0]] * B])}
    assert torch.equal(made(inputs), made(moved))
    other = {**inputs, "category": torch.tensor([[[0, 2, 3]] * B])}
    assert not torch.allclose(made(inputs), made(other))


def test_padding_learns_nothing() -> None:
    made, inputs = network(), batch()
    made(inputs).sum().backward()
    gradient = made.sparse_arch.tables["category"].grad
    assert (gradient[:, 7] == 0).all()
    assert gradient[:, :7].abs().sum() > 0


def test_without_bags_and_vectors_the_dense_field_stands_alone() -> None:
    assert DLRM(K, {}, [], [6, D], [7], 0.0, False)({"dense": torch.zeros(1, 2, K)}).shape == (1, 2)


def test_shape_and_dtype() -> None:
    logits = network()(batch())
    assert logits.shape == (1, B)
    assert logits.dtype == torch.float32


def test_a_new_wide_path_says_nothing() -> None:
    with seeded(3):
        wide = DLRM(K, BAGS, FIELDS, [6, D], [7, 3], 0.0, wide=True)
    assert torch.equal(wide.eval()(batch()), network()(batch()))


def test_permuting_rows_permutes_outputs() -> None:
    made, inputs, order = network(), batch(), torch.randperm(B, generator=torch.Generator().manual_seed(1))
    moved = made({name: tensor[:, order] for name, tensor in inputs.items()})
    assert torch.allclose(moved, made(inputs)[:, order], atol=1e-6)
    assert not torch.allclose(moved, made(inputs), atol=1e-6)


def test_a_row_more_changes_no_other_row() -> None:
    made, inputs = network(dropout=0.5), batch()
    fewer = made({name: tensor[:, :-1] for name, tensor in inputs.items()})
    assert torch.allclose(fewer, made(inputs)[:, :-1], atol=1e-6)


def test_dropout_moves_training_alone() -> None:
    made, inputs = network(dropout=0.5), batch()
    assert torch.equal(made(inputs), made(inputs))
    made.train()
    assert not torch.equal(made(inputs), made(inputs))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text": torch.zeros(1, B, D + 1)}, r"`text` has shape \(1, 9, 5\), the network wants \(1 or 1, 9, 4\)"),
        ({"text": torch.zeros(1, B + 1, D)}, r"`text` has shape \(1, 10, 4\)"),
        ({"text": torch.zeros(2, B, D)}, r"`text` has shape \(2, 9, 4\)"),
        ({"text": torch.zeros(B, D)}, r"`text` has shape \(9, 4\)"),
        ({"dense": torch.zeros(1, B, K + 2)}, r"`dense` has shape \(1, 9, 7\), the network wants \(1 or 1, 9, 5\)"),
        ({"caption": torch.zeros(1, B, D, dtype=torch.float64)}, "`caption` is torch.float64"),
        ({"category": torch.zeros(1, B, 3)}, "`category` is torch.float32, the network wants torch.int64"),
        ({"category": torch.zeros(1, B, 4, dtype=torch.int64)}, r"`category` has shape .* wants \(1 or 1, 9, 3\)"),
        ({"sound": torch.zeros(1, B, D)}, r"inputs are .*'sound'.*, the network wants \['caption', 'category'"),
    ],
)
def test_bad_inputs_are_refused_by_name(change: dict[str, torch.Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        network()({**batch(), **change})


def test_a_missing_input_is_refused_by_name() -> None:
    inputs = batch()
    del inputs["dense"]
    with pytest.raises(ValueError, match=r"inputs are \['caption', 'category', 'text'\]"):
        network()(inputs)


def test_equals_the_reference_implementation_before_and_after_three_steps() -> None:
    """Numbers of facebookresearch/dlrm, run once; the file says how."""
    said = json.loads((Path(__file__).parent / "reference_dlrm.json").read_text())
    made = DLRM(3, {"category": Bag(8, 3)}, FIELDS, [5, 4], [5], 0.0, wide=False)
    linears = [*made.dense_arch.layers[::3], *made.over_arch.layers[::3], made.over_arch.logit]
    with torch.no_grad():
        for layer, (weight, bias) in zip(linears, [*said["bottom"], *said["top"]], strict=True):
            layer.weight[0], layer.bias[0] = torch.tensor(weight), torch.tensor(bias)
        made.sparse_arch.tables["category"][0, :7] = torch.tensor(said["table"])
    inputs = {name: torch.tensor([said[name]]) for name in ("dense", "category", *FIELDS)}
    labels = torch.tensor([said["labels"]], dtype=torch.float32)
    np.testing.assert_allclose(torch.sigmoid(made(inputs)).tolist(), [said["probabilities"]], atol=1e-6)
    optimizer = torch.optim.SGD(made.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        weighted_log_loss(made(inputs), labels, torch.tensor([[0.5, 0.5]])).sum().backward()
        optimizer.step()
    np.testing.assert_allclose(torch.sigmoid(made(inputs)).tolist(), [said["after"]], atol=1e-6)
    assert np.abs(np.subtract(said["after"], said["probabilities"])).max() > 0.01
