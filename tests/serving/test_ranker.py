"""Rankings against the plain way: Feast's own answer for each pair, and the whole network."""

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from feast import FeatureStore
from feast.protos.feast.types.Value_pb2 import Value
from filling import fill_counts

from models.recommender import TrainedRecommender
from pipelines.core.errors import UserError
from pipelines.core.training_rows import columns, training_set_schema, vector_names, vector_width
from serving.feast_rows import FeastRows
from serving.ranker import COUNT, Ranker, online_service, open_ranker, open_store
from serving.rows import Unlisted, Unreachable
from tests.models.training_sets import MODELS
from tests.serving.conftest import END, ServedWorld
from tests.serving.redis_server import redis_server
from tests.serving.stores import materialize, move_to_redis, write_row

BUSINESSES = [f"b{i}" for i in range(10)]
AT = datetime(2021, 1, 1, tzinfo=UTC)
TRIED_S = 2.0  # of a store that is written to meanwhile


@pytest.fixture(scope="module", params=["sqlite", "redis"])
def world(served: ServedWorld, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator:
    """On either store; tests that write put back what they found."""
    folder = tmp_path_factory.mktemp(request.param)
    world = served.copied(folder / "world")
    if request.param == "sqlite":
        yield world
        return
    with redis_server(folder / "redis") as address:
        move_to_redis(world, address)
        yield world


def ranker_of(world: ServedWorld, model: str = "proposed", **changes: object) -> Ranker:
    return open_ranker(world.model(model), world.repo, world.params(**changes))


def plainly(world: ServedWorld, model: str, user: str, businesses: Sequence[str], at: datetime) -> np.ndarray:
    """Each pair asked of Feast's own `get_online_features`, all null counts filled, the network whole."""
    store, trained = open_store(world.repo), TrainedRecommender.load(world.model(model))
    service = store.get_feature_service(f"{model}_point_in_time")
    rows = [{"user_id": user, "business_id": business} for business in businesses]
    answer = store.get_online_features(service, rows, full_feature_names=True).to_arrow()
    reads = [field for field in training_set_schema() if field.name in answer.column_names and "__" in field.name]
    made = {field.name: answer[field.name].cast(field.type) for field in reads}
    made["event_timestamp"] = pa.array([at] * len(rows), pa.timestamp("us", "UTC"))
    table = fill_counts(pa.table(made))
    widths = {name: vector_width(table[name]) for name in vector_names(table.schema)}
    return trained.probabilities(columns(table, widths, "Feast's answer"))


@pytest.mark.parametrize("model", MODELS)
def test_it_says_what_the_plain_way_says(world: ServedWorld, model: str) -> None:
    ranker = ranker_of(world, model)
    asked = [*BUSINESSES, "nowhere"]
    for user in ("u00", "u07", "u23", "nobody"):
        ranking = ranker.rank(user, asked, AT)
        assert np.abs(ranking.probabilities - plainly(world, model, user, asked, AT)).max() <= 1e-6
        assert ranking.ids == asked and ranking.at == AT
        assert ranking.user_known == (user != "nobody")
        assert (ranking.reviews > 0).tolist() == [True] * 10 + [False]
    assert np.ptp(ranking.probabilities) > 1e-3, "who says one thing of all would agree with anything"


def test_again_from_the_shelf_and_in_another_order(world: ServedWorld) -> None:
    ranker = ranker_of(world)
    first = ranker.rank("u03", BUSINESSES, AT)
    for order in (BUSINESSES, BUSINESSES[::-1], [*BUSINESSES[3:], "nowhere", *BUSINESSES[:3]], ["b4"], ["b4", "b4"]):
        again = ranker.rank("u03", order, AT)
        for one, probability, reviews, types in zip(
            again.ids, again.probabilities, again.reviews, again.types, strict=True
        ):
            if one != "nowhere":
                at = BUSINESSES.index(one)
                assert abs(probability - first.probabilities[at]) <= 1e-6
                assert (reviews, types) == (first.reviews[at], first.types[at])


def test_nobody_to_rank(world: ServedWorld) -> None:
    for ranker in (ranker_of(world), ranker_of(world, "baseline")):
        ranking = ranker.rank("u03", [], AT)
        assert (ranking.user_known, ranking.ids, len(ranking.probabilities), len(ranking.reviews)) == (True, [], 0, 0)


def test_tags_come_with_it_where_the_model_reads_them(world: ServedWorld) -> None:
    assert any(ranker_of(world).rank("u00", BUSINESSES, AT).types)
    baseline = ranker_of(world, "baseline").rank("u00", BUSINESSES, AT)
    assert set(baseline.types) == {()} and set(baseline.price_tags) == {None}


# --- never a stale number --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cached", [0, 3, 50_000])
def test_a_value_that_changes_at_the_same_instant_is_seen_at_once(world: ServedWorld, cached: int) -> None:
    ranker = ranker_of(world, serve__cached_businesses=cached)
    store = open_store(world.repo)
    before = ranker.rank("u01", BUSINESSES, AT).probabilities
    kept, instant = row_of(store, ranker, "business_history", "b5")
    try:
        for mean in (1.0, 5.0):
            write_row(store, "business_history", "b5", kept | {"rating_mean": mean}, instant)
            after = ranker.rank("u01", BUSINESSES, AT).probabilities
            assert np.flatnonzero(np.abs(after - before) > 1e-6).tolist() == [5]
            assert np.abs(after - plainly(world, "proposed", "u01", BUSINESSES, AT)).max() <= 1e-6
            before = np.where(np.arange(10) == 5, after, before)
    finally:
        write_row(store, "business_history", "b5", kept, instant)


def test_also_of_a_user(world: ServedWorld) -> None:
    ranker, store = ranker_of(world), open_store(world.repo)
    before = ranker.rank("u02", BUSINESSES, AT).probabilities
    kept, instant = row_of(store, ranker, "user_history", "u02")
    try:
        write_row(store, "user_history", "u02", kept | {"rating_mean": 1.0, "review_count": 40}, instant)
        after = ranker.rank("u02", BUSINESSES, AT).probabilities
        assert (np.abs(after - before) > 1e-6).all()
        assert np.abs(after - plainly(world, "proposed", "u02", BUSINESSES, AT)).max() <= 1e-6
    finally:
        write_row(store, "user_history", "u02", kept, instant)


def test_while_it_is_written_to_each_answer_is_of_one_value_or_the_other(world: ServedWorld) -> None:
    """And right after a write it is the new one, in every thread."""
    ranker, store = ranker_of(world), open_store(world.repo)
    kept, instant = row_of(store, ranker, "business_history", "b6")
    said = {}
    for mean in (1.0, 5.0):
        write_row(store, "business_history", "b6", kept | {"rating_mean": mean}, instant)
        said[mean] = ranker.rank("u01", ["b6"], AT).probabilities[0]
    assert abs(said[1.0] - said[5.0]) > 1e-4
    strange: list[float] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            probability = ranker.rank("u01", ["b1", "b6"], AT).probabilities[1]
            if min(abs(probability - one) for one in said.values()) > 1e-6:
                strange.append(probability)

    askers = [threading.Thread(target=ask) for _ in range(3)]
    try:
        for asker in askers:
            asker.start()
        until = datetime.now(UTC) + timedelta(seconds=TRIED_S)
        while datetime.now(UTC) < until:
            for mean in (1.0, 5.0):
                write_row(store, "business_history", "b6", kept | {"rating_mean": mean}, instant)
                assert abs(ranker.rank("u01", ["b6"], AT).probabilities[0] - said[mean]) <= 1e-6
    finally:
        stop.set()
        for asker in askers:
            asker.join()
        write_row(store, "business_history", "b6", kept, instant)
    assert strange == []


def test_it_answers_while_views_are_materialized(world: ServedWorld) -> None:
    ranker = ranker_of(world)
    before = ranker.rank("u01", BUSINESSES, AT).probabilities
    writer = threading.Thread(target=materialize, args=(world,))
    writer.start()
    asked = 0
    while writer.is_alive():
        assert np.abs(ranker.rank("u01", BUSINESSES, AT).probabilities - before).max() <= 1e-6
        asked += 1
    writer.join()
    assert asked > 10


def row_of(store: FeatureStore, ranker: Ranker, view: str, entity_id: str) -> tuple[dict[str, object], datetime]:
    """What Feast says of a row, and the instant that it lies at."""
    names = [field.name for field in store.get_feature_view(view).features]
    (join_key,) = store.get_feature_view(view).join_keys
    said = store.get_online_features([f"{view}:{name}" for name in names], {join_key: [entity_id]}).to_dict()
    row = ranker.reader.read({view: names}, [entity_id])[view][0]
    assert row is not None
    return {name: said[name][0] for name in names}, row.instant


# --- which instant ---------------------------------------------------------------------------------------------------


def test_an_instant_before_what_is_known_is_refused(world: ServedWorld) -> None:
    ranker = ranker_of(world)
    with pytest.raises(UserError, match=r"at 2020-01-02T00:00:00\+00:00: the online rows know of a review at 2020-"):
        ranker.rank("u00", BUSINESSES, datetime(2020, 1, 2, tzinfo=UTC))


def test_an_instant_is_the_same_in_every_zone(world: ServedWorld) -> None:
    ranker, west = ranker_of(world), timezone(timedelta(hours=-11))
    here, there = (ranker.rank("u00", BUSINESSES, at) for at in (AT, AT.astimezone(west)))
    assert (here.probabilities == there.probabilities).all() and here.at == there.at


def test_where_nobody_says_it_is_the_clock_or_the_newest_row_or_a_fixed_instant(world: ServedWorld) -> None:
    newest = max(instant for _, instant in ranker_of(world).look().values() if instant)
    assert ranker_of(world).rank("u00", ["b0"]).at == newest + timedelta(seconds=1)
    begun = datetime.now(UTC)
    assert begun <= ranker_of(world, serve__as_of="now").rank("u00", ["b0"]).at <= datetime.now(UTC)
    assert ranker_of(world, serve__as_of="2024-05-06T00:00:00+00:00").rank("u00", ["b0"]).at == datetime(
        2024, 5, 6, tzinfo=UTC
    )


def test_a_review_that_comes_online_after_the_last_look_is_not_in_the_future(world: ServedWorld) -> None:
    ranker, store = ranker_of(world), open_store(world.repo)
    ranker.rank("u04", BUSINESSES)
    kept, instant = row_of(store, ranker, "user_history", "u04")
    try:
        write_row(store, "user_history", "u04", kept | {"newest_review_at": END}, END)
        assert ranker.rank("u04", BUSINESSES).at == END
    finally:
        write_row(store, "user_history", "u04", kept, instant)


# --- what it cannot serve --------------------------------------------------------------------------------------------


def test_one_line_for_what_cannot_be_served(served: ServedWorld, tmp_path: Path) -> None:
    world = served.copied(tmp_path / "copy")
    cases = {
        tmp_path / "no.safetensors": r"no\.safetensors: no such file; run `dvc repro train` to make it",
        world.root / "params.yaml": "not a safetensors file",
    }
    for name, service in (("other", "other_point_in_time"), ("odd", "whatever")):
        path = tmp_path / f"{name}.safetensors"
        trained = TrainedRecommender.load(world.model())
        TrainedRecommender(
            trained.network, trained.encoding, trained.weights, service, trained.fingerprint, trained.params
        ).save(path)
        cases[path] = f"trained on feature service '{service}', which the registry of .* cannot answer for"
    lacking = tmp_path / "lacking.safetensors"
    TrainedRecommender(
        trained.network,
        trained.encoding,
        trained.weights,
        "baseline_point_in_time",
        trained.fingerprint,
        trained.params,
    ).save(lacking)
    cases[lacking] = "it reads .*user_summary__embedding.*, which feature service 'baseline_point_in_time' lacks"
    for path, message in cases.items():
        with pytest.raises(UserError, match=message) as raised:
            open_ranker(path, world.repo, world.params())
        assert "\n" not in str(raised.value)
    with pytest.raises(UserError, match=r"no feature_store\.yaml here"):
        open_ranker(world.model(), tmp_path, world.params())


def test_a_leave_one_out_model_is_served_by_the_newest_rows(served: ServedWorld, tmp_path: Path) -> None:
    trained = TrainedRecommender.load(served.model())
    path = tmp_path / "model.safetensors"
    TrainedRecommender(
        trained.network,
        trained.encoding,
        trained.weights,
        "proposed_leave_one_out",
        trained.fingerprint,
        trained.params,
    ).save(path)
    assert open_ranker(path, served.repo, served.params()).service == "proposed_point_in_time"


def test_any_other_store_is_read_through_feast(served: ServedWorld) -> None:
    """As one is of which nothing is known: it answers, and nobody can say how fresh it is."""
    store = open_store(served.repo)
    known = ranker_of(served)
    ranker = Ranker(
        known.model,
        online_service(store, known.model, served.model()),
        FeastRows(store, store.provider.online_store),
        served.params(),
    )
    for user in ("u00", "u07", "nobody"):
        asked = [*BUSINESSES, "nowhere"]
        difference = ranker.rank(user, asked, AT).probabilities - known.rank(user, asked, AT).probabilities
        assert np.abs(difference).max() <= 1e-6
    with pytest.raises(Unlisted, match="Feast cannot list its entities"):
        ranker.look()
    begun = datetime.now(UTC)
    assert ranker.rank("u00", ["b0"]).at >= begun


def test_what_is_warm_needs_no_reading(world: ServedWorld) -> None:
    ranker = ranker_of(world)
    ranker.warm()
    ranker.reader.read = None  # type: ignore[assignment,method-assign]  # whoever reads fails
    with pytest.raises(TypeError):
        ranker.rank("u00", BUSINESSES, AT)  # the user
    seconds = {"read": 0.0, "encode": 0.0}
    assert len(ranker._part("business", BUSINESSES, seconds)[f"business_{COUNT}"]) == 10


def test_a_store_that_was_emptied_is_not_a_world_of_newcomers(served: ServedWorld, tmp_path: Path) -> None:
    """Redis forgets all when it starts again without a file; a newcomer among newcomers is nobody's error otherwise."""
    world = served.copied(tmp_path / "world")
    ranker = ranker_of(world)
    assert len(ranker.rank("nobody", ["nowhere"], AT).ids) == 1
    with closing(sqlite3.connect(world.online)) as connection, connection:
        for view in ranker.views:
            connection.execute(f"DELETE FROM mmrec_{view}")
    with pytest.raises(Unreachable, match="no view of proposed_point_in_time has a row; run `feast materialize`"):
        ranker.rank("u00", BUSINESSES, AT)


@pytest.mark.parametrize(
    ("view", "feature", "value", "message"),
    [
        (
            "business_history",
            "rating_mean",
            float("inf"),
            "of user 'u00' and business 'b3' it holds numbers that are none",
        ),
        ("business_summary", "embedding", [float("inf")] * 384, "numbers that are none"),
        ("business_summary", "embedding", [0.5] * 7, "vectors: a row cannot be read .*a vector of 7 among vectors of"),
        ("business_tags", "price_tag", "dear", "business: a row cannot be read .*'dear'"),
        ("business_tags", "subtypes", ["moon_bar"], "business: a row cannot be read .*'moon_bar'"),
    ],
)
def test_what_nobody_can_rank_by_is_the_stores_fault_and_no_answer(
    broken: ServedWorld, view: str, feature: str, value: object, message: str
) -> None:
    ranker, store = ranker_of(broken), open_store(broken.repo)
    kept, instant = row_of(store, ranker, view, "b3")
    write_row(store, view, "b3", kept | {feature: value}, instant)
    with pytest.raises(Unreachable, match=message):
        ranker.rank("u00", BUSINESSES, AT)
    assert len(ranker.rank("u00", [one for one in BUSINESSES if one != "b3"], AT).ids) == 9
    write_row(store, view, "b3", kept, instant)
    assert len(ranker.rank("u00", BUSINESSES, AT).ids) == 10


@pytest.mark.parametrize("garbage", [b"\xff\xff", b"\x82\x01\x05", "text", Value(double_val=0.5).SerializeToString()])
def test_bytes_that_feast_never_wrote(broken: ServedWorld, garbage: bytes | str) -> None:
    with closing(sqlite3.connect(broken.online)) as connection, connection:
        query = "UPDATE mmrec_business_summary SET value = ? WHERE feature_name = 'embedding'"
        connection.execute(query, (garbage,))
    with pytest.raises(Unreachable, match="business_summary__embedding: a row cannot be read"):
        ranker_of(broken).rank("u00", BUSINESSES, AT)
