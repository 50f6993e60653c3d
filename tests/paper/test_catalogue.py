"""The catalogue of a small world: who is ranked for, what is a candidate, and that features are those of the cut."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from models.ranking import ranking
from pipelines.core.training_rows import TrainingRows, read_splits, training_set_schema
from pipelines.paper import catalogue as module
from pipelines.paper.catalogue import Catalogue, Wishes, catalogue_of, last_instant, wishes_of
from tests.models.training_sets import rows_of, table
from tests.test_training_set import Workspace, make_workspace

# Ids of snapshots are for people, no model's column.
FEATURES = [name for name in training_set_schema().names if "__" in name and not name.endswith("_id")]


@pytest.fixture(scope="module", params=["point_in_time", "leave_one_out"])
def workspace(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return make_workspace(tmp_path_factory.mktemp("workspace"), request.param)


@pytest.fixture(scope="module")
def splits(workspace: Workspace) -> dict[str, TrainingRows]:
    return read_splits(workspace.args().out, None)


@pytest.fixture(scope="module")
def catalogue(workspace: Workspace, splits: dict[str, TrainingRows]) -> Iterator[Catalogue]:
    args = workspace.args()
    wishes = wishes_of(splits, 1000, 7)
    yield catalogue_of(wishes, last_instant(splits["test"], workspace.params), args.repo, args.registry)


def frame(rows: TrainingRows) -> pd.DataFrame:
    return rows.table.select(["user_id", "business_id", "event_timestamp", "label"]).to_pandas()


def pair_of(catalogue: Catalogue, user: str, business: str) -> dict[str, np.ndarray]:
    """Every feature of one pair."""
    at = catalogue.wishes.users.index(user)
    row = catalogue.wishes.businesses.index(business)
    pairs = catalogue.pairs(["event_timestamp", *FEATURES], slice(at, at + 1))
    return {name: column[row] for name, column in pairs.items()}


def same(a: np.ndarray, b: np.ndarray) -> bool:
    """Bit for bit, null as null. A vector that nobody of the catalogue has is 0 wide."""
    if np.ndim(a) == 1 and not np.size(a):
        return bool(np.isnan(b).all())
    return a == b if isinstance(a, list | str | None) else np.asarray(a).tobytes() == np.asarray(b).tobytes()


def test_those_are_ranked_for_who_liked_a_place_that_was_new_to_them(
    splits: dict[str, TrainingRows], catalogue: Catalogue
) -> None:
    wishes = catalogue.wishes
    before = pd.concat([frame(splits["train"]), frame(splits["validation"])])
    known = set(zip(before["user_id"], before["business_id"], strict=True))
    test = frame(splits["test"])
    liked = {(u, b) for u, b, label in zip(test["user_id"], test["business_id"], test["label"], strict=True) if label}
    assert wishes.users == sorted({user for user, business in liked - known})
    assert wishes.businesses == sorted({*before["business_id"], *test["business_id"]})
    for row, user in enumerate(wishes.users):
        for column, business in enumerate(wishes.businesses):
            assert wishes.liked[row, column] == ((user, business) in liked)
            assert wishes.seen[row, column] == ((user, business) in known)
    assert wishes.seen.sum() > 0 and wishes.liked.sum() > 0
    assert (wishes.liked & ~wishes.seen).any(axis=1).all()


def test_features_are_what_a_test_row_of_the_cut_sees(
    workspace: Workspace, splits: dict[str, TrainingRows], catalogue: Catalogue
) -> None:
    """By time: a row of the test's first instant, the others know more. Leave-one-out: every test row."""
    test, rows = splits["test"], frame(splits["test"])
    compared = 0
    for at, row in rows.iterrows():
        first = row["event_timestamp"] == rows["event_timestamp"].min()
        if row["user_id"] in catalogue.wishes.users and (first or workspace.params.protocol == "leave_one_out"):
            pair = pair_of(catalogue, row["user_id"], row["business_id"])
            for name in FEATURES:
                assert same(pair[name], test.columns[name][at]), (at, name)
            compared += 1
    assert compared


