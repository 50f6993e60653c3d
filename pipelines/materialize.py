"""The entities' newest feature rows into the online store, by Feast's own materialization.

The online store is nobody's output: experiments share it, and DVC, which brings back files of another run, leaves it as
it is. So DVC may not take this stage from its run cache (`persist` in dvc.yaml), and parity looks at the store itself.
"""

import argparse
import io
import sqlite3
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError

from pipelines.core.command import run_stage
from pipelines.core.errors import CheckFailed, UserError
from pipelines.core.json_files import write_json
from pipelines.core.params import Params
from pipelines.core.progress import progress
from pipelines.register import registered_store
from serving.rows import RowReader, Unreachable, open_reader

if TYPE_CHECKING:
    from feast import FeatureStore, FeatureView

BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)


def online_views(store: "FeatureStore") -> "list[FeatureView]":
    """Every view that some feature service serves online, by name."""
    projections = [one for service in store.list_feature_services() for one in service.feature_view_projections]
    views = [store.get_feature_view(name) for name in sorted({projection.name for projection in projections})]
    return [view for view in views if view.online]


def instants_offline(store: "FeatureStore", view: "FeatureView", at: datetime) -> dict[str, datetime]:
    """Who has a row in the view's table at or before `at`, and the newest one's instant."""
    from feast.infra.offline_stores.offline_utils import get_offline_store_from_config

    source = view.batch_source
    assert source is not None and len(view.join_keys) == 1, view.name
    with quietly():
        found = get_offline_store_from_config(store.config.offline_store).pull_all_from_table_or_query(
            config=store.config,
            data_source=source,
            join_key_columns=view.join_keys,
            feature_name_columns=[],
            timestamp_field=source.timestamp_field,
            start_date=BEGINNING,
            end_date=at,
        )
        rows = found.to_arrow()
    key, instant = view.join_keys[0], source.timestamp_field
    newest = rows.group_by(key).aggregate([(instant, "max")])
    return dict(zip(newest[key].to_pylist(), newest[f"{instant}_max"].to_pylist(), strict=True))


@contextmanager
def quietly() -> Iterator[None]:
    """Without what Feast prints, in colours, and ibis 12's calling DuckDB 1.5 by an old name once a query."""
    with redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "fetch_arrow_table", DeprecationWarning)
        yield


@contextmanager
def one_line(store: "FeatureStore") -> Iterator[None]:
    """What the online stores' clients raise, as Unreachable."""
    try:
        yield
    except (sqlite3.Error, RedisError) as error:
        kind = store.config.online_store.type
        raise Unreachable(
            f"online store {kind}: {' '.join(str(error).split())}; see that it can be reached and written, as"
            " `online_store` in feature_store.yaml says, and run `dvc repro` again"
        ) from None


def open_online(store: "FeatureStore") -> RowReader:
    """A reader of the online store, which has a place for every view by then; an SQLite file is in WAL mode.

    The registry may stand without it: it was removed, or feature_store.yaml names another.
    """
    with one_line(store):
        store.provider.online_store.update(
            store.config,
            tables_to_delete=[],
            tables_to_keep=online_views(store),
            entities_to_delete=[],
            entities_to_keep=[],
            partial=True,
        )
        return open_reader(store)


def bring_online(
    store: "FeatureStore", reader: RowReader, views: "Sequence[FeatureView]", until: datetime
) -> dict[str, dict[str, Any]]:
    """Materialize `views` in full; view -> `rows`, `newest` and `removed`, what an earlier run had left there.

    How many rows are held and sent at a time is Feast's own business (`materialization` in feature_store.yaml).
    CheckFailed where the store then has another number of entities.
    """
    offline = {view.name: instants_offline(store, view, until) for view in views}
    made: dict[str, dict[str, Any]] = {}
    with progress(sum(map(len, offline.values())), "bringing online", "row") as bar:
        for view in views:
            known = offline[view.name].keys()
            with one_line(store), quietly():
                store.materialize(BEGINNING, until, feature_views=[view.name])
            # What the tables no longer have goes once the rest is there: nobody is a newcomer meanwhile.
            left = [entity_id for block in reader.ids(view.name) for entity_id in block if entity_id not in known]
            reader.remove(view.name, left)
            rows, newest = reader.newest(view.name)
            if rows != len(known):
                raise CheckFailed(
                    f"materialize: {view.name}: its table has {len(known)} entities and the online store {rows};"
                    " see that nothing else writes to it or lets rows expire, and run `make materialize`"
                )
            made[view.name] = {"rows": rows, "newest": newest and newest.isoformat(), "removed": len(left)}
            bar.update(rows)
    return made


def main(args: argparse.Namespace, params: Params) -> None:
    if not args.model.is_file():
        raise UserError(f"{args.model}: no model to serve the features to; run `dvc repro train`")
    store = registered_store(args.repo, args.registry)
    views = bring_online(store, open_online(store), online_views(store), datetime.now(UTC))
    kind = store.config.online_store.type  # and no more of it: a connection string may hold a password
    # nor of when: the same tables make the same report, and a clone that has made it has nothing to commit
    write_json({"store": kind, "views": views}, args.report)
    removed = sum(view["removed"] for view in views.values())
    print(
        f"materialize: {sum(view['rows'] for view in views.values())} rows of {len(views)} views in {kind}"
        f"{f', {removed} that are in no table any more removed' if removed else ''}"
    )


if __name__ == "__main__":
    run_stage(
        main,
        __doc__,
        {
            "repo": "the Feast feature repo",
            "registry": "the dump of what is registered",
            "model": "the model that is served",
            "report": "what was brought online, as JSON, to write",
        },
    )
