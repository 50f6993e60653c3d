import numpy as np
import pytest

from models.floors import Boosting, Floor, fitted_floors, floors, gradient_boosting
from models.metrics import auc
from pipelines.core.training_rows import TrainingRows
from tests.models.training_sets import MODELS, nothing_known, splits_of

JUDGED = ("validation", "test")


def of(splits: dict[str, TrainingRows]) -> dict[str, dict[str, np.ndarray]]:
    columns = {split: rows.columns for split, rows in splits.items()}
    return floors(columns, {split: rows.labels for split, rows in splits.items()}, JUDGED, seed=1)


@pytest.mark.parametrize("model", MODELS)
def test_learners_rank_and_the_constant_does_not(model: str) -> None:
    splits = splits_of(3, (1500, 400, 400), model)
    made = of(splits)
    labels = splits["test"].labels
    assert auc(labels, made["all_positive"]["test"]) == 0.5
    assert made["all_positive"]["test"][0] == splits["train"].labels.mean()
    for name in ("logistic", "gradient_boosting"):
        assert (auc(labels, made[name]["test"]) or 0) > 0.65, name


def test_history_numbers_alone_are_read() -> None:
    splits = splits_of(3)
    bare = {
        split: TrainingRows(rows.table, {name: column for name, column in rows.columns.items() if column.ndim == 1})
        for split, rows in splits.items()
    }
    for name, said in of(splits).items():
        assert of(bare)[name]["test"].tobytes() == said["test"].tobytes()


def test_the_same_again() -> None:
    for name, said in of(splits_of(3)).items():
        for split, probabilities in of(splits_of(3))[name].items():
            assert probabilities.tobytes() == said[split].tobytes()


def test_test_rows_are_not_looked_at() -> None:
    splits = splits_of(3)
    other = splits | {"test": splits_of(9)["test"]}
    for name, said in of(splits).items():
        assert of(other)[name]["validation"].tobytes() == said["validation"].tobytes()


def test_a_history_that_no_one_has() -> None:
    splits = {split: nothing_known(rows) for split, rows in splits_of(3).items()}
    share = splits["train"].labels.mean()
    for said in of(splits).values():
        assert said["test"] == pytest.approx(share, abs=1e-3)


def test_a_number_that_train_lacks_altogether() -> None:
    """Leave-one-out knows no recency; scikit-learn cannot bin a column without values."""
    splits = splits_of(3)
    name = "user_history__newest_review_at"
    columns = {
        split: {**rows.columns, name: np.full_like(rows.columns[name], np.datetime64("NaT"))}
        for split, rows in splits.items()
    }
    labels = {split: rows.labels for split, rows in splits.items()}
    assert np.isfinite(gradient_boosting(columns, labels, JUDGED, 1)["test"]).all()


@pytest.mark.parametrize("split", ["train", "validation"])
def test_one_label_alone(split: str) -> None:
    splits = splits_of(3)
    splits[split].columns["label"] = np.ones_like(splits[split].labels)
    for said in of(splits).values():
        assert np.isfinite(said["test"]).all()


def test_fitted_once_says_of_a_part_what_it_says_of_all() -> None:
    splits = splits_of(3)
    columns = {split: rows.columns for split, rows in splits.items()}
    fitted = fitted_floors(columns, {split: rows.labels for split, rows in splits.items()}, seed=1)
    assert isinstance(fitted["gradient_boosting"], Boosting)
    for name, floor in fitted.items():
        parts = [
            floor.probabilities({column: values[some] for column, values in columns["test"].items()})
            for some in (slice(0, 1), slice(1, 70), slice(70, None))
        ]
        assert {part.dtype for part in parts} == {np.dtype(np.float64)}
        assert np.concatenate(parts).tobytes() == of(splits)[name]["test"].tobytes()


@pytest.mark.parametrize("taught", ["nothing known", "one label"])
def test_who_could_learn_nothing_says_the_share(taught: str) -> None:
    splits = splits_of(3)
    if taught == "one label":
        splits["train"].columns["label"] = np.ones_like(splits["train"].labels)
    else:
        splits["train"] = nothing_known(splits["train"])
    columns = {split: rows.columns for split, rows in splits.items()}
    fitted: dict[str, Floor] = fitted_floors(columns, {split: rows.labels for split, rows in splits.items()}, seed=1)
    share = splits["train"].labels.mean()
    assert (fitted["gradient_boosting"].probabilities(columns["test"]) == share).all()
    assert len(fitted["all_positive"].probabilities(columns["test"])) == len(splits["test"].labels)
