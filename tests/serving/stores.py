"""The same world on each online store, and single values changed in it as anyone would who writes through Feast."""

import contextlib
import io
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from feast import FeatureStore
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.type_map import python_values_to_proto_values

from serving.ranker import open_store
from tests.online_world import switch_to_redis
from tests.serving.conftest import END, START, ServedWorld


def move_to_redis(world: ServedWorld, address: str) -> None:
    name_redis(world, address)
    materialize(world)


def name_redis(world: ServedWorld, address: str) -> None:
    switch_to_redis(world.repo, connection_string=address)


def materialize(world: ServedWorld) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        open_store(world.repo).materialize(START, END)


def write_row(store: FeatureStore, view: str, entity_id: str, values: Mapping[str, Any], instant: datetime) -> None:
    """One online row, whole; features that `values` does not name become null."""
    feature_view = store.get_feature_view(view)
    protos = {
        field.name: python_values_to_proto_values([values.get(field.name)], field.dtype.to_value_type())[0]
        for field in feature_view.features
    }
    key = EntityKey(join_keys=feature_view.join_keys, entity_values=[Value(string_val=entity_id)])
    store.provider.online_write_batch(store.config, feature_view, [(key, protos, instant, None)], None)
