import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from models import saved
from models.encoding import DenseEncoding, TextEncoding, used_numbers
from models.recommender import TrainedRecommender, build
from models.trainer import seeded
from tests.models.training_sets import nothing_known, rows_of, table

PARAMS = {
    "dropout": 0.1,
    "train": {"bottom": [8, 4], "top": [8], "wide": True},
    "reduce": {"hidden": [6, 4], "dropout": 0.3, "mode": "joint"},
}


def recommender(weights: tuple[float, float] = (0.7, 0.3)) -> TrainedRecommender:
    train = rows_of(table(120, 1)).columns
    dense, text = DenseEncoding.fit(train, used_numbers("full")), TextEncoding.fit(train)
    with seeded(1):
        network = build(PARAMS, len(dense.names), text.width)
    return TrainedRecommender(network, dense, text, weights, "baseline_point_in_time", "f" * 64, PARAMS)


def test_saved_and_loaded_it_says_the_same_to_the_bit(tmp_path: Path) -> None:
    model, rows = recommender(), rows_of(table(50, 2))
    model.save(tmp_path / "model.safetensors")
    again = TrainedRecommender.load(tmp_path / "model.safetensors")
    assert again.probabilities(rows.columns).tobytes() == model.probabilities(rows.columns).tobytes()
    assert (again.feature_service, again.fingerprint, again.params) == ("baseline_point_in_time", "f" * 64, PARAMS)


def test_the_same_model_makes_the_same_file(tmp_path: Path) -> None:
    sums = set()
    for i in range(5):
        recommender().save(tmp_path / f"{i}")
        sums.add(hashlib.sha256((tmp_path / f"{i}").read_bytes()).hexdigest())
    assert len(sums) == 1


def test_cold_rows_get_finite_probabilities() -> None:
    cold = nothing_known(rows_of(table(20, 3)))
    probabilities = recommender().probabilities(cold.columns)
    assert ((probabilities > 0) & (probabilities < 1)).all()
    assert len(np.unique(probabilities.round(9))) == 1


def test_no_rows_no_probabilities() -> None:
    none = {name: column[:0] for name, column in rows_of(table(20, 3)).columns.items()}
    assert recommender().probabilities(none).shape == (0,)


def test_permuted_rows_and_rows_more() -> None:
    model, columns = recommender(), rows_of(table(60, 4)).columns
    said = model.probabilities(columns)
    order = np.random.default_rng(0).permutation(60)
    moved = model.probabilities({name: column[order] for name, column in columns.items()})
    np.testing.assert_allclose(moved, said[order], atol=1e-6)
    fewer = model.probabilities({name: column[:31] for name, column in columns.items()})
    np.testing.assert_allclose(fewer, said[:31], atol=1e-6)


def test_class_weights_are_shifted_back() -> None:
    columns = rows_of(table(30, 2)).columns
    weighted, even = recommender((0.7, 0.3)).probabilities(columns), recommender((0.5, 0.5)).probabilities(columns)
    np.testing.assert_allclose(weighted / (1 - weighted), even / (1 - even) * 0.7 / 0.3, rtol=1e-9)


def test_unequal_fields_are_refused_by_name() -> None:
    unequal = PARAMS | {"train": {"bottom": [8], "top": [8], "wide": False}}
    with pytest.raises(ValueError, match=r"`reduce\.hidden` ends in 4 and `train\.bottom` in 8"):
        build(unequal, 3, 5)


ABOUT = {"kind": "model", "feature_service": "s", "params": {}, "fingerprint": "f", "encoding": {}}


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
    recommender().save(path)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(saved.UnusableWeights, match="not a safetensors file"):
        TrainedRecommender.load(path)
    recommender().save(path)
    tensors, about = saved.load(path, "model")
    tensors["dlrm.wide.weight"] = torch.zeros(1, 3)
    saved.save(path, tensors, about)
    with pytest.raises(saved.UnusableWeights, match=r"do not fit its own description .*dlrm\.wide\.weight"):
        TrainedRecommender.load(path)
