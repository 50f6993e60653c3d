"""What Feast wrote of a feature, back to what it was."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from feast.protos.feast.types.Value_pb2 import Value
from feast.type_map import NULL_TIMESTAMP_INT_VALUE


def arrow(type_: pa.DataType, values: Sequence[bytes | None]) -> pa.Array:
    """Serialized `Value`s (N) to an array (N,) of the feature's type; null where Feast has none, or says so.

    Online, a null instant is a number of Feast's own, and instants are in whole seconds.
    """
    parsed = [None if value is None else Value.FromString(value) for value in values]
    if pa.types.is_list(type_) and pa.types.is_floating(type_.value_type):
        return vectors(type_, parsed)
    found = [None if value is None else plain(value) for value in parsed]
    if pa.types.is_timestamp(type_):
        seconds = [None if value == NULL_TIMESTAMP_INT_VALUE else value for value in found]
        return pa.array(seconds, pa.int64()).cast(pa.timestamp("s", tz="UTC")).cast(type_)
    return pa.array(found, type_)


def plain(value: Value) -> object:
    kind = value.WhichOneof("val")
    if kind is None:
        return None
    held = getattr(value, kind)
    return list(held.val) if kind.endswith("_list_val") else held


def vectors(type_: pa.DataType, values: Sequence[Value | None]) -> pa.Array:
    """Lists of floats, taken from the message's bytes: a Python object a number would take ten times as long."""
    null = np.array([value is None or value.WhichOneof("val") is None for value in values], np.bool_)
    parts = [
        np.zeros(0, np.float32) if value is None or none else floats_of(value)
        for value, none in zip(values, null, strict=True)
    ]
    offsets = np.zeros(len(parts) + 1, np.int32)
    np.cumsum([len(part) for part in parts], out=offsets[1:])
    flat = pa.array(np.concatenate([np.zeros(0, np.float32), *parts]), type_.value_type)
    return pa.ListArray.from_arrays(pa.array(offsets), flat, type=type_, mask=pa.array(null))


def floats_of(value: Value) -> np.ndarray:
    """float32 (W,). The list is its message's one field, packed: the last four bytes a number."""
    message = value.float_list_val
    count = len(message.val)
    encoded = message.SerializeToString()
    return np.frombuffer(encoded, "<f4", count, len(encoded) - 4 * count)
