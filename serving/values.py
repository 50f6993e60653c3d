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
    if pa.types.is_list(type_) and pa.types.is_floating(type_.value_type):
        return vectors(type_, values)
    parsed = [None if value is None else Value.FromString(value) for value in values]
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


def vectors(type_: pa.DataType, values: Sequence[bytes | None]) -> pa.Array:
    """Lists of floats, taken from the message's bytes: a Python object a number would take ten times as long."""
    heads: dict[int, bytes] = {}  # bytes of a value -> what stands before its numbers, the same for all such values
    parts: list[np.ndarray | None] = []
    for value in values:
        if value is None:
            parts.append(None)
            continue
        head = heads.get(len(value))
        if head is None or not value.startswith(head):
            message = Value.FromString(value)
            kind = message.WhichOneof("val")
            if kind is None:
                parts.append(None)
                continue
            if kind != "float_list_val":
                raise TypeError(f"a {kind} where a list of floats was expected")
            # The list is its message's one field, packed, and the message the value's: its numbers come last.
            head = heads[len(value)] = value[: len(value) - 4 * len(message.float_list_val.val)]
        parts.append(np.frombuffer(value, "<f4", offset=len(head)) if len(head) < len(value) else np.zeros(0, "<f4"))
    null = np.array([part is None for part in parts], np.bool_)
    known = [np.zeros(0, np.float32) if part is None else part for part in parts]
    offsets = np.zeros(len(parts) + 1, np.int32)
    np.cumsum([len(part) for part in known], out=offsets[1:])
    flat = pa.array(np.concatenate([np.zeros(0, np.float32), *known]), type_.value_type)
    return pa.ListArray.from_arrays(pa.array(offsets), flat, type=type_, mask=pa.array(null))
