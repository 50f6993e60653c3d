"""Feast's duckdb offline store, with DuckDB's ASOF JOIN for historical features.

Feast's store joins every earlier feature row of a key to an entity row and keeps the newest: its cost grows with the
square of a key's rows. An ASOF JOIN finds the newest at once (benchmarks/asof_store.py measures both). What it cannot
express - on-demand views, sources other than local Parquet, a cut by created timestamp - goes to Feast's own.
"""

import copy
import warnings
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

import ibis
import ibis.expr.types as ir
import numpy as np
import pandas as pd
import pyarrow as pa
from feast.data_format import ParquetFormat
from feast.data_source import DataSource
from feast.feature_view import FeatureView
from feast.infra.offline_stores.duckdb import DuckDBOfflineStore, DuckDBOfflineStoreConfig, _write_data_source
from feast.infra.offline_stores.file_source import FileSource
from feast.infra.offline_stores.offline_store import RetrievalJob, RetrievalMetadata
from feast.infra.offline_stores.offline_utils import infer_event_timestamp_from_entity_df
from feast.infra.registry.base_registry import BaseRegistry
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.repo_config import RepoConfig
from feast.saved_dataset import SavedDatasetStorage
from ibis.backends.duckdb import Backend

# Columns of the join that no table bears.
ROW, INSTANT, FEATURE_INSTANT, FEATURE_KEY = "__row", "__instant", "__feature_instant", "__key_"
UTC = "timestamp('UTC', 6)"


class AsofOfflineStoreConfig(DuckDBOfflineStoreConfig):
    """`offline_store` in feature_store.yaml; Feast finds it by its name."""

    type: Literal["asof_store.AsofOfflineStore"] = "asof_store.AsofOfflineStore"


def located(source: DataSource, config: RepoConfig) -> DataSource:
    """`source` with its path resolved from the feature repo, not from where the command happens to run.

    Feast resolves it so where it reads a schema, but its duckdb store does not where it reads rows.
    """
    if not isinstance(source, FileSource):
        return source
    at_repo = copy.deepcopy(source)
    at_repo.file_options.uri = FileSource.get_uri_for_file_path(config.repo_path, source.path)
    return at_repo


def located_view(view: FeatureView, config: RepoConfig) -> FeatureView:
    """A copy of `view` that reads its `located` source; its projection (alias, join keys) stays."""
    copied = copy.copy(view)
    if view.batch_source is not None:
        copied.batch_source = located(view.batch_source, config)
    return copied


def is_local_parquet(source: DataSource | None) -> bool:
    """Whether DuckDB can read `source` by its path alone."""
    return isinstance(source, FileSource) and isinstance(source.file_format, ParquetFormat) and "://" not in source.path


@dataclass(frozen=True)
class ViewJoin:
    """One feature view of a retrieval: what to join by, and what to take. Named are the feature table's columns."""

    path: str
    keys: dict[str, str]  # column -> the entity frame's
    features: dict[str, str]  # column -> its name in the result
    instant: str
    created: str | None  # which of several rows of one key and instant counts
    ttl: timedelta | None

    @classmethod
    def of(cls, view: FeatureView, feature_refs: list[str], full_feature_names: bool) -> "ViewJoin":
        """What a located view and its projection ask for, read as Feast's own store reads them."""
        source, projection = view.batch_source, view.projection
        assert isinstance(source, FileSource)
        column = {name: column for column, name in source.field_mapping.items()}
        join_keys = projection.join_key_map or {field.name: field.name for field in view.entity_columns}
        wanted = [ref.split(":")[1] for ref in feature_refs if ref.startswith(f"{projection.name_to_use()}:")]
        prefix = f"{projection.name_alias or view.name}__" if full_feature_names else ""
        return cls(
            path=source.path,
            keys={column.get(key, key): entity for key, entity in join_keys.items()},
            features={column.get(feature, feature): prefix + feature for feature in wanted},
            instant=column.get(source.timestamp_field, source.timestamp_field),
            created=column.get(source.created_timestamp_column, source.created_timestamp_column) or None,
            ttl=view.ttl or None,
        )

    def run(self, connection: Backend, entities: pa.Table, instants: pa.Array) -> pa.Table:
        """The features, a row per row of `entities`, in its order."""
        rows = ibis.memtable(self._keys_of(entities, instants))
        features = self._feature_rows(connection.read_parquet(self.path))
        keys = [rows[entity] == features[FEATURE_KEY + key] for key, entity in self.keys.items()]
        found = rows.asof_join(features, on=rows[INSTANT] >= features[FEATURE_INSTANT], predicates=keys)
        conditions = []
        if self.ttl is not None:
            conditions.append(found[FEATURE_INSTANT] + ibis.literal(self.ttl) >= found[INSTANT])
        if instants.null_count:
            # To DuckDB's ASOF JOIN a null is later than every instant, and would find the newest row.
            conditions.append(found[INSTANT].notnull())
        taken = {name: found[name] for name in self.features.values()}
        if conditions:
            taken = {name: ibis.and_(*conditions).ifelse(value, ibis.null()) for name, value in taken.items()}
        return connection.to_pyarrow(found.order_by(ROW).select(**taken))

    def _keys_of(self, entities: pa.Table, instants: pa.Array) -> pa.Table:
        """The join's side of `entities`; its other columns need not pass through DuckDB at all."""
        names = list(dict.fromkeys(self.keys.values()))
        number = pa.array(np.arange(entities.num_rows))
        return pa.table([*entities.select(names).columns, instants, number], names=[*names, INSTANT, ROW])

    def _feature_rows(self, table: ir.Table) -> ir.Table:
        rows = table.select(
            **{FEATURE_KEY + key: table[key] for key in self.keys},
            **{FEATURE_INSTANT: table[self.instant].cast(UTC)},
            **{name: table[column] for column, name in self.features.items()},
            **({} if self.created is None else {"__created": table[self.created].cast(UTC)}),
        )
        if self.created is None:
            return rows
        # The join takes any of several rows of one key and instant: leave it the one created last.
        same = [*(FEATURE_KEY + key for key in self.keys), FEATURE_INSTANT]
        newest_first = ibis.window(group_by=same, order_by=ibis.desc("__created"))
        return rows.mutate(__rank=ibis.row_number().over(newest_first)).filter(ibis._["__rank"] == 0)


