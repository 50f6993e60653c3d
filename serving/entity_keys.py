"""Entities' ids as the online stores key them."""

from functools import lru_cache
from typing import TYPE_CHECKING

from feast.infra.key_encoding_utils import deserialize_entity_key, serialize_entity_key
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value

if TYPE_CHECKING:
    from feast import FeatureStore

REMEMBERED = 50_000  # serialized keys: a request's 500 candidates would take a millisecond and a half


class EntityKeys:
    """Ids to keys and back, for the one join key that each of our views has."""

    def __init__(self, store: "FeatureStore") -> None:
        self._version = store.config.entity_key_serialization_version
        self._joins = {view.name: view.join_keys[0] for view in store.list_feature_views()}
        self.key = lru_cache(REMEMBERED)(self._key)

    def join_key(self, view: str) -> str:
        return self._joins[view]

    def proto(self, join_key: str, entity_id: str) -> EntityKey:
        return EntityKey(join_keys=[join_key], entity_values=[Value(string_val=entity_id)])

    def _key(self, join_key: str, entity_id: str) -> bytes:
        return serialize_entity_key(self.proto(join_key, entity_id), entity_key_serialization_version=self._version)

    def entity_id(self, key: bytes) -> str:
        return deserialize_entity_key(key, entity_key_serialization_version=self._version).entity_values[0].string_val
