"""How much of the paper's gap between its Tables 1 and 2 the label read backwards could explain."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.bootstrap import Interval, draw_users, interval
from pipelines.paper.chance import coin, no_coin, redrawn_fpr
from pipelines.paper.experiment import LEARNERS, READS, SPLITS, Experiment
from pipelines.paper.left_out import Kind
from pipelines.paper.published import operating_points
from pipelines.paper.repeats import summary
from pipelines.paper.wording import excludes_zero, name_of, number, percent

CELL = ("proposed", "basic", 0.1)  # the row of least FPR in Table 1
REPLICATES = 500
SEEDS = {"held": 0, "test": 1}  # of the draws of each split's pairs, the same under every rule
PAST: Kind = "point_in_time"
Point = dict[str, Any]
Floats = NDArray[np.float64]


def explains(found: Sequence[Experiment], why: str | None = None) -> dict[str, Any]:
    """JSON: the paper's gap, ours where TPR is the paper's, and what can be said of it in words.

    `why` there is nothing of ours, where `found` is empty.
    """
    paper = {split: paper_point(split) for split in ("train", "test")}
    tpr = paper["train"]["tpr"]
    ours = ours_of([one for one in found if one.labels == "true"], tpr)
    gap = paper["test"]["fpr"] - paper["train"]["fpr"]
    said = [*of_ours(ours, gap), *of_controls(found)] if found else [f"These data cannot show the same of ours: {why}."]
    return {
        "paper": paper | {"gap": gap},
        "tpr": tpr,
        "ours": ours,
        "words": [*of_paper(paper), *said, *CANNOT_SAY],
    }


def paper_point(split: str) -> Point:
    """Accuracy and FPR as printed, TPR as they imply it."""
    point = next(one for one in operating_points(split) if (one["model"], one["class_weights"], one["dropout"]) == CELL)
    return {name: point[name] for name in ("accuracy", "fpr", "tpr")}


def ours_of(found: Sequence[Experiment], tpr: float) -> list[Point]:
    """A point an experiment, and of the rules that leave something out what theirs adds to a past's step."""
    steps = {(one.learner, one.reads, one.features): redrawn_step(one, tpr) for one in found}
    made = {(one.learner, one.reads, one.features): ours_at(one, tpr) for one in found}
    for one in found:
        at, past = (one.learner, one.reads, one.features), (one.learner, one.reads, PAST)
        known = at != past and past in made
        # Both rules are judged on the same rows, so on the same draws of them.
        beyond = np.subtract(steps[at], steps[past]) if known else np.zeros(0)
        made[at] |= {
            "held_to_test_interval": interval(steps[at]),
            "beyond_past": less(made[at]["held_to_test"], made[past]["held_to_test"]) if known else None,
            "beyond_past_interval": interval(beyond),
        }
    return list(made.values())


def ours_at(one: Experiment, tpr: float) -> Point:
    """FPR where TPR on the same rows is `tpr`, and the gap in its two parts; means over seeds."""
    fpr = {split: summary(judged.fpr(split, tpr) for judged in one.judged)["mean"] for split in SPLITS}
    moved = {
        f"test_{name}_at_train_threshold": summary(
            judged.at_train_threshold("test", label, tpr) for judged in one.judged
        )["mean"]
        for name, label in (("fpr", 0), ("tpr", 1))
    }
    parts = {
        "gap": less(fpr["test"], fpr["train"]),
        "by_heart": less(fpr["held"], fpr["train"]),
        "held_to_test": less(fpr["test"], fpr["held"]),
    }
    named = {"model": one.learner, "features": one.features, "reads": one.reads}
    return named | {f"{split}_fpr": value for split, value in fpr.items()} | moved | parts


def redrawn_step(one: Experiment, tpr: float) -> Floats:
    """(REPLICATES,) `held_to_test` were other rows drawn: pairs of user and business with replacement, thresholds anew.

    The learners stay as they are: what other train rows would have taught is not in it.
    """
    fpr: dict[str, Floats] = {}
    for split, seed in SEEDS.items():
        pairs = one.pairs[split]
        draws = draw_users(int(pairs.max(initial=-1)) + 1, REPLICATES, seed)
        redrawn = [
            redrawn_fpr(judged.labels[split], judged.probabilities[split], pairs, draws, tpr) for judged in one.judged
        ]
        fpr[split] = np.mean(redrawn, axis=0)
    return fpr["test"] - fpr["held"]


def less(minuend: float | None, subtrahend: float | None) -> float | None:
    return None if minuend is None or subtrahend is None else minuend - subtrahend


def of_paper(paper: dict[str, Point]) -> Iterator[str]:
    train, test = paper["train"], paper["test"]
    yield (
        f"The paper's {' '.join(map(str, CELL))}: FPR {percent(train['fpr'])} on train at a TPR of"
        f" {number(train['tpr'])}, {percent(test['fpr'])} on test at {number(test['tpr'])}: a gap of"
        f" {points(test['fpr'] - train['fpr'])}."
    )


