"""How figures are written, everywhere in the report: a missing one is "n/a", a minus is a minus."""

from collections.abc import Mapping
from typing import Any, NamedTuple

Json = Mapping[str, Any]
MISSING = "n/a"
TINY = 1e-9  # what rounding makes of a spread that is none
NAMES = {
    "proposed": "proposed",
    "baseline": "baseline",
    "logistic": "logistic regression",
    "gradient_boosting": "gradient boosting",
    "all_positive": "all-positive",
    "auc": "AUC",
    "log_loss": "log loss",
    "pr_auc_negative": "PR-AUC of the disliked",
    "fpr_at_tpr_90": "FPR at 90 % TPR",
    "fpr_at_tpr_95": "FPR at 95 % TPR",
    "ece": "ECE",
    "ndcg_at_10": "NDCG@10",
    "recall_at_10": "recall@10",
    "accuracy": "accuracy",
    "fpr": "FPR",
    "tpr": "TPR",
    "loss": "loss",
    "pair": "pair-wise leave-one-out",
    "fold": "fold-wise leave-one-out",
    "point_in_time": "point in time",
    "leave_one_out": "leave-one-out",
}
LOWER_IS_BETTER = frozenset({"log_loss", "fpr_at_tpr_90", "fpr_at_tpr_95", "ece", "fpr", "loss"})


class Finding(NamedTuple):
    """A sentence, and whether the data tell what it says; else it names what they do not tell."""

    told: bool
    text: str


def name_of(word: str) -> str:
    """What the report calls a model, a figure or a protocol; a word without an entry stays as it is."""
    return NAMES.get(word, word.replace("_", " "))


def at(content: Any, *path: str) -> Any:
    """What stands at `path` in nested objects; None where any step is missing or null."""
    for step in path:
        if not isinstance(content, Mapping):
            return None
        content = content.get(step)
    return content


def number(value: float | None, digits: int = 3) -> str:
    if value is None:
        return MISSING
    text = f"{value:.{digits}f}"
    return text[1:] if text.startswith("-") and not text.strip("-0.") else text.replace("-", "−")


def signed(value: float | None, digits: int = 3) -> str:
    text = number(value, digits)
    return text if value is None or text.startswith("−") or not text.strip("0.") else f"+{text}"


def percent(value: float | None, digits: int = 1) -> str:
    return MISSING if value is None else f"{number(100 * value, digits)} %"


def count(value: float | None) -> str:
    return MISSING if value is None else f"{value:,.0f}"


def interval(bounds: Mapping[str, float | None] | None, digits: int = 3) -> str:
    """`low to high`; "n/a" without either."""
    low, high = at(bounds, "low"), at(bounds, "high")
    return MISSING if low is None or high is None else f"{number(low, digits)} to {number(high, digits)}"


def with_interval(value: float | None, bounds: Mapping[str, float | None] | None, digits: int = 3) -> str:
    """`0.831 (0.802 to 0.859)`; without bounds the figure alone."""
    spread = interval(bounds, digits)
    return number(value, digits) if value is None or spread == MISSING else f"{number(value, digits)} ({spread})"


def with_spread(value: float | None, spread: float | None, digits: int = 3) -> str:
    """`0.831 ± 0.004`, a standard deviation over seeds; where seeds change nothing the figure alone."""
    return (
        f"{number(value, digits)} ± {number(spread, digits)}"
        if value is not None and (spread or 0) > TINY
        else number(value, digits)
    )


def group_of(name: str) -> str:
    """What a row of the ablation adds to the history numbers: `numbers+text` adds text."""
    return name.removeprefix("numbers+")


def excludes_zero(bounds: Mapping[str, float | None] | None) -> bool:
    low, high = at(bounds, "low"), at(bounds, "high")
    return low is not None and high is not None and (low > 0 or high < 0)
