"""How a recommender is learned from a training set: reducers, then the DLRM, a stack of members at once.

One way for all who train: the stages `reduce` and `train`, and the paper's experiment.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from models import stacked
from models.columns import Columns
from models.encoding import DenseEncoding, Encoding
from models.history_numbers import used_numbers
from models.losses import class_weights
from models.recommender import RankingStack, build, build_reducers
from models.reducer import Reducer, UpstreamClassifier
from models.selection import BY_FPR_OF, Selection
from models.stacked import stack
from models.tags import ListEncoding, OneHotEncoding
from models.trainer import Diverged, Epoch, Fitted, Member, Rows, Schedule, fit, seeded
from models.variants import Variant
from models.vectors import VectorEncoding
from pipelines.core.errors import UserError
from pipelines.core.params import Params
from pipelines.core.progress import progress
from pipelines.core.training_rows import TrainingRows, reducers_part
from pipelines.core.vocabulary import MOST_SUBTYPES, PRICE_TAGS, restaurant_types

Splits = Mapping[str, TrainingRows]
OnEpoch = Callable[[Epoch], None]
# What each selection looks at after every epoch: the paper's looks at test.
WATCHED: Mapping[Selection, tuple[str, ...]] = {
    "validation": ("train", "validation"),
    "validation_fpr": ("train", "validation"),
    "paper": ("train", "validation", "test"),
}


def learn(
    splits: Splits, variant: Variant, params: Params, members: Sequence[Member], label: str | None
) -> dict[str, NDArray[np.float64]]:
    """Split -> calibrated probabilities (M, N) of networks learned from train and validation, as params say.

    `variant` says what is read, `label` heads the progress (None: nobody watches). UserError where training diverges or
    cannot begin.
    """
    learned = recommender(splits, variant, params, members, label)
    return {split: learned.member_probabilities(rows.columns) for split, rows in splits.items()}


def recommender(
    splits: Splits, variant: Variant, params: Params, members: Sequence[Member], label: str | None
) -> RankingStack:
    """The networks of `learn`."""
    vectors = fit_encodings(splits["train"].columns, variant)
    reducers = fit_reducers(splits, vectors, params, [member.seed for member in members], label)
    encoding = encoding_for(splits["train"].columns, variant, vectors, params)
    made = prepare(splits["train"], encoding, reducers, params, members)
    with epochs_bar(schedule_of(params).epochs, label) as bar:
        train_stack(made, splits, params, members, lambda epoch: advance(bar, epoch), with_auc=False)
    return made


def epochs_bar(total: int, label: str | None) -> "tqdm[Any]":
    """Progress in epochs; with None nobody watches."""
    return progress(total, label or "", "epoch", watched=label is not None)


def advance(bar: "tqdm[Any]", epoch: Epoch) -> None:
    """Show an epoch: validation's log loss, of several members the mean."""
    bar.set_postfix(validation=f"{epoch.figures['validation'].log_loss.mean():.4f}", refresh=False)
    bar.update()


# --- reducers --------------------------------------------------------------------------------------------------------


def fit_encodings(train: Columns, variant: Variant) -> dict[str, VectorEncoding]:
    """Field -> how its vectors are made comparable, of each field that has a reducer."""
    return {field: VectorEncoding.fit(train, spaces) for field, spaces in variant.vectors.items()}


def fit_reducers(
    splits: Splits, vectors: Mapping[str, VectorEncoding], params: Params, seeds: Sequence[int], label: str | None
) -> dict[str, Reducer]:
    """Field -> the stack of reducers, one a seed, that `reduce.mode` asks for. Equal seeds make equal reducers.

    `label` heads the progress; None: nobody watches.
    """
    drawn = {}
    distinct = list(dict.fromkeys(seeds))
    owners = torch.tensor([distinct.index(seed) for seed in seeds])
    if params.reduce.mode == "joint":
        return build_reducers(params.reduce.model_dump(), vectors, seeds)
    part = part_of_train(splits["train"], params) if params.reduce.mode == "split" else None
    for field, reducer in build_reducers(params.reduce.model_dump(), vectors, distinct).items():
        fit_alone(reducer, splits, vectors[field], part, params, distinct, label)
        stacked.keep(reducer, owners)
        drawn[field] = reducer
    return drawn