def of_ours(ours: Sequence[Point], gap: float) -> Iterator[str]:
    """Two sentences a learner and set of columns: the same gap on these data, in its parts."""
    for learner in LEARNERS:
        for reads in READS:
            lines = {line["features"]: line for line in ours if (line["model"], line["reads"]) == (learner, reads)}
            pair = lines.get("pair")
            if pair is None or pair["gap"] is None or pair["held_to_test_interval"]["low"] is None:
                yield f"{name_of(learner)} on {reads}: these data hold too few rows of either class to say."
                continue
            yield (
                f"{name_of(learner)} on {reads}, pair left out, at the TPR of the paper's train: FPR"
                f" {percent(pair['train_fpr'])} on train, {percent(pair['held_fpr'])} on train rows whose labels it"
                f" was not told, {percent(pair['test_fpr'])} on test. The first step, {points(pair['by_heart'])}, is"
                f" learned by heart; the label read backwards is in the second, {points(pair['held_to_test'])}"
                f" ({span(pair['held_to_test_interval'])} by luck of the rows)"
                f"{beside_past(pair, lines.get(PAST), gap)}."
            )


def beside_past(pair: Point, past: Point | None, gap: float) -> str:
    """The same step of features that know only the past, which is the yardstick of what the label backwards adds."""
    if past is None:
        return "; there are no instants to hold a past beside it"
    added, luck = pair["beyond_past"], pair["beyond_past_interval"]
    if added is None or luck["low"] is None:
        return "; from the past alone these data hold too few rows to say"
    said = f". From the past alone it is {points(past['held_to_test'])}"
    if not excludes_zero(luck):
        return f"{said}: a difference of {points(added)} ({span(luck)}), nothing that so few rows could tell"
    if added < 0:
        return (
            f"{said}: {points(-added)} more than where the pair is left out ({span(luck)} for the difference), the"
            " opposite of what reading backwards does"
        )
    return f"{said}, so reading backwards adds {points(added)} ({span(luck)}): the paper's gap is {points(gap)}"


def span(bounds: Interval) -> str:
    """A 95 % interval in percentage points."""
    low, high = (None if end is None else 100 * end for end in (bounds["low"], bounds["high"]))
    return f"{number(low, 1)} to {number(high, 1)}"


def points(share: float) -> str:
    return f"{number(100 * share, 1)} points"


def of_controls(found: Sequence[Experiment]) -> Iterator[str]:
    """Ratings dealt anew before the features were made: who is above 0.5 on rows whose labels were not told?"""
    yield (
        "With ratings dealt anew there is nothing honest to learn: what AUC has above 0.5 on train rows whose labels"
        " were not told is the label, read backwards, and on test rows nobody can have any."
    )
    for learner in LEARNERS:
        for reads in READS:
            lines = [one for one in found if (one.learner, one.reads, one.labels) == (learner, reads, "permuted")]
            if lines:
                yield of_control(lines)


def of_control(lines: Sequence[Experiment]) -> str:
    """One learner's sentence, a rule a line."""
    first = lines[0]
    told, odd = [], []
    for one in lines:
        held, test = (dealt(one, split) for split in SEEDS)
        told.append(f"{name_of(one.features)} {beside_coin(held)} and {beside_coin(test)}")
        for where, found in (("untold train rows", held), ("test rows", test)):
            if no_coin(*found):
                odd.append(f"{name_of(one.features)} on {where}")
    return (
        f"{name_of(first.learner)} on {first.reads}, ratings dealt anew {len(first.judged)} times, AUC on untold train"
        f" rows and on test rows (and how far from 0.5 a coin might be): {'; '.join(told)}."
        f" Beyond a coin: {', '.join(odd) or 'nothing'}."
    )


def dealt(one: Experiment, split: str) -> tuple[float | None, float | None]:
    """Mean AUC over permutations, and a coin's width on the very rows."""
    mean = summary(judged.auc(split) for judged in one.judged)["mean"]
    return mean, coin(one.counts()[split], len(one.judged))


def beside_coin(found: tuple[float | None, float | None]) -> str:
    return f"{number(found[0])} (± {number(found[1])})"


CANNOT_SAY = (
    "What this can say: averages without one's own review carry it backwards, into train figures alone, and a learner"
    " that tells entities apart can find it. The paper's Table 1 is made of just such rows: its train figures are no"
    " measure of fit. Its test rows see whole training histories and carry nothing backwards: Table 2 is not made too"
    " good by this, but what was learned so is of no use there.",
    "What it cannot say: how much of the paper's own gap it is. Its reviews and summaries are not at hand (nor does it"
    " say whether a summary leaves the review out); learning by heart makes the same gap, and dropout and the choice of"
    " the epoch by FPR on test rows move it. Where trees read backwards, the label is there to be read; what the"
    " paper's network made of it, only that network could show.",
)
