"""What each group of features adds: the same network on the history numbers and one group, on several, on all."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.bootstrap import Draws, interval, mean_of_drawn_networks, replicated
from models.metrics import Floats, Labels, auc, log_loss
from models.trainer import Member
from models.variants import VARIANTS, Variant
from pipelines.core.params import Params
from pipelines.core.training_rows import TrainingRows
from pipelines.learning import learn

Said = Mapping[str, Floats]
"""Split -> probabilities (M, N) of M networks."""

BASELINE, PROPOSED = VARIANTS["baseline"], VARIANTS["proposed"]
TEXT, IMAGE = BASELINE.vectors["text"]
SUMMARIES, CAPTIONS = PROPOSED.vectors["text"], PROPOSED.vectors["caption"]
NUMBERS = Variant(texts={}, price_tag=None, lists={}, vectors={})


class Floor(NamedTuple):
    """What a floor's AUC on test is, and (R,) in each draw of users."""

    auc: float | None
    replicates: Floats


class Group(NamedTuple):
    """A row of the ablation: what is read, in words and as the network has it."""

    reads: tuple[str, ...]
    variant: Variant


GROUPS: Mapping[str, Group] = {
    "numbers": Group(("numbers",), NUMBERS),
    "numbers+text": Group(("numbers", "text"), Variant(BASELINE.texts, None, {}, {"text": (TEXT,)})),
    "numbers+summaries": Group(("numbers", "summaries"), Variant(PROPOSED.texts, None, {}, {"text": SUMMARIES})),
    "numbers+tags": Group(("numbers", "tags"), Variant({}, PROPOSED.price_tag, PROPOSED.lists, {})),
    "numbers+captions": Group(("numbers", "captions"), Variant({}, None, {}, {"caption": CAPTIONS})),
    "numbers+image": Group(("numbers", "image"), Variant({}, None, {}, {"image": (IMAGE,)})),
    "proposed": Group(("numbers", "summaries", "tags", "captions"), PROPOSED),
    "baseline": Group(("numbers", "text", "image"), BASELINE),
    "everything": Group(
        ("numbers", "text", "summaries", "tags", "captions", "image"),
        Variant(
            PROPOSED.texts,  # whether there are words is the same of both
            PROPOSED.price_tag,
            PROPOSED.lists,
            {"text": (TEXT, IMAGE), "summary": SUMMARIES, "caption": CAPTIONS},
        ),
    ),
}


def ablation(
    splits: Mapping[str, TrainingRows],
    users: NDArray[np.int64],
    draws: Draws,
    params: Params,
    members: Sequence[Member],
    learned: Mapping[str, Said],
    floors: Mapping[str, Floor],
) -> list[dict[str, Any]]:
    """A row a group: means over its networks on test, and how the mean AUC differs from that on numbers alone.

    `against`: how the AUC of its networks' mean probability, what one would deploy, differs from each floor's.

    Networks are `members` trained here, or what is `learned` already of a group. The difference's interval is of users
    drawn anew, by `draws` over `users` (N,), the test rows' own, and of networks drawn anew: those of one group differ
    by as much as groups do.
    """
    labels = splits["test"].labels
    made: list[dict[str, Any]] = []
    alone: tuple[float | None, Floats] | None = None
    for number, (name, group) in enumerate(GROUPS.items()):
        said = learned.get(name) or learn(splits, group.variant, params, members, f"{name}, {len(members)} networks")
        aucs = [auc(labels, one) for one in said["test"]]
        mean = mean_of(aucs)
        replicates = np.stack([replicated(labels, one, users, draws, ["auc"])["auc"] for one in said["test"]])
        drawn = mean_of_drawn_networks(replicates, np.random.default_rng([params.compare.seed, number]))
        alone = alone or (mean, drawn)
        together = said["test"].mean(axis=0)
        of_mean = replicated(labels, together, users, draws, ["auc"])["auc"]
        gain = less(mean, alone[0])
        made.append(
            {
                "name": name,
                "reads": list(group.reads),
                "networks": len(said["test"]),
                "auc": mean,
                "auc_std": spread_of(aucs),
                "log_loss": mean_log_loss(labels, said["test"]),
                "validation_log_loss": mean_log_loss(splits["validation"].labels, said["validation"]),
                "difference": {"auc": gain, **interval(drawn - alone[1])},
                "against": {
                    floor: {"auc": less(auc(labels, together), its.auc), **interval(of_mean - its.replicates)}
                    for floor, its in floors.items()
                },
            }
        )
    return made


def less(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


def mean_log_loss(labels: Labels, probabilities: Floats) -> float | None:
    """Of members' probabilities (M, N), each for itself."""
    return mean_of([log_loss(labels, one) for one in probabilities])


def mean_of(values: Sequence[float | None]) -> float | None:
    """None where one is."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if len(known) == len(values) else None


def spread_of(values: Sequence[float | None]) -> float | None:
    """Their standard deviation (n - 1); None where one is, or where there is only one."""
    known = [value for value in values if value is not None]
    return float(np.std(known, ddof=1)) if len(known) == len(values) > 1 else None
