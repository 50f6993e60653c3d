"""How much of the paper's gap between its Tables 1 and 2 the label read backwards could explain."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from pipelines.paper.backwards import LEARNERS, READS, Experiment
from pipelines.paper.published import operating_points
from pipelines.paper.repeats import summary
from pipelines.paper.wording import name_of, number, percent

CELL = ("proposed", "basic", 0.1)  # the row of least FPR in Table 1, and of the widest gap
Point = dict[str, Any]
SPLITS = ("train", "held", "test")


def explains(found: Sequence[Experiment]) -> dict[str, Any]:
    """JSON: the paper's gap, ours where TPR is the paper's, and what can be said of it in words."""
    paper = {split: paper_point(split) for split in ("train", "test")}
    tpr = paper["train"]["tpr"]
    ours = [ours_at(one, tpr) for one in found if one.labels == "true"]
    gap = paper["test"]["fpr"] - paper["train"]["fpr"]
    return {
        "paper": paper | {"gap": gap},
        "tpr": tpr,
        "ours": ours,
        "words": [*of_paper(paper), *of_ours(ours, gap), *of_controls(found), *CANNOT_SAY],
    }


def paper_point(split: str) -> Point:
    """Accuracy and FPR as printed, TPR as they imply it."""
    point = next(one for one in operating_points(split) if (one["model"], one["class_weights"], one["dropout"]) == CELL)
    return {name: point[name] for name in ("accuracy", "fpr", "tpr")}


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
        "held_to_test_luck": luck(
            [(fpr[split], int((one.judged[0].labels[split] == 0).sum())) for split in SPLITS[1:]]
        ),
    }
    named = {"model": one.learner, "features": one.features, "reads": one.reads}
    return named | {f"{split}_fpr": value for split, value in fpr.items()} | moved | parts


def luck(shares: Sequence[tuple[float | None, int]]) -> float | None:
    """Half a 95 % interval of a difference or sum of shares of so many rows each, were the rows drawn anew.

    1.96 sqrt(sum p (1 - p) / n).
    """
    variance = 0.0
    for share, rows in shares:
        if share is None or not rows:
            return None
        variance += share * (1 - share) / rows
    return 1.96 * variance**0.5


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
            pair, past = lines.get("pair"), lines.get("point_in_time")
            if pair is None or pair["gap"] is None or pair["held_to_test_luck"] is None:
                yield f"{name_of(learner)} on {reads}: these data hold too few rows of either class to say."
                continue
            yield (
                f"{name_of(learner)} on {reads}, pair left out, at the TPR of the paper's train: FPR"
                f" {percent(pair['train_fpr'])} on train, {percent(pair['held_fpr'])} on train rows whose labels it"
                f" was not told, {percent(pair['test_fpr'])} on test. The first step, {points(pair['by_heart'])}, is"
                f" learned by heart; the label read backwards is in the second, {points(pair['held_to_test'])}"
                f" (± {points(pair['held_to_test_luck'])} by luck of the rows){past_beside(pair, past, gap)}."
            )


def past_beside(pair: Point, past: Point | None, gap: float) -> str:
    """The same step of features that know only the past, which is the yardstick of what the label backwards adds."""
    if past is None or past["held_to_test_luck"] is None:
        return "; there are no instants to hold a past beside it"
    added = pair["held_to_test"] - past["held_to_test"]
    chance = float(np.hypot(pair["held_to_test_luck"], past["held_to_test_luck"]))
    verdict = "nothing that so few rows could tell" if added <= chance else f"the paper's gap is {points(gap)}"
    return (
        f". From the past alone it is {points(past['held_to_test'])}, so reading backwards adds {points(added)}"
        f" (± {points(chance)}): {verdict}"
    )


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
    coins = {split: coin(first, split) for split in ("held", "test")}
    told, beyond = [], []
    for one in lines:
        aucs = {split: summary(judged.auc(split) for judged in one.judged)["mean"] for split in coins}
        told.append(f"{name_of(one.features)} {number(aucs['held'])} and {number(aucs['test'])}")
        for split, where in (("held", "untold train rows"), ("test", "test rows")):
            value, width = aucs[split], coins[split]
            if value is not None and width is not None and value > 0.5 + width:
                beyond.append(f"{name_of(one.features)} on {where}")
    return (
        f"{name_of(first.learner)} on {first.reads}, ratings dealt anew {len(first.judged)} times, AUC on untold train"
        f" rows and on test rows: {'; '.join(told)}. A coin would be within 0.5 ± {number(coins['held'])} and ±"
        f" {number(coins['test'])}; above it: {', '.join(beyond) or 'nothing'}."
    )


def coin(one: Experiment, split: str) -> float | None:
    """Three standard deviations of a mean AUC of scores that know nothing; so many, as there are many lines.

    3 sqrt((m + n + 1) / (12 m n k)): of the Mann-Whitney statistic of m and n rows without ties, k permutations.
    """
    counts = np.bincount(one.judged[0].labels[split], minlength=2).tolist()
    if min(counts) == 0:
        return None
    return float(3 * ((sum(counts) + 1) / (12 * counts[0] * counts[1] * len(one.judged))) ** 0.5)


CANNOT_SAY = (
    "What this can say: averages without one's own review carry it backwards, into train figures alone, and a learner"
    " that tells entities apart finds it. The paper's Table 1 is made of just such rows: its train figures are no"
    " measure of fit. Its test rows see whole training histories and carry nothing backwards: Table 2 is not made too"
    " good by this, but what was learned so is of no use there.",
    "What it cannot say: how much of the paper's own gap it is. Its reviews and summaries are not at hand (nor does it"
    " say whether a summary leaves the review out); learning by heart makes the same gap, and dropout and the choice of"
    " the epoch by FPR on test rows move it. That trees read backwards shows that the label is there; what the paper's"
    " network made of it, only that network could show.",
)
