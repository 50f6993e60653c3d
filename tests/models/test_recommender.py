import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from models import saved
from models.columns import Unencodable
from models.recommender import TrainedRecommender, build
from models.reducer import Reducer
from models.trainer import Member
from tests.models.networks import encoding_of, recommender, small_params
from tests.models.training_sets import MODELS, nothing_known, rows_of, table, without

SUBTYPES = "business_tags__subtypes"
IMAGE, CAPTION = "business_photos__image_embedding", "business_photos__caption_embedding"

both = pytest.mark.parametrize("model", MODELS)


@both
def test_saved_and_loaded_it_says_the_same_to_the_bit(tmp_path: Path, model: str) -> None:
    made, rows = recommender(model), rows_of(table(50, 2, model))
    made.save(tmp_path / "model.safetensors")
    again = TrainedRecommender.load(tmp_path / "model.safetensors")
    assert again.probabilities(rows.columns).tobytes() == made.probabilities(rows.columns).tobytes()
    assert set(again.encoding.columns) == set(made.encoding.columns)
    about = (again.feature_service, again.fingerprint, again.params)
    assert about == (f"{model}_point_in_time", "f" * 64, small_params(model))


@both
def test_the_same_model_makes_the_same_file(tmp_path: Path, model: str) -> None:
    sums = set()
    for i in range(5):
        recommender(model).save(tmp_path / f"{i}")
        sums.add(hashlib.sha256((tmp_path / f"{i}").read_bytes()).hexdigest())
    assert len(sums) == 1


def test_fields_meet_in_the_papers_order() -> None:
    assert list(recommender("baseline").network.dlrm.shapes) == ["dense", "text"]
    proposed = recommender("proposed").network
    assert list(proposed.dlrm.shapes) == ["dense", "category", "text", "caption"]
    assert proposed.dlrm.sparse_arch.tables["category"].shape == (1, 180, 4)
    assert (proposed.dlrm.sparse_arch.tables["category"][:, 179] == 0).all()


@both
def test_cold_rows_get_finite_probabilities(model: str) -> None:
    cold = nothing_known(rows_of(table(20, 3, model)))
    probabilities = recommender(model).probabilities(cold.columns)
    assert ((probabilities > 0) & (probabilities < 1)).all()
    assert len(np.unique(probabilities.round(6))) == 1


@both
def test_no_rows_no_probabilities(model: str) -> None:
    none = {name: column[:0] for name, column in rows_of(table(20, 3, model)).columns.items()}
    assert recommender(model).probabilities(none).shape == (0,)


@both
def test_permuted_rows_and_rows_more(model: str) -> None:
    made, columns = recommender(model), rows_of(table(60, 4, model)).columns
    said = made.probabilities(columns)
    order = np.random.default_rng(0).permutation(60)
    moved = made.probabilities({name: column[order] for name, column in columns.items()})
    np.testing.assert_allclose(moved, said[order], atol=1e-6)
    fewer = made.probabilities({name: column[:31] for name, column in columns.items()})
    np.testing.assert_allclose(fewer, said[:31], atol=1e-6)


def test_the_order_of_subtypes_changes_no_bit_and_their_choice_does() -> None:
    made, columns = recommender("proposed"), rows_of(table(60, 4, "proposed")).columns
    lists = columns[SUBTYPES]
    said = made.probabilities(columns)
    turned, fewer = lists.copy(), lists.copy()
    for row, names in enumerate(lists):
        if names:
            turned[row], fewer[row] = [*names[::-1], names[0]], names[1:]
    assert made.probabilities({**columns, SUBTYPES: turned}).tobytes() == said.tobytes()
    changed = made.probabilities({**columns, SUBTYPES: fewer}) != said
    # (almost: where ReLU lets none of it through, nothing moves)
    assert not changed[[not names for names in lists]].any()
    assert changed.sum() > 20


def test_a_list_with_more_padding_says_the_same() -> None:
    made = recommender("proposed")
    lists = made.inputs(rows_of(table(30, 4, "proposed")).columns)["category"]
    whole = made.network.dlrm.sparse_arch({"category": lists[None]})[0][0]
    for row, indices in enumerate(lists):
        bare = indices[indices != 179][None, None]
        expected = torch.zeros(4)
        if bare.shape[2]:
            expected = made.network.dlrm.sparse_arch({"category": bare})[0][0, 0]
        assert torch.equal(whole[row], expected)


def test_a_stack_says_the_mean_of_its_members(tmp_path: Path) -> None:
    columns = rows_of(table(40, 2, "proposed")).columns
    members = [recommender("proposed", seeds=(seed,)).probabilities(columns) for seed in (1, 2, 3)]
    together = recommender("proposed", seeds=(1, 2, 3))
    np.testing.assert_allclose(together.member_probabilities(columns), members, atol=1e-6)
    np.testing.assert_allclose(together.probabilities(columns), np.mean(members, axis=0), atol=1e-6)
    together.save(tmp_path / "stack")
    assert TrainedRecommender.load(tmp_path / "stack").probabilities(columns).shape == (40,)


