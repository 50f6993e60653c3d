import json

import numpy as np
import pytest

from models.columns import Unencodable
from models.vectors import VectorEncoding
from tests.models.by_hand import columns
from tests.models.training_sets import rows_of, table

TEXTS = ("user_text__embedding", "business_text__embedding")
IMAGE = "business_photos__image_embedding"
SPACES = (TEXTS, (IMAGE,))


def test_by_hand() -> None:
    train = columns(
        user_text__embedding=np.array([[1.0, 0.0], [3.0, 0.0]], np.float32),
        business_text__embedding=np.array([[np.nan, np.nan], [7.0, 7.0]], np.float32),
        business_photos__image_embedding=np.array([[10.0], [30.0]], np.float32),
    )
    encoding = VectorEncoding.fit(train, SPACES)
    # centred: users (-1, 0) and (1, 0), the one business (0, 0): root mean square of six numbers is sqrt(2/6);
    # the image's own is 10
    scale = 3**0.5
    expected = [[-scale, 0, 0, 0, -1, 1, 0, 1], [scale, 0, 0, 0, 1, 1, 1, 1]]
    assert encoding.width == 8
    np.testing.assert_allclose(encoding.encode(train), expected, rtol=1e-6)


def test_blocks_change_nothing_and_null_is_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = rows_of(table(300, 5)).columns
    whole = VectorEncoding.fit(rows, SPACES)
    monkeypatch.setattr("models.vectors.BLOCK", 7)
    assert VectorEncoding.fit(rows, SPACES).scales == pytest.approx(whole.scales, rel=1e-12)
    encoded = whole.encode(rows)
    assert encoded.dtype == np.float32
    assert np.isfinite(encoded).all()
    null = np.isnan(rows[IMAGE][:, 0])
    images = encoded[:, 24:44]
    assert (images[null] == 0).all()
    assert images[~null].std() == pytest.approx(1, rel=1e-5)
    assert (encoded[:, -1] == ~null).all()


@pytest.mark.parametrize("name", [TEXTS[0], IMAGE])
def test_another_width_is_refused_by_name(name: str) -> None:
    rows = rows_of(table(30, 1)).columns
    encoding = VectorEncoding.fit(rows, SPACES)
    width = rows[name].shape[1]
    with pytest.raises(Unencodable, match=f"`{name}` is {width + 1} wide, the model wants {width}"):
        encoding.encode({**rows, name: np.zeros((30, width + 1), np.float32)})


def test_nobody_has_one() -> None:
    none = np.empty((2, 0), np.float32)
    train = columns(user_text__embedding=none, business_text__embedding=none)
    encoding = VectorEncoding.fit(train, (TEXTS,))
    assert encoding.width == 2
    assert (encoding.encode(train) == 0).all()
    assert VectorEncoding.from_json(encoding.to_json()).width == 2


def test_what_train_never_had_says_nothing_later() -> None:
    rows = rows_of(table(40, 1)).columns
    null = np.full_like(rows[IMAGE], np.nan)
    for without in (null, null[:, :0]):
        encoding = VectorEncoding.fit({**rows, IMAGE: without}, SPACES)
        assert encoding.width == 24 + 3
        assert (encoding.encode(rows)[:, 26] == 0).all()
        assert (encoding.encode(rows) == encoding.encode({**rows, IMAGE: without})).all()


def test_a_column_of_nulls_alone_need_not_know_its_width() -> None:
    rows = rows_of(table(40, 1)).columns
    encoding = VectorEncoding.fit(rows, SPACES)
    null = np.full_like(rows[IMAGE], np.nan)
    said = encoding.encode({**rows, IMAGE: null[:, :0]})
    assert (said == encoding.encode({**rows, IMAGE: null})).all()
    assert (said[:, 24:44] == 0).all()


def test_kept_as_json_to_the_bit() -> None:
    rows = rows_of(table(300, 5)).columns
    encoding = VectorEncoding.fit(rows, SPACES)
    again = VectorEncoding.from_json(json.loads(json.dumps(encoding.to_json())))
    assert (again.encode(rows) == encoding.encode(rows)).all()
