"""The three stages that learn and judge, through their command lines' own mains."""

import argparse
import json
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from models import saved
from models.metrics import auc
from models.recommender import TrainedRecommender
from models.reducer import Reducer
from models.variants import VARIANTS
from pipelines import evaluate, learning, reduce, train
from pipelines.core.errors import UserError
from pipelines.core.params import Params
from pipelines.core.training_rows import TrainingRows, fingerprint, model_schema, read_splits, reducers_part
from pipelines.core.vocabulary import PRICE_TAGS, restaurant_types
from tests.models.training_sets import MODELS, rows_of, splits_of, table, without, write_splits
from tests.params import ROOT, params_with, write_params

both = pytest.mark.parametrize("model", MODELS)
QUICK = {"reduce__epochs": 4, "train__epochs": 6, "train__batch_size": 64, "reduce__batch_size": 64}


def run_reduce(folder: Path, params: Params) -> None:
    reduce.main(argparse.Namespace(training_set=folder / "set", out=folder / "reducer"), params)


def run_train(folder: Path, params: Params) -> None:
    paths = {"training_set": folder / "set", "reducer": folder / "reducer", "out": folder / "model"}
    train.main(argparse.Namespace(**paths, live=folder / "live"), params)


def run_evaluate(folder: Path, params: Params) -> None:
    paths = {"training_set": folder / "set", "model": folder / "model", "metrics": folder / "metrics.json"}
    paths |= {"predictions": folder / "predictions/test.parquet", "plots": folder / "plots"}
    evaluate.main(argparse.Namespace(**paths), params)