class AsofRetrievalJob(RetrievalJob):
    """The entity rows as they were, and beside them what each view's ASOF JOIN finds; runs when asked for rows."""

    def __init__(
        self,
        entities: pa.Table,
        instants: pa.Array,
        joins: list[ViewJoin],
        full_feature_names: bool,
        metadata: RetrievalMetadata,
        repo_path: str,
    ):
        self._entities = entities
        self._instants = instants
        self._joins = joins
        self._full_feature_names = full_feature_names
        self._metadata = metadata
        self._repo_path = repo_path

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        result = self._entities
        connection = ibis.duckdb.connect()  # whose time zone is UTC
        # The planner takes an Arrow table for one row, and would loop over all feature rows for each of its rows.
        connection.raw_sql("SET asof_loop_join_threshold = 0")
        with warnings.catch_warnings():
            # Ibis 12 calls DuckDB 1.5 by an old name, and says so once a query.
            warnings.filterwarnings("ignore", "fetch_arrow_table", DeprecationWarning)
            for join in self._joins:
                features = join.run(connection, self._entities, self._instants)
                for name in features.column_names:
                    result = result.append_column(features.field(name), features.column(name))
        connection.disconnect()
        return result

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        return self._to_arrow_internal(timeout).to_pandas()

    @property
    def full_feature_names(self) -> bool:
        return self._full_feature_names

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        return []

    @property
    def metadata(self) -> RetrievalMetadata:
        return self._metadata

    def persist(self, storage: SavedDatasetStorage, allow_overwrite: bool = False, timeout: int | None = None) -> None:
        """Write the result where `storage` says, as Feast's own store does."""
        table = ibis.memtable(self._to_arrow_internal(timeout))
        _write_data_source(table, storage.to_data_source(), self._repo_path, "overwrite", allow_overwrite)


class AsofOfflineStore(DuckDBOfflineStore):
    """`offline_store: {type: asof_store.AsofOfflineStore}`; this file's folder must be importable."""

    @staticmethod
    def get_historical_features(
        config: RepoConfig,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: pd.DataFrame | str | None,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,
        filter_by_created_timestamp: bool = False,
    ) -> RetrievalJob:
        """Each entity row with the newest feature row at or before its instant, null where there is none or it expired.

        Rows come back all and in order. Of two feature rows of one key and instant, with no created timestamp to tell
        them apart, either may be taken, as in Feast's own store.
        """
        assert entity_df is not None  # Feast asks without entity rows only by a range, which this signature has not
        views = [located_view(view, config) for view in feature_views]
        if (
            filter_by_created_timestamp
            or not isinstance(entity_df, pd.DataFrame)
            or not all(is_local_parquet(view.batch_source) for view in views)
            or OnDemandFeatureView.get_requested_odfvs(feature_refs, project, registry)
        ):
            return DuckDBOfflineStore.get_historical_features(
                config=config,
                feature_views=views,
                feature_refs=feature_refs,
                entity_df=entity_df,
                registry=registry,
                project=project,
                full_feature_names=full_feature_names,
                filter_by_created_timestamp=filter_by_created_timestamp,
            )
        column = infer_event_timestamp_from_entity_df(dict(entity_df.dtypes))
        instants = pd.to_datetime(entity_df[column], utc=True)
        if not pd.api.types.is_datetime64_any_dtype(entity_df[column]):
            entity_df = entity_df.assign(**{column: instants})
        return AsofRetrievalJob(
            entities=pa.Table.from_pandas(entity_df, preserve_index=False),
            # Feature rows lie on microseconds: one at or before t is at or before the start of t's microsecond.
            instants=pa.array(instants.dt.floor("us"), pa.timestamp("us", tz="UTC")),
            joins=[ViewJoin.of(view, feature_refs, full_feature_names) for view in views],
            full_feature_names=full_feature_names,
            metadata=RetrievalMetadata(
                features=feature_refs,
                keys=[name for name in entity_df.columns if name != column],
                min_event_timestamp=instants.min(),
                max_event_timestamp=instants.max(),
            ),
            repo_path=str(config.repo_path),
        )

    @staticmethod
    def pull_latest_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None,
        start_date: datetime,
        end_date: datetime,
    ) -> RetrievalJob:
        """What `feast materialize` reads: Feast's own, from the feature repo's path."""
        return DuckDBOfflineStore.pull_latest_from_table_or_query(
            config,
            located(data_source, config),
            join_key_columns,
            feature_name_columns,
            timestamp_field,
            created_timestamp_column,
            start_date,
            end_date,
        )

    @staticmethod
    def pull_all_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None = None,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> RetrievalJob:
        """The rows of a time range (saved datasets): Feast's own, from the feature repo's path."""
        return DuckDBOfflineStore.pull_all_from_table_or_query(
            config,
            located(data_source, config),
            join_key_columns,
            feature_name_columns,
            timestamp_field,
            created_timestamp_column,
            start_date,
            end_date,
        )
