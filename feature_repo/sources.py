"""Where the feature tables lie: one Parquet file each, made by the stages."""

from feast import FileSource
from feast.data_format import ParquetFormat


def feature_table(name: str, stage: str) -> FileSource:
    """The source `data/features/<stage>/<name>.parquet`, relative to this folder and resolved by asof_store.py.

    So the registry holds no machine's paths, and a copy of the workspace reads its own tables.
    """
    return FileSource(
        name=name,
        path=f"../data/features/{stage}/{name}.parquet",
        file_format=ParquetFormat(),
        timestamp_field="event_timestamp",
    )
