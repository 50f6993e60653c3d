"""Which reviews take part, and where each belongs: train, validation or test, and its fold.

Membership depends on ids and instants alone, by hashes, never on row order, stars or text. Reviews that
`leave_one_out` excludes (users and businesses with one review, to a fixpoint) have no row.
"""

import argparse
import hashlib
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from pipelines.core.command import run_stage
from pipelines.core.errors import UserError
from pipelines.core.params import Params, Protocol, Split
from pipelines.core.tables import REVIEWS, SPLIT, read_table, write_table

Codes = npt.NDArray[np.uint64]


def hash_pairs(users: pd.Series, businesses: pd.Series, seed: int, purpose: str) -> Codes:
    """One uint64 per row from the ids of its pair: 8 bytes of SHA-256, the same on every machine."""
    row, pairs = pd.factorize(_one_line(users) + "\n" + _one_line(businesses))
    hashes = (hashlib.sha256(f"{purpose}\n{seed}\n{pair}".encode()).digest()[:8] for pair in pairs)
    return np.array([int.from_bytes(first, "big") for first in hashes], np.uint64)[row]


def _one_line(ids: pd.Series) -> pd.Series:
    """Ids without line feeds, still distinct: two ids joined by one are then one pair's alone."""
    escaped = ids.str.replace("\\", "\\\\", regex=False)
    return escaped.str.replace("\n", "\\n", regex=False)


def without_singles(reviews: pd.DataFrame) -> pd.DataFrame:
    """Drop users and businesses with one review until none is left (section 3.2 of the paper)."""
    while True:
        keep = pd.Series(True, index=reviews.index)
        for key in ("user_id", "business_id"):
            keep &= reviews.groupby(key)[key].transform("size") > 1
        if keep.all():
            return reviews
        reviews = reviews[keep]


def split_by_time(instants: pd.Series, split: Split) -> npt.NDArray[np.str_]:
    """The last `test_share` of rows is test, the last `validation_share` of the rest validation.

    A cut never goes through an instant: its reviews all fall on the later side.
    """
    ordered = np.sort(instants.to_numpy())
    test_from = ordered[int(len(ordered) * (1 - split.test_share))]
    rest = ordered[ordered < test_from]
    validation_from = rest[int(len(rest) * (1 - split.validation_share))] if len(rest) else test_from
    values = instants.to_numpy()
    return np.where(values >= test_from, "test", np.where(values >= validation_from, "validation", "train"))


def split_by_pair(reviews: pd.DataFrame, split: Split) -> npt.NDArray[np.str_]:
    """Random by pair: 1 : 3 of rows to test, `validation_share` of the rest to validation.

    Every user's and every business's first pair by hash stays in train, so that each of them is known there.
    """
    order = hash_pairs(reviews["user_id"], reviews["business_id"], split.seed, "split")
    pairs = pd.DataFrame({"user_id": reviews["user_id"], "business_id": reviews["business_id"], "order": order})
    pairs = pairs.groupby(["user_id", "business_id", "order"], as_index=False).size()
    anchor = pd.Series(False, index=pairs.index)
    for key in ("user_id", "business_id"):
        anchor |= pairs["order"] == pairs.groupby(key)["order"].transform("min")
    free = pairs[~anchor].sort_values("order")
    placed = free["size"].cumsum()
    test_rows = round(len(reviews) * split.test_share)
    validation_rows = round((len(reviews) - test_rows) * split.validation_share)
    pairs["split"] = "train"
    pairs.loc[free.index[placed <= test_rows + validation_rows], "split"] = "validation"
    pairs.loc[free.index[placed <= test_rows], "split"] = "test"
    if placed.iloc[-1] < test_rows + validation_rows if len(free) else test_rows:
        print(
            f"split: only {int(free['size'].sum())} of {len(reviews)} rows can leave train without making a user or"
            f" business unknown there; {test_rows} were wanted for test and {validation_rows} for validation",
            file=sys.stderr,
        )
    return pairs.set_index("order")["split"].reindex(order).to_numpy()


def split_reviews(reviews: pd.DataFrame, protocol: Protocol, split: Split) -> pd.DataFrame:
    """Rows (review_id, split, fold), sorted by review_id.

    `reviews` has review_id, user_id, business_id, event_timestamp. Raises UserError where the protocol needs
    instants that the source has not, or where a split would be empty.
    """
    if protocol == "point_in_time":
        unknown = int(reviews["event_timestamp"].isna().sum())
        if unknown:
            raise UserError(
                f"protocol point_in_time: {unknown} of {len(reviews)} reviews have no instant;"
                " a source without instants knows only `protocol: leave_one_out`"
            )
        member = reviews
        splits = split_by_time(member["event_timestamp"], split)
    else:
        member = without_singles(reviews)
        splits = split_by_pair(member, split) if len(member) else np.array([], str)
    folds = hash_pairs(member["user_id"], member["business_id"], split.seed, "fold") % np.uint64(split.folds)
    rows = pd.DataFrame({"review_id": member["review_id"], "split": splits, "fold": folds.astype("int8")})
    counts = rows["split"].value_counts()
    empty = [name for name in ("train", "validation", "test") if name not in counts]
    if empty:
        raise UserError(
            f"split: no row for {', '.join(empty)} among {len(rows)} of {len(reviews)} reviews"
            f" under {protocol}; bring more reviews, or change split.test_share and split.validation_share"
        )
    return rows.sort_values("review_id", ignore_index=True)


def write_split(reviews: Path, out: Path, params: Params) -> None:
    """The stage: read the review table's ids and instants, write the membership."""
    columns = ["review_id", "user_id", "business_id", "event_timestamp"]
    table = read_table(reviews, REVIEWS, columns).to_pandas()
    rows = split_reviews(table, params.protocol, params.split)
    write_table(pa.Table.from_pandas(rows, preserve_index=False), out, SPLIT)
    counts = rows["split"].value_counts()
    parts = ", ".join(f"{counts[name]} {name}" for name in ("train", "validation", "test"))
    print(f"split: {len(table)} reviews = {parts}, {len(table) - len(rows)} excluded")


def main(args: argparse.Namespace, params: Params) -> None:
    write_split(args.reviews, args.out, params)


if __name__ == "__main__":
    run_stage(main, __doc__, {"reviews": "the review table", "out": "the membership table to write"})
