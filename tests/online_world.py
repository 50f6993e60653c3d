"""A small world with a trained model whose features may be brought online, in SQLite or in a real Redis."""

import argparse
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from feast import FeatureStore
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.type_map import python_values_to_proto_values

from pipelines import evaluate, materialize, parity, reduce, register, train
from pipelines.core.params import Params
from pipelines.core.tables import VIEWS_OF_STAGE
from pipelines.register import open_store
from serving.rows import RowReader, open_reader
from tests.expectations.world import make_world
from tests.params import ROOT, params_with

QUICK = {
    "reduce__epochs": 2,
    "reduce__batch_size": 64,
    "train__epochs": 3,
    "train__batch_size": 64,
}
STAGE_OF_VIEW = {view: stage for stage, views in VIEWS_OF_STAGE.items() for view in views}


@dataclass(frozen=True)
class OnlineWorld:
    """Laid out as a workspace is; 24 users u00…, 10 businesses b0… (tests/expectations/world.py)."""

    root: Path
    params: Params

    @property
    def repo(self) -> Path:
        return self.root / "feature_repo"

    @property
    def database(self) -> Path:
        return self.root / "data/feast/online.db"

    def table(self, view: str) -> Path:
        return self.root / "data/features" / STAGE_OF_VIEW[view] / f"{view}.parquet"

    def paths(self, stage: str) -> argparse.Namespace:
        results, data = self.root / "results", self.root / "data"
        reports = {"materialize": results / "materialized.json", "parity": results / "parity.json"}
        return argparse.Namespace(
            repo=self.repo,
            registry=results / "registry.json",
            dump=results / "registry.json",
            model=data / "model/model.safetensors",
            training_set=data / "training_set",
            reducer=data / "reducer.safetensors",
            live=results / "training",
            metrics=results / "metrics.json",
            predictions=results / "predictions/test.parquet",
            plots=results / "plots",
            report=reports.get(stage),
            details=results / "parity_details.json",
            out={"reduce": data / "reducer.safetensors", "train": data / "model/model.safetensors"}.get(stage),
        )

    def materialize(self) -> dict[str, Any]:
        """The stage, and its report."""
        materialize.main(self.paths("materialize"), self.params)
        return read_json(self.paths("materialize").report)

    def parity(self) -> dict[str, Any]:
        parity.main(self.paths("parity"), self.params)
        return self.parity_report()

    def parity_report(self) -> dict[str, Any]:
        """Its figures, and what stands beside them."""
        paths = self.paths("parity")
        return read_json(paths.report) | read_json(paths.details)

    def store(self) -> FeatureStore:
        return open_store(self.repo)

    def reader(self) -> RowReader:
        return open_reader(self.store())

    def ids(self, view: str) -> set[str]:
        """Who is online."""
        return {one for block in self.reader().ids(view) for one in block}

    def newest_row(self, view: str, entity_id: str) -> dict[str, Any]:
        """The last one of the view's table."""
        table = pq.read_table(self.table(view))
        rows = [row for row in table.to_pylist() if row[table.column_names[0]] == entity_id]
        return max(rows, key=lambda row: row["event_timestamp"])

    def write_online(self, view: str, entity_id: str, values: Mapping[str, Any]) -> None:
        """By Feast's own interface: the entity's newest row with these values in it, and no other entity's."""
        store = self.store()
        definition = store.get_feature_view(view)
        row = self.newest_row(view, entity_id) | values if entity_id in self.offline_ids(view) else values
        protos = {
            field.name: python_values_to_proto_values([row[field.name]], field.dtype.to_value_type())[0]
            for field in definition.features
        }
        key = EntityKey(join_keys=definition.join_keys, entity_values=[Value(string_val=entity_id)])
        instant = row.get("event_timestamp", datetime(2020, 1, 1, tzinfo=UTC))
        store.provider.online_store.online_write_batch(
            store.config, definition, [(key, protos, instant, None)], progress=None
        )

    def offline_ids(self, view: str) -> set[str]:
        return set(pq.read_table(self.table(view)).column(0).to_pylist())

    def rewrite(self, view: str, table: pa.Table) -> None:
        pq.write_table(table, self.table(view))

    def copied(self, to: Path) -> "OnlineWorld":
        return OnlineWorld(Path(shutil.copytree(self.root, to)), self.params)


def make_online_world(root: Path, **changes: Any) -> OnlineWorld:
    """All that stands when materialize begins: features, a registry, a model of a few epochs, and its predictions."""
    root.mkdir(parents=True)
    params = params_with(root, **QUICK, **changes)
    world = OnlineWorld(root, params)
    make_world(root / "data", params)
    shutil.copytree(ROOT / "feature_repo", world.repo, ignore=shutil.ignore_patterns("__pycache__"))
    for stage in (register, reduce, train, evaluate):
        stage.main(world.paths(stage.__name__.removeprefix("pipelines.")), params)
    return world


SQLITE = "  type: sqlite\n  path: ../data/feast/online.db\n"
REDIS = "  type: redis\n  connection_string: ${MMREC_REDIS}\n  skip_dedup: true\n"


def switch_to_redis(repo: Path, **settings: Any) -> None:
    """As feature_store.yaml says it is done: its own commented lines in place of SQLite's; then these settings."""
    file = repo / "feature_store.yaml"
    text = file.read_text()
    commented = REDIS.replace("  ", "#  ")
    assert SQLITE in text and commented in text, "feature_store.yaml shows Redis's lines otherwise"
    file.write_text(text.replace(SQLITE, "").replace(commented, REDIS))
    if settings:
        raw = yaml.safe_load(file.read_text())
        raw["online_store"] |= settings
        file.write_text(yaml.safe_dump(raw))


def read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())