@pytest.fixture(scope="module")
def made_of(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What all three stages leave behind of each model, in mode `split`; copy it before you touch it."""
    return {name: all_three(tmp_path_factory.mktemp("made"), reduce__mode="split", model=name) for name in MODELS}


@pytest.fixture(scope="module")
def made(made_of: dict[str, Path]) -> Path:
    return made_of["baseline"]


def all_three(folder: Path, model: str = "baseline", **changes: Any) -> Path:
    folder.mkdir(exist_ok=True)
    write_splits(folder / "set", model=model)
    return run_all(folder, params_with(folder, **(QUICK | changes), model=model))


def run_all(folder: Path, params: Params) -> Path:
    run_reduce(folder, params)
    run_train(folder, params)
    run_evaluate(folder, params)
    return folder


@both
@pytest.mark.parametrize("mode", ["paper", "split", "joint"])
def test_every_mode_from_training_set_to_figures(tmp_path: Path, mode: str, model: str) -> None:
    folder = all_three(tmp_path, model, reduce__mode=mode, train__epochs=30)
    figures = json.loads((folder / "metrics.json").read_text())
    assert set(figures) == {"train", "validation", "test", "floors"}
    assert set(figures["floors"]) == {"all_positive", "logistic", "gradient_boosting"}
    assert figures["test"]["auc"] > 0.6
    assert figures["test"]["threshold"] == figures["validation"]["threshold"] == figures["train"]["warm"]["threshold"]
    assert figures["validation"]["tpr"] >= 0.9
    assert figures["test"]["warm"]["n"] + figures["test"]["cold"]["n"] == figures["test"]["n"] == 200
    predictions = pq.read_table(folder / "predictions/test.parquet")
    test = read_splits(folder / "set", model)["test"]
    assert predictions["review_id"].equals(test.table["review_id"])
    assert auc(predictions["label"].to_numpy(), predictions["probability"].to_numpy()) == figures["test"]["auc"]


@pytest.mark.parametrize(("mode", "model"), [("split", "proposed"), ("joint", "baseline")])
def test_the_same_seed_makes_the_same_files(tmp_path: Path, mode: str, model: str) -> None:
    first, second = (all_three(tmp_path / name, model, reduce__mode=mode) for name in ("a", "b"))
    names = ["reducer", "model", "metrics.json", "predictions/test.parquet", "plots/roc.csv", "live/metrics.json"]
    for name in names:
        assert (first / name).read_bytes() == (second / name).read_bytes(), name
    run_train(second, params_with(tmp_path, **QUICK, reduce__mode=mode, model=model, seed=8))
    assert (second / "model").read_bytes() != (first / "model").read_bytes()


@both
@pytest.mark.parametrize("mode", ["paper", "split", "joint"])
def test_only_joint_training_moves_the_reducers(tmp_path: Path, mode: str, model: str) -> None:
    folder = all_three(tmp_path, model, reduce__mode=mode)
    before, _ = saved.load(folder / "reducer", "reducer")
    after = TrainedRecommender.load(folder / "model").network.reducers.state_dict()
    assert set(before) == set(after)
    assert {torch.equal(before[name], after[name]) for name in before} == {mode != "joint"}


def reducers_of(splits: dict[str, TrainingRows], params: Params) -> dict[str, Reducer]:
    vectors = learning.fit_encodings(splits["train"].columns, VARIANTS[params.model])
    return learning.fit_reducers(splits, vectors, params, params.seeds, "reduce")


def test_each_reducer_is_fitted_by_itself(tmp_path: Path) -> None:
    """What stands in the captions changes nothing in the reducer of the summaries, and the other way round."""
    splits = splits_of(model="proposed")
    turned = {}
    for split, rows in splits.items():
        captions = rows.columns["business_photos__caption_embedding"][::-1]
        columns = rows.columns | {"business_photos__caption_embedding": captions}
        turned[split] = TrainingRows(rows.table, columns)
    params = params_with(tmp_path, **QUICK, reduce__mode="split", model="proposed")
    one, two = (reducers_of(made, params) for made in (splits, turned))
    assert list(one) == ["text", "caption"]
    for field, same in (("text", True), ("caption", False)):
        weights, others = one[field].state_dict(), two[field].state_dict()
        assert {torch.equal(weights[name], others[name]) for name in weights} == {same}


@both
def test_a_source_without_photos(tmp_path: Path, model: str) -> None:
    write_splits(tmp_path / "set", model=model)
    name = model_schema(model).names[-1]
    assert name.startswith("business_photos__")
    for split in ("train", "validation", "test"):
        path = tmp_path / "set" / f"{split}.parquet"
        pq.write_table(without(pq.read_table(path), name), path)
    run_all(tmp_path, params_with(tmp_path, **QUICK, model=model))
    assert json.loads((tmp_path / "metrics.json").read_text())["test"]["auc"] > 0.55


def test_dropout_is_no_business_of_the_reducer(tmp_path: Path) -> None:
    write_splits(tmp_path / "set")
    run_reduce(tmp_path, params_with(tmp_path, **QUICK, reduce__mode="split", dropout=0.1, model="baseline"))
    first = (tmp_path / "reducer").read_bytes()
    run_reduce(tmp_path, params_with(tmp_path, **QUICK, reduce__mode="split", dropout=0.5, model="baseline"))
    assert (tmp_path / "reducer").read_bytes() == first


@both
def test_the_model_says_where_it_comes_from(tmp_path: Path, model: str) -> None:
    made = TrainedRecommender.load(all_three(tmp_path, model, class_weights="basic") / "model")
    assert made.feature_service == f"{model}_point_in_time"
    assert made.fingerprint == fingerprint(tmp_path / "set")
    assert made.params["model"] == model
    assert made.params["class_weights"] == "basic"
    assert made.weights[0, 0] > made.weights[0, 1]  # fewer dislikes, each weighing more


def test_the_model_holds_the_vocabularies(made_of: dict[str, Path]) -> None:
    encoding = TrainedRecommender.load(made_of["proposed"] / "model").encoding
    assert encoding.price_tag is not None
    assert encoding.price_tag.vocabulary == PRICE_TAGS
    assert encoding.lists["category"].vocabulary == restaurant_types()
    assert TrainedRecommender.load(made_of["baseline"] / "model").encoding.price_tag is None


@both
def test_the_order_of_the_columns_in_the_file_says_nothing(
    tmp_path: Path, made_of: dict[str, Path], model: str
) -> None:
    folder = shutil.copytree(made_of[model], tmp_path / "copy")
    path = folder / "set/test.parquet"
    rows = pq.read_table(path)
    pq.write_table(rows.select(rows.column_names[::-1]), path)
    expected = read_splits(made_of[model] / "set", model)["test"].columns
    for name, column in read_splits(folder / "set", model)["test"].columns.items():
        np.testing.assert_array_equal(column, expected[name])


def test_learning_curves_have_a_point_an_epoch(made: Path) -> None:
    for split in ("train", "validation"):
        for name in ("log_loss", "auc"):
            lines = (made / f"live/plots/metrics/{split}/{name}.tsv").read_text().splitlines()
            assert len(lines) == 1 + 6
    assert 1 <= json.loads((made / "live/metrics.json").read_text())["best_epoch"] <= 6


def test_halves_of_train() -> None:
    rows = rows_of(table(400, 1))
    earlier = reducers_part(rows, "point_in_time")
    instants = rows.columns["event_timestamp"]
    assert instants[earlier].max() < instants[~earlier].min()
    assert abs(earlier.mean() - 0.5) < 0.01
    by_pair = reducers_part(rows, "leave_one_out")
    assert 0.4 < by_pair.mean() < 0.6
    order = np.random.default_rng(0).permutation(400)
    assert (reducers_part(rows_of(rows.table.take(order)), "leave_one_out") == by_pair[order]).all()
    sides: dict[tuple[str, str], set[bool]] = {}
    ids = rows.table.select(["user_id", "business_id"]).to_pylist()
    for pair, side in zip(ids, by_pair, strict=True):
        sides.setdefault((pair["user_id"], pair["business_id"]), set()).add(bool(side))
    assert len(sides) < 400
    assert all(len(seen) == 1 for seen in sides.values())


def test_split_and_paper_train_the_dlrm_on_other_rows(tmp_path: Path) -> None:
    """The labels of the DLRM's part of train change nothing in a `split` reducer, and everything in a `paper` one."""
    splits = {split: rows_of(table(200, i)) for i, split in enumerate(("train", "validation", "test"))}
    flipped = splits["train"].columns | {"label": splits["train"].labels.copy()}
    later = ~reducers_part(splits["train"], "point_in_time")
    flipped["label"][later] = 1 - flipped["label"][later]
    other = splits | {"train": TrainingRows(splits["train"].table, flipped)}
    for mode, same in (("split", True), ("paper", False)):
        params = params_with(tmp_path, **QUICK, reduce__mode=mode, model="baseline")
        one, two = (reducers_of(made, params)["text"].state_dict() for made in (splits, other))
        assert all(torch.equal(one[name], two[name]) for name in one) == same


@both
def test_labels_of_the_reducers_part_teach_the_dlrm_nothing(tmp_path: Path, model: str) -> None:
    params = params_with(tmp_path, **QUICK, reduce__mode="split", model=model)
    splits = splits_of(1, model=model)
    write_splits(tmp_path / "set", 1, model)
    run_reduce(tmp_path, params)
    reducers = train.load_reducers(tmp_path / "reducer", fingerprint(tmp_path / "set"), params)
    encoding = learning.encoding_for(splits["train"].columns, VARIANTS[model], reducers.vectors, params)
    part = reducers_part(splits["train"], "point_in_time")
    learnt = []
    for flipped in (np.zeros_like(part), part, ~part):
        columns = splits["train"].columns | {
            "label": np.where(flipped, 1 - splits["train"].labels, splits["train"].labels)
        }
        changed = splits | {"train": TrainingRows(splits["train"].table, columns)}
        members = train.members_of(params)
        made = learning.prepare(splits["train"], encoding, reducers.stacks, params, members)
        learning.train_stack(made, changed, params, members, lambda epoch: None)
        learnt.append(made.network.dlrm.over_arch.logit.weight)
    assert torch.equal(learnt[0], learnt[1])
    assert not torch.equal(learnt[0], learnt[2])


def test_the_threshold_is_validations(made: Path) -> None:
    figures = json.loads((made / "metrics.json").read_text())
    for judged in (figures, *figures["floors"].values()):
        assert judged["validation"]["tpr"] >= 0.9
        assert judged["validation"]["fpr"] == judged["validation"]["fpr_at_tpr_90"]
    assert figures["test"]["fpr"] != figures["test"]["fpr_at_tpr_90"]


@pytest.mark.parametrize("weights", ["none", "basic"])
def test_the_papers_selection_from_training_set_to_figures(tmp_path: Path, weights: str) -> None:
    """Its epoch is the one of least FPR on test, and its threshold 0.5 of the network's own, weighted output."""
    quick = {"selection": "paper", "paper__epochs": 8, "paper__least_epochs": 3, "paper__patience": 5}
    folder = all_three(tmp_path, "proposed", class_weights=weights, **quick)
    figures = json.loads((folder / "metrics.json").read_text())
    assert figures["test"]["threshold"] == figures["floors"]["logistic"]["test"]["threshold"] == 0.5
    lines = (folder / "live/plots/metrics/test/fpr.tsv").read_text().splitlines()[1:]
    assert figures["test"]["fpr"] == pytest.approx(min(float(line.split()[1]) for line in lines))
    said = pq.read_table(folder / "predictions/test.parquet")
    weight = TrainedRecommender.load(folder / "model").weights[0]
    logits = np.log(said["probability"].to_numpy() / (1 - said["probability"].to_numpy()))
    own = logits + np.log(float(weight[1] / weight[0]))
    assert figures["test"]["fpr"] == (own[said["label"].to_numpy() == 0] >= 0).mean()


def test_several_networks_answer_with_their_mean(tmp_path: Path) -> None:
    write_splits(tmp_path / "set", model="proposed")
    params = params_with(tmp_path, **QUICK, model="proposed", networks=3, reduce__mode="paper")
    run_all(tmp_path, params)
    model = TrainedRecommender.load(tmp_path / "model")
    test = read_splits(tmp_path / "set", "proposed")["test"]
    said = model.member_probabilities(test.columns)
    assert said.shape == (3, 200)
    assert np.abs(said[0] - said[1]).max() > 1e-3
    predictions = pq.read_table(tmp_path / "predictions/test.parquet")
    np.testing.assert_array_equal(predictions["probability"].to_numpy(), said.mean(axis=0))


def make_stale(folder: Path) -> None:
    write_splits(folder / "set", seed=1)


def say(split: str, name: str, value: Any) -> Any:
    """Row 3 of a split says `value` instead."""

    def harm(folder: Path) -> None:
        path = folder / f"set/{split}.parquet"
        rows = pq.read_table(path)
        values = rows[name].to_pylist()
        values[3] = value
        at = rows.column_names.index(name)
        pq.write_table(rows.set_column(at, rows.schema.field(name), pa.array(values, rows[name].type)), path)

    return harm


PRICE, SUBTYPES = "business_tags__price_tag", "business_tags__subtypes"
CAPTION = "business_photos__caption_embedding"


@pytest.mark.parametrize(
    ("harm", "stages", "message"),
    [
        (say("train", SUBTYPES, ["moon_bar"]), [run_train], f"set: `{SUBTYPES}` says 'moon_bar', which is none of"),
        (say("test", SUBTYPES, ["moon_bar"]), [run_evaluate], f"set: `{SUBTYPES}` says 'moon_bar', which is none of"),
        (say("train", SUBTYPES, list(restaurant_types()[:12])), [run_train], "has 12 names in a row, .* takes 11"),
        (
            say("validation", PRICE, "dear"),
            [run_train],
            f"set: `{PRICE}` says 'dear', the model knows overpriced, fair",
        ),
        (
            say("test", CAPTION, [0.5] * 13),
            [run_reduce, run_train, run_evaluate],
            f"set/.*.parquet, {CAPTION}: a vector of 12 among vectors of 13",
        ),
        (
            say("train", "user_history__newest_review_at", datetime(2030, 1, 1, tzinfo=UTC)),
            [run_train],
            "set: row 3: the newest visible review, 2030-01-01.* is after the row's instant",
        ),
    ],
)
def test_rows_that_say_what_no_model_takes_are_refused_by_name(
    made_of: dict[str, Path], tmp_path: Path, harm: Any, stages: Any, message: str
) -> None:
    folder = shutil.copytree(made_of["proposed"], tmp_path / "copy")
    harm(folder)
    for name in ("reducer", "model"):  # as if made of this very training set
        tensors, about = saved.load(folder / name, name)
        saved.save(folder / name, tensors, about | {"fingerprint": fingerprint(folder / "set")})
    for stage in stages:
        with pytest.raises(UserError, match=message) as refused:
            stage(folder, params_with(tmp_path, **QUICK, reduce__mode="split", model="proposed"))
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "stage", "message"),
    [
        ("reducer", run_train, "reducer: made for the model proposed, wanted baseline; run `dvc repro reduce`"),
        ("model", run_evaluate, "model: holds the model proposed, wanted baseline; run `dvc repro train`"),
    ],
)
def test_a_file_of_the_other_variant_is_refused(
    made_of: dict[str, Path], tmp_path: Path, name: str, stage: Any, message: str
) -> None:
    folder = shutil.copytree(made_of["baseline"], tmp_path / "copy")
    tensors, about = saved.load(made_of["proposed"] / name, name)
    saved.save(folder / name, tensors, about | {"fingerprint": fingerprint(folder / "set")})
    with pytest.raises(UserError, match=message):
        stage(folder, params_with(tmp_path, **QUICK, reduce__mode="split", model="baseline"))


