"""Which of these businesses, for this user, now? From Feast's online store, as training would have computed it."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import torch
import yaml
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from models.columns import Unencodable
from models.history_numbers import ENTITIES
from models.recommender import TrainedRecommender
from models.saved import UnusableWeights
from pipelines.core.errors import UserError
from pipelines.core.params import Params
from pipelines.core.questions import printable_line
from pipelines.core.repo_imports import import_from
from pipelines.core.training_rows import columns as typed_columns
from pipelines.core.training_rows import objects, vector_names
from serving.rows import RowReader, Unlisted, Unreachable, open_reader
from serving.scoring import INSTANT, Part, Scorer, entity_of
from serving.shelf import Raw, Shelf
from serving.values import arrow

if TYPE_CHECKING:
    from feast import FeatureStore

USERS_KEPT = 1000
SECOND = timedelta(seconds=1)
LAST = datetime.max.replace(tzinfo=UTC) - SECOND
COUNT, PRICE_TAG, TYPES = "history__review_count", "business_tags__price_tag", "business_tags__subtypes"


@dataclass(frozen=True)
class Ranking:
    """N candidates in the order in which they were given."""

    user_known: bool  # has a history
    at: datetime
    ids: list[str]
    probabilities: NDArray[np.float64]  # (N,)
    reviews: NDArray[np.int64]  # (N,) of the business's history; 0: cold
    price_tags: list[str | None]  # None where there is none, or where the model's service has no tags
    types: list[tuple[str, ...]]
    seconds: dict[str, float]  # read, encode, score


@dataclass(frozen=True)
class Service:
    """What a feature service gives online."""

    name: str
    views: Mapping[str, Sequence[str]]  # view -> features
    types: Mapping[str, pa.DataType]  # full feature name -> its type


class Ranker:
    """A model, and the reader of the rows that it ranks by. May be used by several threads at once."""

    def __init__(self, model: TrainedRecommender, service: Service, reader: RowReader, params: Params) -> None:
        assert model.digest is not None, "only a model that was loaded from its file is served"
        self.model = model
        self.digest = model.digest
        self.service = service.name
        self.views = service.views
        self.reader = reader
        self.scorer = Scorer(model)
        self._types = service.types
        self._serve = params.serve
        # What a ranking needs of each view: what the model reads, and whether there is a history.
        needed = {*model.encoding.columns, *(f"{entity}_{COUNT}" for entity in ENTITIES), PRICE_TAG, TYPES}
        self._wanted: dict[str, dict[str, list[str]]] = {entity: {} for entity in ENTITIES}
        for view, features in service.views.items():
            taken = [feature for feature in features if f"{view}__{feature}" in needed]
            if taken:
                self._wanted[entity_of(view)][view] = taken
        self._widths = {
            name: len(centre)
            for part in model.encoding.vectors.values()
            for name, centre in zip(part.names, part.means, strict=True)
        }
        self._shelves = {"user": Shelf(USERS_KEPT), "business": Shelf(self._serve.cached_businesses)}
        self._looked: tuple[object | None, dict[str, tuple[int, datetime | None]]] | None = None

    def rank(self, user_id: str, business_ids: Sequence[str], at: datetime | None = None) -> Ranking:
        """The chance that the user will like each business, of online rows as they are now.

        An unknown user or business has no history, as in training. Without `at` it is `now()`, or the newest review
        that was read where that is later. UserError where `at` lies before a review that a row knows of; Unreachable.
        """
        ids = list(business_ids)
        seconds = {"read": 0.0, "encode": 0.0}
        user = self._part("user", [user_id], seconds)
        business = self._part("business", ids, seconds)
        if not user[f"user_{COUNT}"].any() and not business[f"business_{COUNT}"].any():
            self._check_not_empty()
        begun = time.perf_counter()
        instant = self._instant(at, user, business)
        try:
            instants = np.full(len(ids), np.datetime64(instant.astimezone(UTC).replace(tzinfo=None), "us"))
            probabilities = self.scorer.score(user, business, instants)
        except Unencodable as error:
            raise UserError(f"user {user_id!r}: {error}") from None
        seconds["score"] = time.perf_counter() - begun
        if not np.isfinite(probabilities).all():
            odd = ids[int(np.flatnonzero(~np.isfinite(probabilities))[0])]
            raise Unreachable(
                f"online store: of user {user_id!r} and business {odd!r} it holds numbers that are none; run"
                " `make materialize`, which says what is wrong"
            )
        return Ranking(
            user_known=bool(user[f"user_{COUNT}"][0] > 0),
            at=instant,
            ids=ids,
            probabilities=probabilities,
            reviews=business[f"business_{COUNT}"],
            price_tags=list(business["tagged price"]),
            types=list(business["tagged types"]),
            seconds=seconds,
        )

    def _check_not_empty(self) -> None:
        """Unreachable where the store has no row at all: then it was emptied, and not everybody is a newcomer."""
        try:
            if not any(True for view in self.views for _ in self.reader.ids(view)):
                raise Unreachable(
                    f"online store: no view of {self.service} has a row; run `feast materialize`, or `make materialize`"
                )
        except Unlisted:
            return

    def _instant(self, at: datetime | None, user: Part, business: Part) -> datetime:
        """What a request is about; `at` where it says. UserError where a row has seen a later review."""
        newest = max(
            (
                latest(part[f"{entity}_history__newest_review_at"])
                for entity, part in zip(ENTITIES, (user, business), strict=True)
            ),
            key=lambda instant: instant or datetime.min.replace(tzinfo=UTC),
        )
        if at is None:
            return max(filter(None, [self.now(), newest]))
        if newest is not None and at < newest:
            raise UserError(
                f"at {at.isoformat()}: the online rows know of a review at {newest.isoformat()}; ask about a later"
                " instant (online there are the newest rows alone)"
            )
        return at

    def now(self) -> datetime:
        """`serve.as_of`: the clock, an instant, or a second after the newest online row as of the last look."""
        if self._serve.as_of == "now":
            return datetime.now(UTC)
        if self._serve.as_of != "newest":
            return self._serve.as_of
        try:
            looked = self._looked[1] if self._looked else self.look()
        except Unlisted:
            return datetime.now(UTC)
        instants = [instant for _, instant in looked.values() if instant]
        # a second: SQLite's instants are cut to whole ones
        return min(max(instants), LAST) + SECOND if instants else datetime.now(UTC)

    def look(self) -> dict[str, tuple[int, datetime | None]]:
        """View of the service -> how many entities have a row online, and the newest row's instant.

        Reads them all, unless nothing was written since it last did. Unreachable, Unlisted.
        """
        version = self.reader.version()
        if self._looked is not None and version is not None and self._looked[0] == version:
            return self._looked[1]
        found = {view: self.reader.newest(view) for view in self.views}
        self._looked = version, found
        return found

    def warm(self) -> None:
        """Encode the businesses that the store holds, as many as are kept: no request then waits for it.

        Unreachable, Unlisted.
        """
        view = next(iter(self._wanted["business"]))
        left = self._serve.cached_businesses
        for block in self.reader.ids(view):
            self._part("business", block[:left], {"read": 0.0, "encode": 0.0})
            left -= len(block[:left])
            if not left:
                return

    def columns(
        self, user_id: str, business_id: str, at: datetime
    ) -> tuple[dict[str, np.ndarray], dict[str, datetime | None]]:
        """One pair's features as `models.columns` says, all of the service's, and view -> the instant of its row.

        Unreachable where the store cannot be read.
        """
        made: dict[str, np.ndarray] = {INSTANT: np.array([at.astimezone(UTC).replace(tzinfo=None)], "datetime64[us]")}
        instants: dict[str, datetime | None] = {}
        for entity, one in (("user", user_id), ("business", business_id)):
            wanted = {view: features for view, features in self.views.items() if entity_of(view) == entity}
            rows = self.reader.read(wanted, [one])
            instants |= {view: row.instant if row else None for view, (row,) in rows.items()}
            made |= self._columns(wanted, [tuple(row for (row,) in rows.values())])
        return made, instants

    def _part(self, entity: str, ids: Sequence[str], seconds: dict[str, float]) -> Part:
        """Encoded rows of `ids`, from the shelf where the store still holds what they were made of."""
        shelf = self._shelves[entity]
        begun = time.perf_counter()
        version = self.reader.version()  # before the rows: what is written meanwhile makes it look older, never newer
        part = None if version is None else shelf.take(ids, version)
        seconds["read"] += time.perf_counter() - begun
        if part is None:
            with shelf.refreshing:
                part = self._refreshed(entity, ids, seconds)
        return part

    def _refreshed(self, entity: str, ids: Sequence[str], seconds: dict[str, float]) -> Part:
        """`_part` by who holds the shelf's `refreshing`; others may have read for us while we waited for it."""
        shelf, distinct = self._shelves[entity], list(dict.fromkeys(ids))
        version = self.reader.version()
        # To make room the shelf may be emptied: then all are read.
        for some in (shelf.unsure(distinct, version), distinct):
            begun = time.perf_counter()
            rows = self.reader.read(self._wanted[entity], some) if some else {}
            read = time.perf_counter()
            shelf.put(some, list(zip(*rows.values(), strict=True)), version, lambda raw: self._encode(entity, raw))
            part = shelf.take(ids)
            seconds["read"] += read - begun
            seconds["encode"] += time.perf_counter() - read
            if part is not None:
                return part
        raise AssertionError("what was put on the shelf is there")

    def _encode(self, entity: str, rows: Sequence[Raw]) -> Part:
        made = self._columns(self._wanted[entity], rows)
        with readable(entity):
            part = dict(self.scorer.part(entity, made))
        part[f"{entity}_{COUNT}"] = made[f"{entity}_{COUNT}"]
        if entity == "business":
            nothing = np.full(len(rows), None, object)
            part["tagged price"] = made.get(PRICE_TAG, nothing)
            part["tagged types"] = np.fromiter(
                (tuple(names or ()) for names in made.get(TYPES, nothing)), object, len(rows)
            )
        return part

    def _columns(self, wanted: Mapping[str, Sequence[str]], rows: Sequence[Raw]) -> dict[str, np.ndarray]:
        """Raw rows, a row a view of `wanted`, to columns under full feature names."""
        from filling import fill_counts  # the feature repo's own, on the path since the store was opened

        arrays = {}
        for number, (view, features) in enumerate(wanted.items()):
            for i, feature in enumerate(features):
                name = f"{view}__{feature}"
                values = [None if row[number] is None else row[number].values[i] for row in rows]  # type: ignore[union-attr]
                with readable(name):
                    arrays[name] = arrow(self._types[name], values)
        # Of an embedding that no train row had, the model knows no width, and takes nothing.
        for name, width in self._widths.items():
            if width == 0 and name in arrays:
                arrays[name] = pa.nulls(len(rows), arrays[name].type)
        table = fill_counts(pa.table(arrays))
        widths = {name: self._widths.get(name, longest(table[name])) for name in vector_names(table.schema)}
        with readable("vectors"):
            made = typed_columns(table, widths, "the online store")
        # Ids are nothing to a model, and whoever asks why follows them.
        return made | {name: objects(table[name]) for name in table.column_names if name.endswith("_id")}


