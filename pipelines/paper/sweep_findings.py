"""Sentences of the sweep: what choosing by the test set flatters, and what a lower FPR is made of."""

from collections.abc import Iterator, Sequence

from pipelines.paper.repeats import Summary, summary_over_seeds
from pipelines.paper.wording import MISSING, Finding, Json, at, excludes_zero, number, signed


def sweep(content: Json) -> Iterator[Finding]:
    """Whether the proposed model's FPR, where it differs, is a better ranking or a moved threshold."""
    runs = content["runs"]
    yield from flattery(runs)
    pairs = pairs_of(runs)
    gaps = {figure: model_gap(pairs, figure) for figure in ("fpr", "tpr", "fpr_at_tpr_90")}
    if any(gap["mean"] is None for gap in gaps.values()):
        yield Finding(False, "The sweep's comparison of the two models: some of its figures are missing.")
        return
    told = {name: f"{signed(100 * gap['mean'], 1)} points ({points(gap)})" for name, gap in gaps.items()}
    said = (
        f"The sweep, chosen by validation's log loss, proposed less baseline, {len(pairs)} pairs of runs, mean of "
        f"{gaps['fpr']['n']} seeds: FPR {told['fpr']} at a TPR that differs by {told['tpr']}; at 90 % TPR, where no "
        f"threshold helps, FPR {told['fpr_at_tpr_90']}."
    )
    yield Finding(True, said + verdict(**gaps))
    yield Finding(
        False,
        "More than luck of the seed in the sweep: its intervals are over seeds on the same rows (runs of one seed "
        "share their start and batches, and count once), and say nothing of what other users would give.",
    )


def verdict(fpr: Json, tpr: Json, fpr_at_tpr_90: Json) -> str:
    """What a difference of FPR comes with: nothing, its price in TPR, or a better ranking."""
    if excludes_zero(fpr_at_tpr_90):
        return f" The {'proposed' if fpr_at_tpr_90['mean'] < 0 else 'baseline'} model ranks better there."
    if excludes_zero(fpr) and excludes_zero(tpr) and fpr["mean"] * tpr["mean"] > 0:
        return " So the FPR differs by where the threshold stands; a better ranking does not show."
    return " A better ranking does not show."


def flattery(runs: Sequence[Json]) -> Iterator[Finding]:
    """By how much the paper's choice of the epoch, on test rows, lowers the FPR that it reports of them.

    Only the set is changed for that, the criterion is not: the least FPR on validation stands against the least on
    test. What another criterion does to the FPR is said apart. Without epochs of least validation FPR: nothing.
    """
    by_set = choices_apart(runs, "validation_fpr_selected", "test_selected")
    by_criterion = choices_apart(runs, "validation_selected", "validation_fpr_selected")
    if by_set["mean"] is None or by_criterion["mean"] is None:
        return
    said = (
        f"mean of {by_set['n']} seeds, {len(runs)} runs). That is the set's part. The criterion's is another: by "
        f"validation's log loss in place of its FPR the test FPR moves by {signed(100 * by_criterion['mean'], 1)} "
        f"points ({points(by_criterion)}), and neither looks at test"
    )
    size = f"{number(100 * by_set['mean'], 1)} points"
    if excludes_zero(by_set):
        yield Finding(
            True,
            f"Choosing the epoch by the FPR of the test set, as the paper does, shows a test FPR {size} "
            f"({points(by_set)}) below what choosing by the FPR of validation gives ({said}.",
        )
    else:
        yield Finding(
            False,
            f"What choosing the epoch by the FPR of the test set, in place of validation's, flatters: {size} of test "
            f"FPR ({points(by_set)}; {said}.",
        )


def choices_apart(runs: Sequence[Json], one: str, other: str) -> Summary:
    """Test FPR at the epoch that `one` chose less that at the epoch that `other` chose, over seeds."""
    return summary_over_seeds(
        (run["seed"], less(at(run, one, "test", "fpr"), at(run, other, "test", "fpr"))) for run in runs
    )


def points(bounds: Json) -> str:
    """An interval of a difference of shares, in percentage points."""
    low, high = bounds["low"], bounds["high"]
    return MISSING if low is None or high is None else f"{number(100 * low, 1)} to {number(100 * high, 1)}"


def pairs_of(runs: Sequence[Json]) -> list[tuple[Json, Json]]:
    """(proposed, baseline), of one weighting, dropout and seed; a run without its like is in no pair."""
    found = {(run["model"], run["class_weights"], run["dropout"], run["seed"]): run for run in runs}
    return [
        (run, found["baseline", *cell]) for (model, *cell), run in found.items()
        if model == "proposed" and ("baseline", *cell) in found
    ]  # fmt: skip


def model_gap(pairs: Sequence[tuple[Json, Json]], figure: str) -> Summary:
    """Proposed less baseline on test at the epoch of least validation log loss, over seeds."""
    chosen = ("validation_selected", "test", figure)
    return summary_over_seeds((ours["seed"], less(at(ours, *chosen), at(theirs, *chosen))) for ours, theirs in pairs)


def less(minuend: float | None, subtrahend: float | None) -> float | None:
    return None if minuend is None or subtrahend is None else minuend - subtrahend