def fit_alone(
    reducer: Reducer,
    splits: Splits,
    vectors: VectorEncoding,
    part: NDArray[np.bool_] | None,
    params: Params,
    seeds: Sequence[int],
    label: str | None,
) -> None:
    """Train one field's reducers in place under heads of their own, on `part` of the train rows or on all."""
    stage, field = params.reduce, reducer.field
    heads = []
    for seed in seeds:
        with seeded(seed):
            heads.append(UpstreamClassifier(reducer, stage.hidden[-1]).head)
    network = UpstreamClassifier(reducer, stage.hidden[-1])
    network.head = stack(heads)
    watched = {
        split: Rows({field: torch.from_numpy(vectors.encode(splits[split].columns))}, splits[split].labels)
        for split in ("train", "validation")
    }
    if part is not None:
        watched["train"] = watched["train"].only(part)
    schedule = Schedule(**stage.model_dump(include=set(Schedule.__annotations__)))
    with epochs_bar(stage.epochs, label and f"{label}, {field}") as bar:
        try:
            fit(network, watched, even(len(seeds)), schedule, seeds, lambda epoch: advance(bar, epoch), with_auc=False)
        except Diverged as error:
            raise UserError(f"reduce {field}: {error}; lower `reduce.learning_rate` ({stage.learning_rate})") from None


def part_of_train(train: TrainingRows, params: Params) -> NDArray[np.bool_]:
    """Train rows (N,) that are `split` reducers'; UserError where that leaves one side without any."""
    part = reducers_part(train, params.protocol)
    if not 0 < part.sum() < len(part):
        raise UserError("`reduce.mode` is split, but the train rows cannot be halved; take more reviews or `joint`")
    return part


def even(members: int) -> torch.Tensor:
    """Class weights (M, 2) that weigh nothing."""
    return torch.full((members, 2), 0.5)


# --- the DLRM --------------------------------------------------------------------------------------------------------


def encoding_for(train: Columns, variant: Variant, vectors: Mapping[str, VectorEncoding], params: Params) -> Encoding:
    """What the networks read, fitted on train rows, with `vectors` as the reducers had them."""
    return Encoding(
        DenseEncoding.fit(train, used_numbers(params.history.numbers, tuple(variant.texts)), variant.texts),
        OneHotEncoding(variant.price_tag, PRICE_TAGS) if variant.price_tag else None,
        {field: ListEncoding(name, restaurant_types(), MOST_SUBTYPES) for field, name in variant.lists.items()},
        vectors,
    )


def prepare(
    train: TrainingRows,
    encoding: Encoding,
    reducers: Mapping[str, Reducer],
    params: Params,
    members: Sequence[Member],
) -> RankingStack:
    """Untrained DLRMs over the given reducers. UserError where shapes or labels do not allow them."""
    counts = {label: int((train.labels == label).sum()) for label in (0, 1)}
    try:
        network = build(params.model_dump(include={"reduce", "train"}), encoding, members)
        weights = [class_weights(counts, member.class_weights) for member in members]
    except ValueError as error:
        raise UserError(f"params.yaml: {error}") from None
    for field, reducer in reducers.items():
        network.reducer(field).load_state_dict(reducer.state_dict())
    return RankingStack(network, encoding, torch.tensor(weights))


def train_stack(
    made: RankingStack,
    splits: Splits,
    params: Params,
    members: Sequence[Member],
    on_epoch: OnEpoch,
    selections: Sequence[Selection] | None = None,
    with_auc: bool = True,
) -> Fitted:
    """Train `made` in place. Reducers that are fitted already stay as they are, their projections made once.

    It stops by `selection`, or by the first of `selections`.
    """
    wanted = tuple(selections or [params.selection])
    check_selectable(splits, wanted)
    joint = params.reduce.mode == "joint"
    names = dict.fromkeys(split for selection in wanted for split in WATCHED[selection])
    watched = {split: rows_for(made, splits[split], joint) for split in names}
    if params.reduce.mode == "split":
        watched["train"] = watched["train"].only(~reducers_part(splits["train"], params.protocol))
    network = made.network if joint else made.network.dlrm
    seeds = [member.seed for member in members]
    schedule = schedule_of(params)
    try:
        return fit(network, watched, made.weights, schedule, seeds, on_epoch, wanted, with_auc)
    except Diverged as error:
        where = "paper" if params.selection == "paper" else "train"
        raise UserError(f"train: {error}; lower `{where}.learning_rate` ({schedule.learning_rate})") from None


def check_selectable(splits: Splits, selections: Sequence[Selection]) -> None:
    """UserError where a selection by FPR has no disliked row to have an FPR of: no epoch would ever be better."""
    for selection in selections:
        split = BY_FPR_OF.get(selection)
        if split is not None and not (splits[split].labels == 0).any():
            raise UserError(
                f"selection by the FPR of {split}: none of its {len(splits[split].labels)} rows is disliked;"
                " take more reviews, or `selection: validation`"
            )


def rows_for(made: RankingStack, rows: TrainingRows, joint: bool) -> Rows:
    """Inputs of the whole network, or of the DLRM alone."""
    inputs = made.inputs(rows.columns)
    return Rows(inputs if joint else made.network.project(inputs), rows.labels)


def schedule_of(params: Params) -> Schedule:
    """How `selection` trains: as section `train` says, or as the paper did."""
    section = params.paper if params.selection == "paper" else params.train
    return Schedule(**section.model_dump(include=set(Schedule.__annotations__)))
