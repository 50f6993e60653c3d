"""The comparison on a small world, from Feast to JSON: shapes of the contract, and figures that are what they say."""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models import metrics
from models.bootstrap import draw_users, replicated
from models.floors import floors
from models.variants import Variant
from pipelines.core.params import Params
from pipelines.core.training_rows import TrainingRows, read_splits, training_set_schema
from pipelines.paper import compare
from pipelines.paper.ablation import GROUPS, Floor, ablation, bootstraps, mean_of, spread_of, with_data
from pipelines.paper.catalogue import wishes_of
from pipelines.paper.judged import Contender, floor_models
from tests.models.training_sets import nothing_known, rows_of, splits_of, whole_table
from tests.test_training_set import Workspace, make_workspace

SHORT = {"epochs": 3, "batch_size": 64}
FIGURES = {"auc", "log_loss", "pr_auc_negative", "fpr_at_tpr_90", "fpr_at_tpr_95"}
MODELS = {"proposed", "baseline", "logistic", "gradient_boosting", "all_positive"}


def quick(params: Params, **changes: Any) -> Params:
    """Few networks, few epochs, few draws."""
    made = params.compare.model_copy(update={"seeds": 2, "replicates": 200, "ranked_users": 20})
    train = params.train.model_copy(update=SHORT)
    return params.model_copy(update={"compare": made, "train": train, **changes})


def cached_in(folder: Path, params: Params) -> Params:
    return params.model_copy(update={"cache": params.cache.model_copy(update={"dir": str(folder)})})


def run(workspace: Workspace, params: Params, name: str) -> Path:
    args = workspace.args()
    out = workspace.root / f"results/paper/{name}.json"
    compare.main(argparse.Namespace(training_set=args.out, repo=args.repo, registry=args.registry, out=out), params)
    return out


