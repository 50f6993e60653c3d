"""Networks side by side, a stack a group of features, each kept in the cache folder as soon as it is trained.

Kept are weights, by all that decides them: what they say is computed anew, in far less than a second.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from models.recommender import RankingStack
from models.trainer import Member
from models.variants import Variant
from pipelines.core.errors import UserError
from pipelines.core.params import Params
from pipelines.core.progress import progress
from pipelines.core.tables import whole_file
from pipelines.learning import (
    OnEpoch,
    Splits,
    advance,
    encoding_for,
    fit_encodings,
    fit_reducers,
    prepare,
    schedule_of,
    train_stack,
)
from pipelines.paper.kept import code_digest, key_of

FOLDER = "compare"  # of the cache folder
NETWORK = {"bottom": True, "top": True, "wide": True}  # of `train`; the pace is the schedule's


def train_groups(
    splits: Splits, groups: Mapping[str, Variant], params: Params, members: Sequence[Member], fingerprint: str
) -> dict[str, RankingStack]:
    """A stack of `members` a group, trained or as it was kept. `fingerprint`: of the training set.

    UserError where one cannot be trained: those before it are kept.
    """
    folder = params.cache.folder() / FOLDER
    paths = {name: folder / f"{key(group, params, members, fingerprint)}.safetensors" for name, group in groups.items()}
    weights = {name: tensors for name, path in paths.items() if (tensors := kept(path)) is not None}
    if weights:
        print(f"compare: {len(weights)} of {len(groups)} stacks of networks are done already")
    todo = [name for name in groups if name not in weights]
    epochs = schedule_of(params).epochs
    # At most so many epochs, as if none stopped early.
    with progress(len(todo) * epochs, "train", "epoch") as bar:
        for done, name in enumerate(todo, start=1):
            bar.set_description(f"train {name}", refresh=False)
            try:
                weights[name] = train(splits, groups[name], params, members, lambda epoch: advance(bar, epoch), name)
            except UserError as error:
                raise UserError(f"compare, {name}: {error}") from None
            with whole_file(paths[name]) as path:
                save_file(weights[name], path)
            bar.update(done * epochs - bar.n)
    # All from their weights, so that it makes no difference which of them were trained just now.
    return {name: with_weights(splits, group, params, members, weights[name]) for name, group in groups.items()}


def key(group: Variant, params: Params, members: Sequence[Member], fingerprint: str) -> str:
    """Of all that decides a stack's weights, and of nothing else."""
    return key_of(
        repr(group),  # fields in their order, which JSON would sort
        params.model_dump(mode="json", include={"protocol": True, "selection": True, "reduce": True, "train": NETWORK}),
        params.history.numbers,
        dataclasses.asdict(schedule_of(params)),
        [dataclasses.asdict(member) for member in members],
        fingerprint,
        code_digest("pipelines/paper/trained.py"),
    )


def kept(path: Path) -> dict[str, Tensor] | None:
    """Weights that are done; None where they are not, or where the file is broken."""
    try:
        return load_file(path)
    except (FileNotFoundError, SafetensorError):
        return None


def train(
    splits: Splits, group: Variant, params: Params, members: Sequence[Member], on_epoch: OnEpoch, label: str
) -> dict[str, Tensor]:
    """The weights of a stack. Reducers that are fitted by themselves have a progress of their own, under `label`."""
    rows = splits["train"]
    vectors = fit_encodings(rows.columns, group)
    reducers = fit_reducers(splits, vectors, params, [member.seed for member in members], label)
    made = prepare(rows, encoding_for(rows.columns, group, vectors, params), reducers, params, members)
    train_stack(made, splits, params, members, on_epoch, with_auc=False)
    return {name: tensor.detach().contiguous() for name, tensor in made.network.state_dict().items()}


def with_weights(
    splits: Splits, group: Variant, params: Params, members: Sequence[Member], weights: Mapping[str, Tensor]
) -> RankingStack:
    """The stack whose weights these are."""
    rows = splits["train"]
    encoding = encoding_for(rows.columns, group, fit_encodings(rows.columns, group), params)
    made = prepare(rows, encoding, {}, params, members)
    made.network.load_state_dict(weights)
    made.network.eval()
    return made