@contextmanager
def readable(what: str) -> Iterator[None]:
    """Unreachable where the store holds what Feast never wrote, or what the model cannot take."""
    try:
        yield
    except (DecodeError, pa.ArrowException, Unencodable, UserError, TypeError, OverflowError) as error:
        said = printable_line(str(error))
        raise Unreachable(f"online store: {what}: a row cannot be read ({said}); run `make materialize`") from None


def latest(instants: NDArray[np.datetime64]) -> datetime | None:
    """UTC; None where all are null."""
    known = instants[~np.isnat(instants)]
    return known.max().astype("datetime64[us]").item().replace(tzinfo=UTC) if len(known) else None


def longest(column: pa.ChunkedArray) -> int:
    return max((len(value) for value in column if value.is_valid), default=0)


def open_ranker(model: Path, repo: Path, params: Params) -> Ranker:
    """A ranker of the model file, by the online store of the feature repo.

    From then on torch computes on one thread in this process: of so small a network two wait for each other longer than
    they work, and requests have threads of their own.

    UserError where the model file or the store's settings are missing or broken, or where the registry has not the
    model's feature service, or one without the features that the model reads."""
    torch.set_num_threads(1)
    try:
        trained = TrainedRecommender.load(model)
    except UnusableWeights as error:
        raise UserError(f"{error}; run `dvc repro train` to make it") from None
    except (ValueError, TypeError, RecursionError, OSError) as error:
        said = printable_line(str(error))
        raise UserError(
            f"{model}: its description cannot be read ({said}); run `dvc repro train` to remake it"
        ) from None
    store = open_store(repo)
    return Ranker(trained, online_service(store, trained, model), open_reader(store, prompt=True), params)


