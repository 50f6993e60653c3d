import numpy as np
import pytest

from models.columns import Unencodable
from models.history_numbers import COLUMNS, history_numbers, used_numbers
from tests.models.by_hand import columns


def test_history_numbers_by_hand() -> None:
    numbers = history_numbers({name: columns()[name] for name in COLUMNS}, {"user": 3.0, "business": 4.0})
    nan = np.nan
    expected = {
        "user_count": [np.log(4), 0],
        "user_mean": [5, nan],
        "user_shrunk_mean": [(3 * 5 + 5 * 3) / 8, 3],
        "user_std": [0.5, nan],
        "user_trend": [-0.25, nan],
        "user_recency": [np.log(11), nan],
        "user_is_known": [1, 0],
        "business_shrunk_mean": [(3 * 5 + 5 * 4) / 8, 4],
    }
    for name, values in expected.items():
        np.testing.assert_allclose(numbers[name], values, err_msg=name)


def test_a_review_of_the_future_is_refused() -> None:
    future = columns(user_history__newest_review_at=np.array(["2019-01-11T00:00:00.000001", "NaT"], "datetime64[us]"))
    with pytest.raises(Unencodable, match=r"row 0: the newest visible review, 2019-01-11T00:00:00.*, is after"):
        history_numbers(future, {"user": 3.0, "business": 4.0})


def test_paper_means_the_papers_three_numbers() -> None:
    assert used_numbers("paper") == ("business_count", "user_mean", "business_mean")
    assert set(used_numbers("full")) >= {"user_count", "business_recency", "user_is_known", "business_has_text"}