@pytest.mark.parametrize(("model", "name"), [("baseline", IMAGE), ("proposed", CAPTION)])
def test_a_source_without_photos(tmp_path: Path, model: str, name: str) -> None:
    """All null, as Feast gives a view that has no rows."""
    columns = rows_of(without(table(60, 1, model), name)).columns
    assert columns[name].shape == (60, 0)
    encoding = encoding_of(model, columns)
    network = build(small_params(model), encoding, [Member(0, 0.1)])
    made = TrainedRecommender(network, encoding, torch.tensor([[0.5, 0.5]]), "s", "f", small_params(model))
    said = made.probabilities(columns)
    assert len(np.unique(said)) > 10
    made.save(tmp_path / "model")
    assert TrainedRecommender.load(tmp_path / "model").probabilities(columns).tobytes() == said.tobytes()


def test_class_weights_are_shifted_back() -> None:
    columns = rows_of(table(30, 2)).columns
    weighted = recommender("baseline", (0.7, 0.3)).probabilities(columns)
    even = recommender("baseline", (0.5, 0.5)).probabilities(columns)
    np.testing.assert_allclose(weighted / (1 - weighted), even / (1 - even) * 0.7 / 0.3, rtol=1e-9)


def test_unequal_fields_are_refused_by_name() -> None:
    unequal = small_params("baseline") | {"train": {"bottom": [8], "top": [8], "wide": False}}
    with pytest.raises(ValueError, match=r"`reduce\.hidden` ends in 4 and `train\.bottom` in 8"):
        build(unequal, recommender("baseline").encoding, [Member(0, 0.1)])


def test_a_wrongly_wide_field_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"`caption` has shape \(1, 2, 3\), the network wants \(1 or 1, 2, 5\)"):
        Reducer("caption", 5, [4], 0.0)(torch.zeros(1, 2, 3))


def test_rows_of_another_variant_are_refused_by_name() -> None:
    with pytest.raises(Unencodable, match=r"the model reads \['user_summary__embedding', .*'business_tags__price_tag'"):
        recommender("proposed").probabilities(rows_of(table(5, 1, "baseline")).columns)


ABOUT = {"kind": "model", "feature_service": "s", "params": {}, "fingerprint": "f", "encoding": {}, "sha256": "0"}


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (None, "weights without `mmrec` metadata"),
        ({"format": "pt"}, "weights without `mmrec` metadata"),
        ({"mmrec": json.dumps({**ABOUT, "kind": "reducer"})}, "holds a `reducer`, wanted a `model`"),
        (
            {"mmrec": json.dumps({k: v for k, v in ABOUT.items() if k != "fingerprint"})},
            r"its metadata lacks \['fingerprint'\]",
        ),
    ],
)
def test_other_weights_are_refused_by_name(tmp_path: Path, metadata: dict[str, str] | None, message: str) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"w": torch.zeros(1)}, path, metadata=metadata)
    with pytest.raises(saved.UnusableWeights, match=message):
        TrainedRecommender.load(path)


def test_missing_broken_and_unfitting_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with pytest.raises(saved.UnusableWeights, match="no such file"):
        TrainedRecommender.load(path)
    recommender("baseline").save(path)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(saved.UnusableWeights, match="not a safetensors file"):
        TrainedRecommender.load(path)
    recommender("baseline").save(path)
    tensors, about = saved.load(path, "model")
    tensors["dlrm.wide"] = torch.zeros(1, 3, 1)
    saved.save(path, tensors, about)
    with pytest.raises(saved.UnusableWeights, match=r"do not fit its own description .*dlrm\.wide"):
        TrainedRecommender.load(path)


def test_one_damaged_bit_is_refused(tmp_path: Path) -> None:
    """In the weights or in what the file says of itself, and also where a cache hands it out without a word."""
    path = tmp_path / "model"
    recommender("baseline").save(path)
    whole = path.read_bytes()
    header = int.from_bytes(whole[:8], "little") + 8
    constant = whole.index(b"means") + whole[whole.index(b"means") :].index(b"0.") + 2
    for at in (header, header + 77, len(whole) - 1, constant):
        damaged = bytearray(whole)
        damaged[at] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(saved.UnusableWeights, match="damaged: its weights are not those that were saved in it"):
            TrainedRecommender.load(path)
    path.write_bytes(whole)
    assert TrainedRecommender.load(path).digest


def test_the_digest_is_of_names_shapes_and_types_too() -> None:
    tensor = torch.arange(4, dtype=torch.float32)
    other = [{"b": tensor}, {"a": tensor.reshape(2, 2)}, {"a": tensor.view(torch.int32)}, {"a": tensor + 1}]
    digests = {saved.digest(tensors, {}) for tensors in ({"a": tensor}, *other)} | {
        saved.digest({"a": tensor}, {"k": 1})
    }
    assert len(digests) == 6


def test_models_are_told_apart_by_their_digest(tmp_path: Path) -> None:
    digests = set()
    for name, made in {"one": recommender("baseline"), "other": recommender("baseline", seeds=(2,))}.items():
        made.save(tmp_path / name)
        digests |= {TrainedRecommender.load(tmp_path / name).digest}
    assert len(digests) == 2


def test_a_file_of_another_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model"
    recommender("baseline").save(path)
    tensors, about = saved.load(path, "model")
    saved.save(path, tensors, {**about, "encoding": {"dense": {}, "text": {}}})
    with pytest.raises(
        saved.UnusableWeights, match=r"another version made it \(KeyError in its description: 'numbers'\)"
    ):
        TrainedRecommender.load(path)