def open_store(repo: Path) -> "FeatureStore":
    """The feature store that `repo` describes."""
    from feast import FeatureStore
    from feast.repo_config import FeastConfigError

    if not (repo / "feature_store.yaml").is_file():
        raise UserError(f"{repo}: no feature_store.yaml here; pass the feature repo's folder with --repo")
    import_from(repo)
    try:
        return FeatureStore(repo_path=str(repo.resolve()))
    except (FeastConfigError, yaml.YAMLError, ValueError, TypeError) as error:
        raise UserError(f"{repo / 'feature_store.yaml'}: {' '.join(str(error).split())}") from None


def online_service(store: "FeatureStore", trained: TrainedRecommender, model: Path) -> Service:
    """The service that the model's features are read through. UserError where it is none of the registry's."""
    from feast.errors import FeastObjectNotFoundException
    from feast.types import from_feast_to_pyarrow_type
    from naming import online_service_name

    try:
        name = online_service_name(trained.feature_service)
        service = store.get_feature_service(name)
    except (ValueError, FeastObjectNotFoundException, DecodeError) as error:
        raise UserError(
            f"{model}: it was trained on feature service {trained.feature_service!r}, which the registry of"
            f" {store.repo_path} cannot answer for ({' '.join(str(error).split())}); run `dvc repro`"
        ) from None
    features = {
        projection.name: {feature.name: from_feast_to_pyarrow_type(feature.dtype) for feature in projection.features}
        for projection in service.feature_view_projections
    }
    types = {f"{view}__{feature}": type_ for view, held in features.items() for feature, type_ in held.items()}
    lacking = [column for column in trained.encoding.columns if column != INSTANT and column not in types]
    if lacking:
        raise UserError(f"{model}: it reads {lacking}, which feature service {name!r} lacks; run `dvc repro`")
    return Service(name, {view: list(held) for view, held in features.items()}, types)
