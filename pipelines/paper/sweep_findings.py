"""Sentences of the sweep: what choosing by the test set flatters, and what a lower FPR is made of."""

from collections.abc import Iterator, Sequence
from typing import Any

from pipelines.paper.repeats import summary
from pipelines.paper.wording import MISSING, Finding, Json, at, excludes_zero, number, signed


def sweep(content: Json) -> Iterator[Finding]:
    """Whether the proposed model's FPR, where it differs, is a better ranking or a moved threshold."""
    runs = content["runs"]
    yield from flattery(runs)
    gaps = {figure: model_gap(runs, figure) for figure in ("fpr", "tpr", "fpr_at_tpr_90")}
    if any(gap["mean"] is None for gap in gaps.values()):
        yield Finding(False, "The sweep's comparison of the two models: some of its figures are missing.")
        return
    told = {name: f"{signed(100 * gap['mean'], 1)} points ({points(gap)})" for name, gap in gaps.items()}
    said = (
        f"The sweep, chosen on validation, proposed less baseline over {gaps['fpr']['n']} pairs of runs: FPR "
        f"{told['fpr']} at a TPR that differs by {told['tpr']}; at 90 % TPR, where no threshold helps, FPR "
        f"{told['fpr_at_tpr_90']}."
    )
    yield Finding(True, said + verdict(**gaps))
    yield Finding(
        False,
        "More than luck of the seed in the sweep: its intervals are over repeats on the same rows, and say nothing of "
        "what other users would give.",
    )


def verdict(fpr: Json, tpr: Json, fpr_at_tpr_90: Json) -> str:
    """What a difference of FPR comes with: nothing, its price in TPR, or a better ranking."""
    if excludes_zero(fpr_at_tpr_90):
        return f" The {'proposed' if fpr_at_tpr_90['mean'] < 0 else 'baseline'} model ranks better there."
    if excludes_zero(fpr) and excludes_zero(tpr) and fpr["mean"] * tpr["mean"] > 0:
        return " So the FPR differs by where the threshold stands; a better ranking does not show."
    return " A better ranking does not show."


def flattery(runs: Sequence[Json]) -> Iterator[Finding]:
    """By how much the paper's choice of the epoch lowers the FPR that it reports."""
    pairs = [(at(run, "validation_selected", "test", "fpr"), at(run, "test_selected", "test", "fpr")) for run in runs]
    gap = summary(honest - chosen for honest, chosen in pairs if honest is not None and chosen is not None)
    if gap["mean"] is not None:
        yield Finding(
            True,
            f"Choosing the epoch by the test set's FPR, as the paper does, shows an FPR "
            f"{number(100 * gap['mean'], 1)} points ({points(gap)}, mean of {gap['n']} runs) below what choosing on "
            "validation gives.",
        )


def points(bounds: Json) -> str:
    """An interval of a difference of shares, in percentage points."""
    low, high = bounds["low"], bounds["high"]
    return MISSING if low is None or high is None else f"{number(100 * low, 1)} to {number(100 * high, 1)}"


def model_gap(runs: Sequence[Json], figure: str) -> dict[str, Any]:
    """Proposed less baseline on test by validation's choice, over runs of one weighting, dropout and place in line."""
    lines: dict[tuple[str, float, str], list[float | None]] = {}
    for run in runs:
        line = lines.setdefault((run["class_weights"], run["dropout"], run["model"]), [])
        line.append(at(run, "validation_selected", "test", figure))
    return summary(
        ours - theirs
        for (weights, dropout, model), values in lines.items()
        if model == "proposed"
        for ours, theirs in zip(values, lines.get((weights, dropout, "baseline"), []), strict=False)
        if ours is not None and theirs is not None
    )
