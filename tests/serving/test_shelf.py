"""The shelf beside the obvious: encode what the store holds, every time."""

from datetime import datetime

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from serving.rows import RawRow, Stamp
from serving.shelf import Raw, Shelf

IDS = st.sampled_from("abcdefgh")


def instant_of(stamp: Stamp) -> datetime:
    raise AssertionError("nobody asks")


def row(value: int) -> Raw:
    return RawRow(0, (bytes([value]),), instant_of), None


def encoded(rows: list[Raw]) -> dict[str, np.ndarray]:
    values = np.array([row[0].values[0][0] for row in rows], np.float64)  # type: ignore[union-attr,index]
    return {"one": values, "two": np.stack([values, -values], axis=1)}


@given(
    most=st.integers(0, 10),
    versioned=st.booleans(),
    steps=st.lists(
        st.tuples(st.dictionaries(IDS, st.integers(0, 3), max_size=3), st.lists(IDS, min_size=1, max_size=8)),
        max_size=12,
    ),
)
def test_what_is_taken_is_what_the_store_holds(
    most: int, versioned: bool, steps: list[tuple[dict[str, int], list[str]]]
) -> None:
    """`steps`: what is written to the store, and who is asked for then."""
    store = dict.fromkeys("abcdefgh", 0)
    shelf, version = Shelf(most), 0
    for written, asked in steps:
        store |= written
        version += bool(written)
        seen = version if versioned else None
        ids = list(dict.fromkeys(asked))
        unsure = shelf.unsure(ids, seen)
        shelf.put(unsure, [row(store[one]) for one in unsure], seen, encoded)
        taken = shelf.take(asked)
        if taken is None:  # it was emptied to make room
            assert len(unsure) < len(ids)
            shelf.put(ids, [row(store[one]) for one in ids], seen, encoded)
            taken = shelf.take(asked)
        assert taken is not None
        expected = encoded([row(store[one]) for one in asked])
        assert taken.keys() == expected.keys()
        for name, values in expected.items():
            assert (taken[name] == values).all()


def test_what_has_not_changed_is_not_encoded_again() -> None:
    shelf = Shelf(10)
    assert shelf.put(["a", "b"], [row(1), row(2)], None, encoded) == 2
    assert shelf.put(["a", "b"], [row(1), row(3)], None, encoded) == 1
    assert shelf.put(["a", "b"], [row(1), row(3)], None, encoded) == 0
    taken = shelf.take(["b", "a", "b"])
    assert taken is not None and taken["one"].tolist() == [3, 1, 3]
    assert shelf.take(["a", "c"]) is None
