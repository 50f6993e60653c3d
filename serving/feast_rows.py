"""Any other online store, through Feast's own interface: as fast as that store is."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from pipelines.core.questions import printable_line
from serving.entity_keys import EntityKeys
from serving.rows import RawRow, Stamp, Unlisted, Unreachable

if TYPE_CHECKING:
    from feast import FeatureStore
    from feast.infra.online_stores.online_store import OnlineStore


class FeastRows:
    """Reads by `OnlineStore.online_read`. Feast cannot list what a store holds."""

    def __init__(self, store: "FeatureStore", online: "OnlineStore") -> None:
        self._config = store.config
        self._online = online
        self._views = {view.name: view for view in store.list_feature_views()}
        self._keys = EntityKeys(store)

    def version(self) -> None:
        """Not known."""

    def read(self, wanted: Mapping[str, Sequence[str]], ids: Sequence[str]) -> dict[str, list[RawRow | None]]:
        rows: dict[str, list[RawRow | None]] = {}
        for view, features in wanted.items():
            keys = [self._keys.proto(self._keys.join_key(view), entity_id) for entity_id in ids]
            try:
                answers = self._online.online_read(self._config, self._views[view], keys, list(features))
            except Exception as error:  # each store has errors of its own
                what = printable_line(str(error))
                raise Unreachable(f"online store {self._config.online_store.type}, view {view}: {what}") from error
            rows[view] = [
                None
                if instant is None or found is None
                else RawRow(instant, tuple(serialized(found.get(name)) for name in features), instant_of)
                for instant, found in answers
            ]
        return rows

    def ids(self, view: str) -> Iterator[list[str]]:
        raise self._unlisted(view)

    def remove(self, view: str, ids: Sequence[str]) -> None:
        raise self._unlisted(view)

    def newest(self, view: str) -> tuple[int, datetime | None]:
        raise self._unlisted(view)

    def _unlisted(self, view: str) -> Unlisted:
        kind = self._config.online_store.type
        return Unlisted(
            f"online store {kind}, view {view}: Feast cannot list its entities, so nobody knows how fresh they are; use"
            " sqlite or redis"
        )


def serialized(value: object) -> bytes | None:
    return None if value is None else value.SerializeToString()  # type: ignore[attr-defined]


def instant_of(stamp: Stamp) -> datetime:
    assert isinstance(stamp, datetime)
    return stamp
