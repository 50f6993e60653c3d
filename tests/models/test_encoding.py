import json

import numpy as np
import pytest

from models.columns import Unencodable
from models.encoding import DenseEncoding, Encoding, dense_numbers
from models.history_numbers import Numbers, used_numbers
from models.variants import VARIANTS
from tests.models.by_hand import columns
from tests.models.networks import encoding_of
from tests.models.training_sets import MODELS, nothing_known, rows_of, table

TEXTS = VARIANTS["baseline"].texts


def test_has_text_is_of_the_variants_own_text() -> None:
    rows = columns(
        user_summary__embedding=np.array([[np.nan], [1.0]], np.float32),
        business_summary__embedding=np.empty((2, 0), np.float32),
    )
    priors = {"user": 3.0, "business": 4.0}
    said = {}
    for model in MODELS:
        numbers = dense_numbers(rows, priors, VARIANTS[model].texts)
        said[model] = [numbers[f"{entity}_has_text"].tolist() for entity in ("user", "business")]
    assert said == {"baseline": [[1, 0], [1, 0]], "proposed": [[0, 1], [0, 0]]}


@pytest.mark.parametrize("numbers", ["paper", "full"])
def test_train_rows_are_standardised_and_null_is_the_mean(numbers: Numbers) -> None:
    rows = rows_of(table(500, 1))
    encoding = DenseEncoding.fit(rows.columns, used_numbers(numbers), TEXTS)
    encoded = encoding.encode(rows.columns)
    assert encoded.shape == (500, len(encoding.names))
    assert encoded.dtype == np.float32
    means = rows.columns["user_history__rating_mean"]
    if numbers == "paper":
        of_means = encoded[:, encoding.names.index("user_mean")]
        assert abs(of_means[~np.isnan(means)].mean()) < 1e-5
        assert abs(of_means[~np.isnan(means)].std() - 1) < 1e-5
        assert (of_means[np.isnan(means)] == 0).all()
    assert np.isfinite(encoding.encode(nothing_known(rows).columns)).all()


def test_a_number_that_train_never_varied_always_says_zero() -> None:
    rows = rows_of(table(50, 1))
    train = {**rows.columns, "user_history__newest_review_at": np.full(50, np.datetime64("NaT"), "datetime64[us]")}
    encoding = DenseEncoding.fit(train, ("user_recency", "user_count"), {})
    later = encoding.encode(rows.columns)
    assert (later[:, 0] == 0).all()
    assert later[:, 1].std() > 0.5


@pytest.mark.parametrize(
    ("model", "numbers", "shapes"),
    [
        ("baseline", "full", {"dense": 14, "text": 2 * 12 + 20 + 3}),
        ("baseline", "paper", {"dense": 3, "text": 2 * 12 + 20 + 3}),
        ("proposed", "full", {"dense": 14 + 4, "category": 11, "text": 2 * 12 + 2, "caption": 12 + 1}),
        ("proposed", "paper", {"dense": 3 + 4, "category": 11, "text": 2 * 12 + 2, "caption": 12 + 1}),
    ],
)
def test_shapes_types_and_order_of_both_variants(model: str, numbers: Numbers, shapes: dict[str, int]) -> None:
    rows = rows_of(table(50, 1, model)).columns
    made = encoding_of(model, rows, numbers).encode(rows)
    assert list(made) == list(shapes)
    for name, width in shapes.items():
        assert made[name].shape == (50, width)
        assert made[name].dtype == (np.int64 if name == "category" else np.float32)
        assert np.isfinite(made[name]).all()
        assert made[name].std() > 0


@pytest.mark.parametrize("model", MODELS)
def test_what_other_rows_say_changes_no_row(model: str) -> None:
    rows = rows_of(table(80, 1, model)).columns
    encoding = encoding_of(model, rows)
    half = encoding.encode({name: column[:40] for name, column in rows.items()})
    for name, whole in encoding.encode(rows).items():
        assert (half[name] == whole[:40]).all()


@pytest.mark.parametrize("model", MODELS)
def test_it_reads_the_columns_that_it_names_and_no_other(model: str) -> None:
    rows = rows_of(table(30, 1, model)).columns
    encoding = encoding_of(model, rows)
    assert {*encoding.columns, "label"} == set(rows)
    encoding.encode({name: rows[name] for name in encoding.columns})
    for name in encoding.columns:
        with pytest.raises(Unencodable, match=rf"the model reads \['{name}'\], which the rows lack"):
            encoding.encode({other: column for other, column in rows.items() if other != name})


@pytest.mark.parametrize("model", MODELS)
def test_kept_as_json_to_the_bit_in_the_fields_order(model: str) -> None:
    rows = rows_of(table(300, 5, model)).columns
    encoding = encoding_of(model, rows)
    again = Encoding.from_json(json.loads(json.dumps(encoding.to_json(), sort_keys=True)))
    made = again.encode(rows)
    assert list(made) == list(encoding.encode(rows))
    for name, array in encoding.encode(rows).items():
        assert made[name].tobytes() == array.tobytes()
