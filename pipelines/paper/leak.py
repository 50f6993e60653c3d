"""What a leak is worth: the same network on histories that hold the review itself, and on the label read backwards.

A labelled experiment. The leaky features come from `leaky_features`, under quarantine: nothing of them is written down
but figures. The second, quieter leak is that of the paper's own protocol (`backwards`, `gap`).
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray

from models.columns import Unencodable
from models.floors import gradient_boosting
from models.metrics import auc
from models.trainer import Member
from models.variants import Variant
from pipelines.core.command import run_stage
from pipelines.core.errors import UserError
from pipelines.core.json_files import write_json
from pipelines.core.params import Params
from pipelines.core.progress import progress
from pipelines.core.tables import REVIEWS, read_table
from pipelines.core.training_rows import TrainingRows, read_splits
from pipelines.history import MEMBER_COLUMNS, read_members, read_vectors
from pipelines.learning import learn
from pipelines.paper.backwards import VARIANT_OF, count_of, experiments, missing_lines, too_few
from pipelines.paper.described import data_of
from pipelines.paper.gap import explains
from pipelines.paper.leaky_features import with_own_review
from pipelines.paper.left_out import Histories
from pipelines.paper.repeats import summary
from pipelines.paper.wording import number
from pipelines.split import split_reviews

Splits = Mapping[str, TrainingRows]
NETWORKS: Mapping[str, Variant] = {
    # Its images are left out: they are honest in both, and with them it would take four times as long.
    "baseline without images": VARIANT_OF["numbers and entity text"],
    "numbers": VARIANT_OF["numbers"],
}
USER_MEAN = "user_history__rating_mean"
NO_INSTANTS = "the source has no instants, so nothing is known to have been before"


def leaky(splits: Splits, members: pa.Table, made: Mapping[str, np.ndarray]) -> dict[str, TrainingRows]:
    """The rows of `splits` with the columns of `made` (of `members`, N) in place of their honest ones."""
    changed = {}
    for split, rows in splits.items():
        at = pc.index_in(rows.table["review_id"].combine_chunks(), members["review_id"].combine_chunks())
        assert not at.null_count, "the training set is made of the members"
        own = at.to_numpy(zero_copy_only=False)
        changed[split] = replace(rows, columns={**rows.columns, **{name: some[own] for name, some in made.items()}})
    return changed


def worth(
    of_features: Mapping[str, Splits], params: Params, seeds: Sequence[int], done: Callable[[], object]
) -> list[dict[str, Any]]:
    """A line for each network, and for boosted trees on the numbers, on each kind of features; AUC is test's.

    `done` is called after each.
    """
    members = [Member(seed, params.dropout, params.class_weights) for seed in seeds]
    params = params.model_copy(update={"selection": "validation"})  # the experiment's one leak is in the features
    lines = []
    for name, variant in NETWORKS.items():
        for features, splits in of_features.items():
            answers = learn(splits, variant, params, members, f"{name}, {features}")
            lines.append(line(name, features, splits, answers))
            done()
    for features, splits in of_features.items():
        columns = {split: rows.columns for split, rows in splits.items()}
        labels = {split: rows.labels for split, rows in splits.items()}
        trees = gradient_boosting(columns, labels, tuple(splits), seeds[0])  # the same from every seed
        answers = {split: trees[split][None] for split in splits}
        lines.append(line("gradient_boosting", features, splits, answers))
        done()
    return lines


def line(model: str, features: str, splits: Splits, answers: Mapping[str, NDArray[np.float64]]) -> dict[str, Any]:
    """AUC by split, means over seeds; `answers`: split -> probabilities (seeds, N)."""
    found = {split: summary(auc(rows.labels, one) for one in answers[split]) for split, rows in splits.items()}
    return {
        "model": model,
        "features": features,
        "auc": found["test"]["mean"],
        "auc_std": found["test"]["std"],
        "train_auc": found["train"]["mean"],
        "validation_auc": found["validation"]["mean"],
    }


def alone(of_features: Mapping[str, Splits], members: pa.Table) -> dict[str, float | None]:
    """AUC of a user's mean rating and nothing else.

    On test rows with and without the own review (who has no mean stands at train's), and on all rows with all reviews
    of the user, later ones too, which is how it is met in the wild.
    """
    frame = members.to_pandas()
    everything = frame.groupby("user_id")["rating"].transform("mean").to_numpy(np.float64)
    return {
        "user_mean_with_own": auc_of_mean(of_features["leaky"]),
        "user_mean_honest": auc_of_mean(of_features["honest"]),
        "user_mean_of_all_reviews": auc((frame["rating"] >= 4).to_numpy(np.int8), everything),
    }


def auc_of_mean(splits: Splits) -> float | None:
    """Of test rows; None where no train user has a mean, or test has one class."""
    train, test = (splits[split].columns[USER_MEAN] for split in ("train", "test"))
    known = train[~np.isnan(train)]
    return auc(splits["test"].labels, np.where(np.isnan(test), known.mean(), test)) if len(known) else None


def paper_histories(reviews: Path, text: Path, params: Params) -> Histories:
    """The reviews that the paper's protocol takes, in its own random split, whatever protocol is set.

    UserError where it takes none, or leaves a split empty.
    """
    table = read_table(reviews, REVIEWS, MEMBER_COLUMNS)
    membership = split_reviews(table.to_pandas(), "leave_one_out", params.split)
    drawn = pa.Table.from_pandas(pd.DataFrame(membership), preserve_index=False)
    members = table.join(drawn, "review_id", join_type="inner").sort_by("review_id")
    return Histories(members, read_vectors(text, members["review_id"]), params.history)


def histories_or_why(args: argparse.Namespace, params: Params) -> Histories | str:
    """`paper_histories`; where these data have none to learn from, why: that is a finding, not a failure."""
    try:
        histories = paper_histories(args.reviews, args.text, params)
    except UserError as error:
        return str(error)
    return too_few(histories) or histories


def content_of(args: argparse.Namespace, params: Params) -> dict[str, Any]:
    """What leak.json holds."""
    seeds = [params.leak.seed + i for i in range(params.leak.seeds)]
    honest = read_splits(args.training_set, "baseline")
    members = read_members(args.reviews, args.split)
    text = read_vectors(args.text, members["review_id"])
    # The leaky features, then each network and the trees on both kinds of features.
    with progress(1 + 2 * (len(NETWORKS) + 1), "leak", "experiment") as bar:
        made = with_own_review(members.to_pandas(), text, params.protocol)
        bar.update()
        of_features = {"honest": honest, "leaky": leaky(honest, members, made)}
        lines = worth(of_features, params, seeds, bar.update)
    content = {"data": data_of(honest, params), "leak": lines, "alone": alone(of_features, members)}
    return content | label_backwards(args, params)


def label_backwards(args: argparse.Namespace, params: Params) -> dict[str, Any]:
    """The two entries of leak.json that `backwards` and `gap` make."""
    histories = histories_or_why(args, params)
    if isinstance(histories, str):
        return {"backwards": missing_lines((), histories), "explains": explains([], histories)}
    with progress(count_of(histories.kinds, params.leak), "backwards", "experiment") as bar:
        found = list(experiments(histories, params, bar.update))
    lines = [one.line() for one in found] + missing_lines(histories.kinds, NO_INSTANTS)
    return {"backwards": lines, "explains": explains(found)}


def main(args: argparse.Namespace, params: Params) -> None:
    torch.set_num_threads(1)  # the last bits depend on the number of threads
    try:
        content = content_of(args, params)
    except Unencodable as error:
        raise UserError(f"{args.training_set}: {error}; run `dvc repro` to remake the tables") from None
    write_json(content, args.out)
    for row in content["leak"]:
        print(f"leak: {row['model']}, {row['features']}: test AUC {number(row['auc'])}")


if __name__ == "__main__":
    run_stage(
        main,
        __doc__,
        {
            "training-set": "folder of train, validation and test",
            "reviews": "the review table",
            "split": "the membership table",
            "text": "the review texts' embeddings",
            "out": "the JSON to write",
        },
    )