@pytest.fixture(scope="module", params=["point_in_time", "leave_one_out"])
def workspace(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return make_workspace(tmp_path_factory.mktemp("workspace"), request.param)


@pytest.fixture(scope="module")
def splits(workspace: Workspace) -> dict[str, TrainingRows]:
    return read_splits(workspace.args().out, None)


@pytest.fixture(scope="module")
def params(workspace: Workspace) -> Params:
    return cached_in(workspace.root / "cache", quick(workspace.params))


@pytest.fixture(scope="module")
def made(workspace: Workspace, params: Params) -> dict[str, Any]:
    return json.loads(run(workspace, params, "compare").read_text())


def test_has_what_the_report_reads(made: dict[str, Any], splits: dict[str, TrainingRows]) -> None:
    assert set(made) == {"data", "models", "paired", "paired_ranking", "ablation"}
    assert made["data"]["rows"] == {split: len(rows.labels) for split, rows in splits.items()}
    assert made["data"]["negative_share"]["test"] == pytest.approx((splits["test"].labels == 0).mean())
    assert made["data"]["users"] == len(set(splits["test"].table["user_id"].to_pylist()))
    assert set(made["models"]) == MODELS
    for name, model in made["models"].items():
        assert set(model) == {"rows", "intervals", "seeds", "ranking", "curves", "threshold"}
        assert set(model["rows"]) == set(model["intervals"]) == {"all", "warm", "cold"}
        for rows in ("all", "warm", "cold"):
            assert set(model["rows"][rows]) == FIGURES | {"ece", "n"}
            assert set(model["intervals"][rows]) == FIGURES
        assert [seed["seed"] for seed in model["seeds"]] == ([7, 8] if name in compare.NETWORKS else [])
        assert set(model["curves"]) == {"roc", "calibration"}


def test_warm_and_cold_are_all(made: dict[str, Any], splits: dict[str, TrainingRows]) -> None:
    for model in made["models"].values():
        counts = {name: rows["n"] for name, rows in model["rows"].items()}
        assert counts["warm"] + counts["cold"] == counts["all"] == len(splits["test"].labels)
        assert counts["warm"] == splits["test"].warm.sum()


def test_a_floors_figures_are_those_of_its_probabilities(
    made: dict[str, Any], splits: dict[str, TrainingRows], workspace: Workspace
) -> None:
    columns = {split: rows.columns for split, rows in splits.items()}
    said = floors(columns, {split: rows.labels for split, rows in splits.items()}, ("test",), workspace.params.seed)
    labels, warm = splits["test"].labels, splits["test"].warm
    for name in ("logistic", "gradient_boosting", "all_positive"):
        of = made["models"][name]["rows"]
        assert of["all"]["auc"] == pytest.approx(metrics.auc(labels, said[name]["test"]))
        assert of["warm"]["log_loss"] == pytest.approx(metrics.log_loss(labels[warm], said[name]["test"][warm]))
        assert of["all"]["fpr_at_tpr_95"] == pytest.approx(metrics.fpr_at_tpr(labels, said[name]["test"], 0.95))


def test_intervals_hold_the_figure(made: dict[str, Any]) -> None:
    for model in made["models"].values():
        for figure in FIGURES:
            found = model["intervals"]["all"][figure]
            assert found["low"] <= model["rows"]["all"][figure] <= found["high"], figure
        for figure, found in model["ranking"]["intervals"].items():
            assert found["low"] <= model["ranking"][figure] <= found["high"], figure


def test_paired_differences_are_differences(made: dict[str, Any]) -> None:
    assert len(made["paired"]) == 5 * 3 * len(FIGURES) and len(made["paired_ranking"]) == 5 * 2
    for one in made["paired"]:
        a, b = (made["models"][one[side]]["rows"][one["rows"]][one["metric"]] for side in "ab")
        if a is None:  # of cold rows there are few, all liked
            assert (one["difference"], one["low"], one["high"]) == (None, None, None)
        else:
            assert one["difference"] == pytest.approx(a - b)
            assert one["low"] is None or one["low"] <= one["high"]
            assert one["rows"] != "all" or one["low"] <= one["difference"] <= one["high"]
    for one in made["paired_ranking"]:
        a, b = (made["models"][one[side]]["ranking"][one["metric"]] for side in "ab")
        assert one["difference"] == pytest.approx(a - b)
        assert one["low"] <= one["difference"] <= one["high"]


def test_who_knows_nothing_ranks_by_chance(made: dict[str, Any], splits: dict[str, TrainingRows]) -> None:
    """All places of one probability: ten of those that are left are found, whichever they are."""
    ranked = made["models"]["all_positive"]["ranking"]
    wishes = wishes_of(splits, 20, 7)
    left = len(wishes.businesses) - wishes.seen.sum(axis=1)
    assert ranked["recall_at_10"] == pytest.approx(np.minimum(10 / left, 1).mean())
    assert (ranked["users"], ranked["candidates"]) == (len(wishes.users), len(wishes.businesses))


def test_ablation_is_against_numbers_alone(made: dict[str, Any]) -> None:
    rows = {row["name"]: row for row in made["ablation"]}
    assert list(rows) == list(GROUPS)
    assert rows["numbers"]["difference"] == {"auc": 0.0, "low": 0.0, "high": 0.0}
    for row in rows.values():
        assert row["networks"] == 2 and "no_data" not in row
        assert row["difference"]["auc"] == pytest.approx(row["auc"] - rows["numbers"]["auc"])
        # log loss is convex: the mean of networks is no worse than they are in the mean
        assert row["validation_log_loss_of_mean"] <= row["validation_log_loss"]
    for name in compare.NETWORKS:
        seeds = [seed["auc"] for seed in made["models"][name]["seeds"]]
        assert rows[name]["auc"] == pytest.approx(np.mean(seeds))
        for floor, its in rows[name]["against"].items():
            of_mean = made["models"][name]["rows"]["all"]["auc"] - made["models"][floor]["rows"]["all"]["auc"]
            assert its["auc"] == pytest.approx(of_mean)


def test_whatever_selection_says(workspace: Workspace, params: Params, made: dict[str, Any]) -> None:
    """The paper's selection looks at the test set; here nothing does."""
    other = params.model_copy(update={"selection": "paper", "model": "baseline"})
    again = run(workspace, cached_in(workspace.root / "another cache", other), "again")
    assert again.read_bytes() == (workspace.root / "results/paper/compare.json").read_bytes()


def test_what_is_trained_is_not_trained_again(
    workspace: Workspace, params: Params, made: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    kept = {path: path.stat().st_mtime_ns for path in (params.cache.folder() / "compare").iterdir()}
    assert len(kept) == len(GROUPS)
    again = run(workspace, params, "kept")
    assert again.read_bytes() == (workspace.root / "results/paper/compare.json").read_bytes()
    assert f"compare: {len(GROUPS)} of {len(GROUPS)} stacks of networks are done already" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in (params.cache.folder() / "compare").iterdir()} == kept


# Group -> what its columns' names say.
SAYS = {"text": "_text__", "summaries": "_summary__", "tags": "_tags__", "captions": "__caption_", "image": "__image_"}


def vectors_of(variant: Variant) -> list[str]:
    return [name for spaces in variant.vectors.values() for space in spaces for name in space]


def tags_of(variant: Variant) -> list[str]:
    return [*([variant.price_tag] if variant.price_tag else []), *variant.lists.values()]


def test_groups_read_what_they_say() -> None:
    """All that models can read of these kinds, and of no other; each once."""
    readable = {name for name in training_set_schema().names if "__" in name and not name.endswith("_id")}
    for name, (reads, variant) in GROUPS.items():
        expected = {column for column in readable if any(SAYS[part] in column for part in reads if part != "numbers")}
        read = [*vectors_of(variant), *tags_of(variant)]
        assert sorted(read) == sorted(expected), name
        assert set(variant.texts.values()) <= expected
        assert set(variant.texts) == ({"user", "business"} if {"text", "summaries"} & set(reads) else set()), name
    assert set(GROUPS["everything"].reads) == {"numbers", *SAYS}


@pytest.mark.parametrize("taught", ["both labels", "one"])
def test_a_floor_says_the_same_of_pairs_as_of_rows(taught: str) -> None:
    splits = splits_of(3)
    if taught == "one":
        splits["train"].columns["label"] = np.ones_like(splits["train"].labels)
    for name, model in floor_models(splits, 1).items():
        read = {column: splits["test"].columns[column] for column in model.reads}
        assert model.score(read).tobytes() == model.test.tobytes(), name


def test_a_threshold_recommends_what_is_above_it() -> None:
    validation, test = np.array([0] * 40 + [1] * 5, np.int8), np.array([0, 0, 0, 0, 1, 1], np.int8)
    said = np.concatenate([np.arange(40) / 40, np.ones(5)])
    model = Contender(said, np.array([0.1, 0.2, 38 / 40, 0.99, 0.5, 1.0]), {}, [], lambda columns: said)
    found = compare.threshold(validation, test, model, 0.1, 0.05)
    # of 40 negatives the 39th: P(Bin(40, .9) >= 39) = .080, so it must be the highest, 39/40
    assert found == {
        "alpha": 0.1, "delta": 0.05, "threshold": 39 / 40, "negatives": 40, "needed": 29,
        "test_fpr": 0.25, "test_tpr": 0.5,
    }  # fmt: skip
    few = compare.threshold(validation[20:], test, replace(model, validation=said[20:]), 0.1, 0.05)
    assert few | {"alpha": 0, "delta": 0} == {
        "alpha": 0, "delta": 0, "threshold": None, "negatives": 20, "needed": 29, "test_fpr": None, "test_tpr": None,
    }  # fmt: skip


def test_one_class_gives_nulls() -> None:
    splits = splits_of(3)
    splits["test"].columns["label"] = np.ones_like(splits["test"].labels)
    params = argparse.Namespace(seed=1, compare=argparse.Namespace(alpha=0.1, delta=0.05))
    model = compare.of_model(splits, floor_models(splits, 1)["logistic"], params)  # type: ignore[arg-type]
    assert json.dumps(model, allow_nan=False)
    assert model["rows"]["all"]["auc"] is None and model["rows"]["all"]["log_loss"] > 0
    assert model["threshold"]["test_fpr"] is None and model["threshold"]["test_tpr"] > 0
    assert compare.difference(None, 0.5) is None


def test_nobody_to_rank_for_gives_nulls() -> None:
    ranked, differences = compare.rankings(None, 12, {"some": None}, None)  # type: ignore[dict-item, arg-type]
    nothing = {"low": None, "high": None}
    assert ranked["some"] == {
        "ndcg_at_10": None, "recall_at_10": None, "users": 0, "candidates": 12,
        "intervals": {"ndcg_at_10": nothing, "recall_at_10": nothing},
    }  # fmt: skip
    assert differences == []


def test_what_no_train_row_has_is_not_told_from_numbers() -> None:
    """Photos that test rows alone have teach nothing; what has texts or tags beside them is trained all the same."""
    columns = rows_of(whole_table(50, 1)).columns
    assert list(with_data(columns)) == list(GROUPS)
    photos = {name: np.zeros((50, 0), np.float32) for name in columns if name.startswith("business_photos__")}
    assert set(GROUPS) - set(with_data(columns | photos)) == {"numbers+captions", "numbers+image"}
    null = {name: np.full_like(columns[name], np.nan) for name in photos}  # of the width that test's have
    assert with_data(columns | null) == with_data(columns | photos)
    tags = {name: np.full(50, None, object) for name in columns if name.startswith("business_tags__")}
    assert set(GROUPS) - set(with_data(columns | tags)) == {"numbers+tags"}
    blank = nothing_known(TrainingRows(whole_table(50, 1), dict(columns))).columns
    assert list(with_data(blank)) == ["numbers", "proposed", "baseline", "everything"]


def test_an_ablation_without_some_data_says_so() -> None:
    random, users, draws = np.random.default_rng(1), np.arange(60) % 20, draw_users(20, 200, 1)
    labels = {"validation": (np.arange(40) % 3 > 0).astype(np.int8), "test": (np.arange(60) % 3 > 0).astype(np.int8)}
    drawn = {name: {split: random.random((3, len(one))) for split, one in labels.items()} for name in GROUPS}
    floor = random.random(60)
    floors = {"it": Floor(metrics.auc(labels["test"], floor), replicated(labels["test"], floor, users, draws)["auc"])}
    calls: list[None] = []

    def told(said: dict[str, Any]) -> list[dict[str, Any]]:
        calls.clear()
        made = ablation(labels, said, floors, users, draws, 1, lambda: calls.append(None))
        assert len(calls) == bootstraps(said)
        return made

    whole = told(drawn)
    some = told({name: said for name, said in drawn.items() if name != "numbers+captions"})
    null = {"auc": None, "low": None, "high": None}
    for one, other in zip(some, whole, strict=True):
        if one["name"] == "numbers+captions":
            assert one == dict.fromkeys(other) | {
                "name": "numbers+captions", "reads": ["numbers", "captions"], "networks": 0, "no_data": True,
                "difference": null, "against": {"it": null},
            }  # fmt: skip
        else:  # the others are as they would be
            assert one == other
            said = drawn[one["name"]]["validation"]
            of_each = [metrics.log_loss(labels["validation"], network) or 0 for network in said]
            assert one["validation_log_loss"] == pytest.approx(np.mean(of_each))
            of_mean = metrics.log_loss(labels["validation"], said.mean(axis=0))
            assert one["validation_log_loss_of_mean"] == pytest.approx(of_mean)


def test_means_and_spreads_need_all_their_values() -> None:
    assert mean_of([0.1, 0.3]) == pytest.approx(0.2) and spread_of([0.1, 0.3]) == pytest.approx(0.2 / np.sqrt(2))
    assert mean_of([0.1, None]) is None and spread_of([0.1, None]) is None and spread_of([0.1]) is None