def test_numbers_are_those_of_the_reviews_before_the_cut(workspace: Workspace, catalogue: Catalogue) -> None:
    """The obvious way, for every user and business; by time validation is before the test, else train alone counts."""
    reviews = (
        pq.read_table(workspace.args().reviews).to_pandas().merge(pq.read_table(workspace.args().split).to_pandas())
    )
    by_time = workspace.params.protocol == "point_in_time"
    seen = reviews[reviews["split"].isin(["train", "validation"] if by_time else ["train"])]
    for entity, ids, columns in (
        ("user", catalogue.wishes.users, catalogue.of_user),
        ("business", catalogue.wishes.businesses, catalogue.of_business),
    ):
        counts = [int((seen[f"{entity}_id"] == name).sum()) for name in ids]
        means = [seen[seen[f"{entity}_id"] == name]["rating"].mean() for name in ids]
        assert columns[f"{entity}_history__review_count"].tolist() == counts
        np.testing.assert_allclose(columns[f"{entity}_history__rating_mean"], means)
        if by_time:
            newest = columns[f"{entity}_history__newest_review_at"]
            assert (newest[~np.isnat(newest)] <= catalogue.instant).all()


def test_pairs_are_every_business_for_one_user_after_another(catalogue: Catalogue) -> None:
    names = ["user_text__embedding", "business_history__rating_mean", "business_text__embedding", "event_timestamp"]
    pairs = catalogue.pairs(names, slice(1, 3))
    places = len(catalogue.wishes.businesses)
    assert list(pairs) == names
    for at, (user, business) in enumerate((user, business) for user in (1, 2) for business in range(places)):
        for name in names[:3]:
            side, row = (catalogue.of_user, user) if name.startswith("user") else (catalogue.of_business, business)
            assert np.array_equal(pairs[name][at], side[name][row], equal_nan=True)
    assert (pairs["event_timestamp"] == catalogue.instant).all()


@pytest.mark.parametrize("bytes_", [1, 50_000, 1 << 27])
def test_ranked_in_parts_as_at_once(catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch, bytes_: int) -> None:
    reads = ["user_history__review_count", "business_history__review_count", "business_text__embedding"]

    def score(columns: dict[str, np.ndarray]) -> np.ndarray:
        """Of the pair alone, with ties."""
        return (7.0 * columns[reads[0]] + columns[reads[1]]) % 5

    shape = catalogue.wishes.liked.shape
    everything = score(catalogue.pairs(reads, slice(None))).reshape(shape)
    expected = ranking(everything, catalogue.wishes.liked, catalogue.wishes.seen, 3)
    monkeypatch.setattr(module, "BYTES", bytes_)
    done: list[int] = []
    np.testing.assert_allclose(catalogue.rank(reads, score, 3, done.append), expected)
    assert sum(done) == shape[0]


def test_a_sample_is_drawn_by_hash_whatever_the_order(splits: dict[str, TrainingRows]) -> None:
    everybody, some = wishes_of(splits, 1000, 7), wishes_of(splits, 5, 7)
    assert len(some.users) == 5 and set(some.users) < set(everybody.users) and some.users == sorted(some.users)
    assert wishes_of(splits, 5, 8).users != some.users
    for row, user in enumerate(some.users):
        assert (some.liked[row] == everybody.liked[everybody.users.index(user)]).all()
        assert (some.seen[row] == everybody.seen[everybody.users.index(user)]).all()
    backwards = {
        split: TrainingRows(rows.table.take(np.arange(len(rows.table))[::-1]), {}) for split, rows in splits.items()
    }
    assert wishes_of(backwards, 5, 7).users == some.users


def test_nobody_to_rank_for() -> None:
    rows = rows_of(table(30, 1))
    labels = rows.table.schema.get_field_index("label")
    nobody = rows.table.set_column(labels, rows.table.schema.field("label"), [np.zeros(30, np.int8)])
    splits = {"train": rows, "validation": rows, "test": TrainingRows(nobody, {})}
    wishes = wishes_of(splits, 10, 1)
    assert isinstance(wishes, Wishes) and wishes.users == [] and wishes.liked.shape == (0, len(wishes.businesses))


def test_the_cut_is_a_microsecond_before_the_test(workspace: Workspace, splits: dict[str, TrainingRows]) -> None:
    cut = last_instant(splits["test"], workspace.params)
    if workspace.params.protocol == "point_in_time":
        assert cut == frame(splits["test"])["event_timestamp"].min() - pd.Timedelta(1, "us")
        assert cut >= frame(splits["validation"])["event_timestamp"].max()
    else:
        assert cut == workspace.params.history.as_of
