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
from tests.serving.conftest import END, START, ServedWorld

SQLITE = "  type: sqlite\n  path: ../data/feast/online.db\n"


def move_to_redis(world: ServedWorld, address: str) -> None:
    name_redis(world, address)
    materialize(world)


def name_redis(world: ServedWorld, address: str) -> None:
    """What feature_store.yaml tells users to do: its three commented lines in place of the two."""
    settings = world.repo / "feature_store.yaml"
    text = settings.read_text()
    assert SQLITE in text
    text = text.replace(SQLITE, "")
    for line in ("  type: redis", "  connection_string: ${MMREC_REDIS}", "  skip_dedup: true"):
        assert f"\n#{line}\n" in text
        text = text.replace(f"\n#{line}\n", f"\n{line}\n")
    settings.write_text(text.replace("${MMREC_REDIS}", address))


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
