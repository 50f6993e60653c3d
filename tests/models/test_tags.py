import itertools
import json

import numpy as np
import pytest

from models.columns import Unencodable
from models.tags import ListEncoding, OneHotEncoding
from tests.models.by_hand import names

PRICE = OneHotEncoding("price", ("dear", "fair", "none"))
TYPES = ListEncoding("types", ("bar", "cafe", "diner", "grill"), 3)


def test_one_hot_by_hand() -> None:
    encoded = PRICE.encode({"price": names("fair", None, "none")})
    assert encoded.tolist() == [[0, 1, 0], [0, 0, 0], [0, 0, 1]]
    assert encoded.dtype == np.float32


def test_lists_by_hand() -> None:
    encoded = TYPES.encode({"types": names(["diner"], None, [], ["grill", "bar", "cafe"])})
    assert encoded.tolist() == [[2, 4, 4], [4, 4, 4], [4, 4, 4], [0, 1, 3]]
    assert encoded.dtype == np.int64


def test_order_and_repetition_say_nothing() -> None:
    for order in itertools.permutations(["diner", "bar", "grill"]):
        assert TYPES.encode({"types": names([*order, order[0]])}).tolist() == [[0, 2, 3]]


def test_unknown_words_are_refused_by_name() -> None:
    with pytest.raises(Unencodable, match="`price` says 'costly', the model knows dear, fair, none"):
        PRICE.encode({"price": names("fair", "costly")})
    with pytest.raises(Unencodable, match="`types` says 'pub', which is none of the model's 4 names"):
        TYPES.encode({"types": names(["bar"], ["bar", "pub"])})


def test_too_many_are_refused() -> None:
    with pytest.raises(Unencodable, match="`types` has 4 names in a row, the model takes 3"):
        TYPES.encode({"types": names(["bar", "cafe", "diner", "grill"])})


def test_kept_as_json() -> None:
    assert OneHotEncoding.from_json(json.loads(json.dumps(PRICE.to_json()))) == PRICE
    assert ListEncoding.from_json(json.loads(json.dumps(TYPES.to_json()))) == TYPES
