"""Values through Feast's own conversion and back, bit for bit."""

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest
from feast.type_map import python_values_to_proto_values
from feast.types import Array, Float32, Float64, Int64, String, UnixTimestamp, from_feast_to_pyarrow_type
from hypothesis import given
from hypothesis import strategies as st

from serving.values import arrow

float32 = st.floats(width=32, allow_nan=False)
KINDS = {
    "counts": (Int64, st.integers(-(2**62), 2**62)),
    "numbers": (Float64, st.floats(allow_nan=False)),
    "names": (String, st.text()),
    "lists of names": (Array(String), st.lists(st.text())),
    "instants": (
        UnixTimestamp,
        st.datetimes(datetime(1960, 1, 1), datetime(2100, 1, 1)).map(lambda at: at.replace(microsecond=0, tzinfo=UTC)),
    ),
    "vectors": (Array(Float32), st.lists(float32, max_size=200).map(lambda held: np.array(held, np.float32))),
}


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_there_and_back(kind: str, data: st.DataObject) -> None:
    type_, values = KINDS[kind]
    held = data.draw(st.lists(st.none() | values, max_size=6))
    protos = [python_values_to_proto_values([value], type_.to_value_type())[0] for value in held]
    made = arrow(from_feast_to_pyarrow_type(type_), [proto.SerializeToString() for proto in protos])
    assert made.type == from_feast_to_pyarrow_type(type_)
    if kind == "vectors":
        back = [None if not value.is_valid else value.values.to_numpy().tobytes() for value in made]
        assert back == [None if value is None else value.tobytes() for value in held]
    elif kind == "numbers":
        assert [value and np.float64(value).tobytes() for value in made.to_pylist()] == [
            value and np.float64(value).tobytes() for value in held
        ]
    else:
        assert made.to_pylist() == held


def test_what_the_store_lacks_is_null() -> None:
    for type_ in (pa.int64(), pa.float64(), pa.string(), pa.list_(pa.string()), pa.list_(pa.float32())):
        assert arrow(type_, [None, b""]).null_count == 2
        assert len(arrow(type_, [])) == 0
