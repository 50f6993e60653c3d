"""What each group of features adds: the same network on the history numbers and one group, on several, on all."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.bootstrap import Draws, interval, mean_of_drawn_networks, replicated
from models.columns import Columns
from models.metrics import Floats, Labels, auc, log_loss
from models.variants import VARIANTS, Variant
from models.vectors import has_vector

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


def with_data(train: Columns) -> dict[str, Variant]:
    """The groups that can be told from the numbers alone, by train rows' columns.

    One kind of features that no train row has would be the numbers once more, under other random numbers.
    """
    return {
        name: group.variant for name, group in GROUPS.items() if len(group.reads) != 2 or has_data(group.variant, train)
    }


def has_data(variant: Variant, columns: Columns) -> bool:
    """Whether any row has anything of what `variant` reads beside the numbers."""
    vectors = [name for spaces in variant.vectors.values() for space in spaces for name in space]
    tags = [*([variant.price_tag] if variant.price_tag else []), *variant.lists.values()]
    return any(has_vector(columns[name]).any() for name in vectors) or any(any(columns[name]) for name in tags)


def ablation(
    labels: Mapping[str, Labels],
    said: Mapping[str, Said],
    floors: Mapping[str, Floor],
    users: NDArray[np.int64],
    draws: Draws,
    seed: int,
    bootstrapped: Callable[[], object],
) -> list[dict[str, Any]]:
    """A row a group: means over its networks on test, and how the mean AUC differs from that on numbers alone.

    `labels`: of validation and test; `said`: what each group's networks say there, a group that is absent being one
    that the data have nothing of. `bootstrapped` is called `bootstraps(said)` times.

    `auc`, `log_loss` and `validation_log_loss` are means over networks, each judged for itself. `against` is of the AUC
    of their mean probability, what one would deploy, beside each floor's; its log loss on validation, by which one
    would choose what to deploy, is `validation_log_loss_of_mean`.

    The difference's interval is of users drawn anew, by `draws` over `users` (N,), the test rows' own, and of networks
    drawn anew, by `seed`: those of one group differ by as much as groups do.
    """
    test, validation = labels["test"], labels["validation"]
    made: list[dict[str, Any]] = []
    alone: tuple[float | None, Floats] | None = None

    def aucs_drawn(probabilities: Floats) -> Floats:
        """(R,) of (N,)."""
        drawn = replicated(test, probabilities, users, draws, ["auc"])["auc"]
        bootstrapped()
        return drawn

    for number, (name, group) in enumerate(GROUPS.items()):
        row = {"name": name, "reads": list(group.reads)}
        if name not in said:
            made.append(row | nothing(floors))
            continue
        networks = said[name]
        aucs = [auc(test, one) for one in networks["test"]]
        mean = mean_of(aucs)
        replicates = np.stack([aucs_drawn(one) for one in networks["test"]])
        drawn = mean_of_drawn_networks(replicates, np.random.default_rng([seed, number]))
        alone = alone or (mean, drawn)
        together = {split: probabilities.mean(axis=0) for split, probabilities in networks.items()}
        of_mean = aucs_drawn(together["test"])
        made.append(
            row
            | {
                "networks": len(networks["test"]),
                "auc": mean,
                "auc_std": spread_of(aucs),
                "log_loss": mean_log_loss(test, networks["test"]),
                "validation_log_loss": mean_log_loss(validation, networks["validation"]),
                "validation_log_loss_of_mean": log_loss(validation, together["validation"]),
                "difference": {"auc": less(mean, alone[0]), **interval(drawn - alone[1])},
                "against": {
                    floor: {"auc": less(auc(test, together["test"]), its.auc), **interval(of_mean - its.replicates)}
                    for floor, its in floors.items()
                },
            }
        )
    return made


def bootstraps(said: Mapping[str, Said]) -> int:
    """How many an ablation takes: one a network, and one of each group's mean."""
    return sum(len(networks["test"]) + 1 for networks in said.values())


def nothing(floors: Mapping[str, Floor]) -> dict[str, Any]:
    """The figures of a group that the data have nothing of."""
    figures = ("auc", "auc_std", "log_loss", "validation_log_loss", "validation_log_loss_of_mean")
    difference = {"auc": None, "low": None, "high": None}
    return {
        "no_data": True,
        "networks": 0,
        **dict.fromkeys(figures),
        "difference": difference,
        "against": dict.fromkeys(floors, difference),
    }


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
