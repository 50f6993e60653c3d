import json

import numpy as np
import pytest

from models.encoding import DenseEncoding, Numbers, TextEncoding, history_numbers, used_numbers
from tests.models.training_sets import nothing_known, rows_of, table


def columns(**changes: np.ndarray) -> dict[str, np.ndarray]:
    """Two rows: one whose user and business are known, one cold."""
    day = np.array(["2019-01-11", "2019-01-11"], "datetime64[us]")
    made: dict[str, np.ndarray] = {"event_timestamp": day}
    for entity in ("user", "business"):
        made |= {
            f"{entity}_history__review_count": np.array([3, 0]),
            f"{entity}_history__rating_mean": np.array([5.0, np.nan]),
            f"{entity}_history__rating_std": np.array([0.5, np.nan]),
            f"{entity}_history__rating_trend": np.array([-0.25, np.nan]),
            f"{entity}_history__newest_review_at": np.array(["2019-01-01", "NaT"], "datetime64[us]"),
            f"{entity}_text__embedding": np.array([[3.0, 4.0], [np.nan, np.nan]], np.float32),
        }
    return made | changes


def test_history_numbers_by_hand() -> None:
    numbers = history_numbers(columns(), {"user": 3.0, "business": 4.0})
    nan = np.nan
    expected = {
        "user_count": [np.log(4), 0],
        "user_mean": [5, nan],
        "user_shrunk_mean": [(3 * 5 + 5 * 3) / 8, 3],
        "user_std": [0.5, nan],
        "user_trend": [-0.25, nan],
        "user_recency": [np.log(11), nan],
        "user_is_known": [1, 0],
        "user_has_text": [1, 0],
        "business_shrunk_mean": [(3 * 5 + 5 * 4) / 8, 4],
    }
    for name, values in expected.items():
        np.testing.assert_allclose(numbers[name], values, err_msg=name)


def test_a_review_of_the_future_is_refused() -> None:
    future = columns(user_history__newest_review_at=np.array(["2019-01-11T00:00:00.000001", "NaT"], "datetime64[us]"))
    with pytest.raises(ValueError, match=r"row 0: the newest visible review, 2019-01-11T00:00:00.*, is after"):
        history_numbers(future, {"user": 3.0, "business": 4.0})


def test_paper_means_the_papers_three_numbers() -> None:
    assert used_numbers("paper") == ("business_count", "user_mean", "business_mean")
    assert set(used_numbers("full")) >= {"user_count", "business_recency", "user_is_known", "business_has_text"}


@pytest.mark.parametrize("numbers", ["paper", "full"])
def test_train_rows_are_standardised_and_null_is_the_mean(numbers: Numbers) -> None:
    rows = rows_of(table(500, 1))
    encoding = DenseEncoding.fit(rows.columns, used_numbers(numbers))
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
    encoding = DenseEncoding.fit(train, ("user_recency", "user_count"))
    later = encoding.encode(rows.columns)
    assert (later[:, 0] == 0).all()
    assert later[:, 1].std() > 0.5


def test_what_other_rows_say_changes_no_row() -> None:
    rows = rows_of(table(80, 1))
    half = {name: column[:40] for name, column in rows.columns.items()}
    dense, text = DenseEncoding.fit(rows.columns, used_numbers("full")), TextEncoding.fit(rows.columns)
    for encoding in (dense, text):
        assert (encoding.encode(half) == encoding.encode(rows.columns)[:40]).all()


def test_text_by_hand() -> None:
    train = columns(
        user_text__embedding=np.array([[1.0, 0.0], [3.0, 0.0]], np.float32),
        business_text__embedding=np.array([[np.nan, np.nan], [7.0, 7.0]], np.float32),
    )
    encoding = TextEncoding.fit(train)
    # centred: users (-1, 0) and (1, 0), the one business (0, 0): root mean square of six numbers is sqrt(2/6)
    scale = 3**0.5
    expected = [[-scale, 0, 0, 0, 1, 0], [scale, 0, 0, 0, 1, 1]]
    np.testing.assert_allclose(encoding.encode(train), expected, rtol=1e-6)


def test_text_of_another_width_is_refused() -> None:
    encoding = TextEncoding.fit(columns())
    wide = columns(user_text__embedding=np.zeros((2, 3), np.float32))
    with pytest.raises(ValueError, match="`user_text__embedding` is 3 wide, the model wants 2"):
        encoding.encode(wide)


def test_nobody_has_a_text() -> None:
    none = np.empty((2, 0), np.float32)
    train = columns(user_text__embedding=none, business_text__embedding=none)
    encoding = TextEncoding.fit(train)
    assert encoding.width == 2
    assert (encoding.encode(train) == 0).all()
    assert TextEncoding.from_json(encoding.to_json()).width == 2


def test_kept_as_json_to_the_bit() -> None:
    rows = rows_of(table(300, 5))
    for encoding in (DenseEncoding.fit(rows.columns, used_numbers("full")), TextEncoding.fit(rows.columns)):
        again = type(encoding).from_json(json.loads(json.dumps(encoding.to_json())))
        assert (again.encode(rows.columns) == encoding.encode(rows.columns)).all()