def of_a_former_version(folder: Path) -> None:
    tensors, about = saved.load(folder / "reducer", "reducer")
    saved.save(folder / "reducer", tensors, about | {"encoding": {"text": {"means": [[0.5], [0.5]], "scale": 2.0}}})


def hold_one_model(folder: Path) -> None:
    """As versions did that made the training set for one model."""
    path = folder / "set/train.parquet"
    pq.write_table(pq.read_table(path, columns=model_schema("baseline").names), path)


def break_file(name: str) -> Any:
    return lambda folder: (folder / name).write_bytes(b"no weights")


@pytest.mark.parametrize(
    ("harm", "stage", "changes", "message"),
    [
        (make_stale, run_train, {}, "reducer: made from another training set; run `dvc repro reduce`"),
        (make_stale, run_evaluate, {}, "model: trained on another training set; run `dvc repro train`"),
        (break_file("reducer"), run_train, {}, "reducer: not a safetensors file"),
        (break_file("model"), run_evaluate, {}, "model: not a safetensors file"),
        (lambda folder: (folder / "model").unlink(), run_evaluate, {}, "model: no such file; run `dvc repro train`"),
        (lambda folder: (folder / "set/test.parquet").unlink(), run_evaluate, {}, "test.parquet: no such table"),
        (of_a_former_version, run_train, {}, r"reducer: another version made it \(.*; run `dvc repro reduce`"),
        (
            hold_one_model,
            run_reduce,
            {"model": "proposed"},
            r"train.parquet: lacks the columns \['user_summary__embedding', .*run",
        ),
        (None, run_train, {"networks": 2}, "reducer: made for 1 networks; run `dvc repro reduce`"),
        (None, run_train, {"reduce__mode": "paper"}, "reducer: made in mode split; run `dvc repro reduce`"),
        (None, run_train, {"train__bottom": [16]}, "`reduce.hidden` ends in 32 and `train.bottom` in 16"),
        (None, run_train, {"train__learning_rate": 1e20}, r"train: epoch \d+: .* lower `train.learning_rate`"),
    ],
)
def test_refused_with_one_line_and_outputs_untouched(
    made: Path, tmp_path: Path, harm: Any, stage: Any, changes: dict[str, Any], message: str
) -> None:
    folder = shutil.copytree(made, tmp_path / "copy")
    if harm is not None:
        harm(folder)
    kept = {name: (folder / name).read_bytes() for name in ("metrics.json", "plots/roc.csv")}
    with pytest.raises(UserError, match=message) as refused:
        stage(folder, params_with(tmp_path, **(QUICK | {"reduce__mode": "split", "model": "baseline"} | changes)))
    assert "\n" not in str(refused.value)
    assert kept == {name: (folder / name).read_bytes() for name in kept}


def test_rows_of_one_class_are_judged_with_nulls(tmp_path: Path) -> None:
    write_splits(tmp_path / "set")
    path = tmp_path / "set/test.parquet"
    test = pq.read_table(path)
    liked = test.filter(test["label"].to_numpy() == 1)
    pq.write_table(liked, path)
    run_all(tmp_path, params_with(tmp_path, **QUICK, model="baseline"))
    said = json.loads((tmp_path / "metrics.json").read_text())["test"]
    assert said["auc"] is said["fpr"] is said["pr_auc_negative"] is None
    assert said["n"] == liked.num_rows
    assert (tmp_path / "plots/roc.csv").read_text() == "false_positive_rate,true_positive_rate\n"


@pytest.mark.slow
def test_command_line_exit_code(tmp_path: Path) -> None:
    write_params(tmp_path / "params.yaml")
    command = [sys.executable, "-m", "pipelines.reduce", "--training-set", "none", "--out", str(tmp_path / "reducer")]
    ran = subprocess.run(
        [*command, "--params", str(tmp_path / "params.yaml")], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 2
    assert ran.stderr == "error: none/train.parquet: no such table; run `dvc repro` to make it\n"
    assert not (tmp_path / "reducer").exists()
