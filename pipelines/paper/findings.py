"""Sentences out of numbers: what the data support, and what they do not. None is written by hand.

A difference is a finding where its 95 % interval excludes 0; where the interval holds 0, the data do not tell.
"""

from collections.abc import Iterator, Sequence

from pipelines.paper.leak_findings import backwards, leak
from pipelines.paper.limits import limits
from pipelines.paper.sweep_findings import sweep
from pipelines.paper.wording import (
    LOWER_IS_BETTER,
    Finding,
    Json,
    at,
    count,
    excludes_zero,
    group_of,
    interval,
    name_of,
    number,
    percent,
    signed,
    with_interval,
)

NETWORKS = ("proposed", "baseline")
FLOORS = ("logistic", "gradient_boosting")
PREFERENCE = "validation_log_loss_of_mean"  # of the networks' mean, which is what stands against the floors
CONDITION = (
    "if disliked rows of test are exchangeable with those (over time they need not be), if rows are independent (those "
    "of one user need not be), and if no epoch was chosen on the same rows (the networks' was)"
)
HEADLINES = ("auc", "log_loss", "pr_auc_negative", "fpr_at_tpr_90", "ndcg_at_10", "recall_at_10")


def all_findings(compare: Json, swept: Json, leaked: Json, made_with: Json) -> tuple[dict[str, list[str]], list[str]]:
    """Topic -> sentences that the data support; and the sentences of what they do not."""
    topics = {
        "The two models and the floors": [*differences(compare), *above_floors(compare), *ranking(compare)],
        "What each feature group adds": list(ablation(compare)),
        "The paper's sweep": list(sweep(swept)),
        "A threshold one can trust": list(thresholds(compare)),
        "What a leak is worth": [*leak(leaked), *backwards(leaked)],
    }
    supported = {topic: [one.text for one in found if one.told] for topic, found in topics.items()}
    silent = [one.text for found in topics.values() for one in found if not one.told]
    return {topic: texts for topic, texts in supported.items() if texts}, [*limits(compare, made_with), *silent]


def in_short(compare: Json, swept: Json, leaked: Json) -> list[str]:
    """The few sentences to read first: the paper's claim, the floors, what selection flatters, what a leak is worth."""
    best = preferred([row for row in compare["ablation"] if row["name"] in NETWORKS])
    claim = [pair for pair in compare["paired"] if (pair["a"], pair["b"]) == NETWORKS]
    floors = [pair for pair in compare["paired"] if best and pair["a"] == best["name"] and pair["b"] in FLOORS]
    found = [
        *differences({**compare, "paired": claim}, ("auc", "fpr_at_tpr_90")),
        *differences({**compare, "paired": floors}, ("auc",)),
        *(one for one in sweep(swept) if one.told),
        *[one for one in leak(leaked) if one.told][:1],
    ]
    return [one.text if one.told else f"These data do not tell {one.text[0].lower()}{one.text[1:]}" for one in found]


def differences(compare: Json, metrics: Sequence[str] = HEADLINES) -> Iterator[Finding]:
    """A pair of models on all rows: by what the first is better, by what worse, and by what the data do not tell."""
    users = count(at(compare, "data", "users"))
    verdicts: dict[tuple[str, str, str], list[str]] = {}
    for pair in compare["paired"]:
        if pair["rows"] != "all" or pair["metric"] not in metrics or pair["difference"] is None:
            continue
        better = (pair["difference"] < 0) == (pair["metric"] in LOWER_IS_BETTER)
        verdict = ("better" if better else "worse") if excludes_zero(pair) else "not told"
        said = f"{name_of(pair['metric'])} {signed(pair['difference'])} ({interval(pair)})"
        verdicts.setdefault((name_of(pair["a"]), name_of(pair["b"]), verdict), []).append(said)
    for (a, b, verdict), listed in verdicts.items():
        if verdict == "not told":
            text = f"Whether {a} or {b} is better: {', '.join(listed)}; 95 % intervals that hold 0, {users} users."
        else:
            text = f"{a[:1].upper()}{a[1:]} is {verdict} than {b}: {', '.join(listed)}; 95 % intervals, {users} users."
        yield Finding(verdict != "not told", text)


def above_floors(compare: Json) -> Iterator[Finding]:
    """Whether the variant that validation prefers, of all that were tried, is above both learned floors; else why not.

    An interval's width goes with the square root of the rows, so a difference d with half-width h leaves out 0 from
    about n (h / d)^2 rows on.
    """
    tried = [row for row in compare["ablation"] if row.get(PREFERENCE) is not None]
    best = preferred(tried)
    if best is None:
        return
    gaps = [(floor, gap) for floor, gap in (at(best, "against") or {}).items() if gap["auc"] is not None]
    if len(gaps) < len(FLOORS):
        return
    listed = ", ".join(f"{name_of(floor)} by {signed(gap['auc'])} ({interval(gap)})" for floor, gap in gaps)
    variant = f"{best['name'].replace('+', ' and ')} (log loss {number(best[PREFERENCE], 4)} there)"
    chosen = (
        f"of {len(tried)} groups of features tried, validation prefers {variant}; on test the AUC of the mean of "
        f"{count(best['networks'])} networks differs from"
    )
    if all(excludes_zero(gap) and gap["auc"] > 0 for _, gap in gaps):
        yield Finding(True, f"A network above both learned floors by more than its interval: {chosen} {listed}.")
        return
    test = at(compare, "models", "logistic", "rows") or {}
    rows, cold = at(test, "all", "n") or 0, at(test, "cold", "n") or 0
    unclear = [gap for _, gap in gaps if not excludes_zero(gap) and gap["auc"] > 0 and gap["low"] is not None]
    needed = max((rows * ((gap["high"] - gap["low"]) / 2 / gap["auc"]) ** 2 for gap in unclear), default=0)
    why = f" Of {count(rows)} test rows {count(cold)} are cold: there is no history of their user or business to read."
    if needed:
        why += f" So small a difference would show from about {count(round(needed, -2))} such rows on."
    yield Finding(False, f"Whether a network is above both learned floors: {chosen} {listed}.{why}")


def preferred(rows: Sequence[Json]) -> Json | None:
    """The ablation's row that validation prefers; test decides nothing. None where no row was judged on validation."""
    judged = [row for row in rows if row.get(PREFERENCE) is not None]
    return min(judged, key=lambda row: row[PREFERENCE]) if judged else None


def ranking(compare: Json) -> Iterator[Finding]:
    """How near the top of the whole catalogue liked places stand, by each network."""
    for name in NETWORKS:
        own = at(compare, "models", name, "ranking")
        figures = [
            f"{name_of(figure)} {with_interval(at(own, figure), at(own, 'intervals', figure))}"
            for figure in ("ndcg_at_10", "recall_at_10")
            if at(own, figure) is not None
        ]
        if figures:
            yield Finding(
                True,
                f"Of all {count(at(own, 'candidates'))} places {name} ranks what a user will like with "
                f"{' and '.join(figures)}, the mean of {count(at(own, 'users'))} users.",
            )


def ablation(compare: Json) -> Iterator[Finding]:
    """What a group of features adds to the history numbers, by the interval of its difference in AUC."""
    gains = [row for row in compare["ablation"] if row["name"] != "numbers"]
    gains = [row for row in gains if at(row, "difference", "auc") is not None]
    named = {
        id(row): f"{group_of(row['name'])} {signed(row['difference']['auc'])} ({interval(row['difference'])})"
        for row in gains
    }
    clear = [row for row in gains if excludes_zero(row["difference"])]
    for verb, sign in (("adds", 1), ("costs", -1)):
        listed = [named[id(row)] for row in clear if row["difference"]["auc"] * sign > 0]
        if listed:
            text = f"Beside the history numbers this {verb} AUC (95 % intervals): {', '.join(listed)}."
            yield Finding(True, text)
    silent = [named[id(row)] for row in gains if row not in clear]
    if silent:
        yield Finding(False, f"Whether this adds to the history numbers: AUC by {', '.join(silent)}; intervals hold 0.")
    if len(gains) > 1:
        text = (
            f"Each of the ablation's {len(gains)} intervals by itself: at 95 %, one in twenty excludes 0 by luck alone."
        )
        yield Finding(False, text)


def thresholds(compare: Json) -> Iterator[Finding]:
    """The Neyman-Pearson threshold of each network, or how many disliked places it would need."""
    for name in NETWORKS:
        held = at(compare, "models", name, "threshold")
        alpha, delta = at(held, "alpha"), at(held, "delta")
        if alpha is None or delta is None:
            continue
        promise = f"FPR at {percent(alpha, 0)} with {percent(1 - delta, 0)} confidence"
        if held["threshold"] is None:
            yield Finding(
                False,
                f"A threshold for {name} that holds {promise}: it needs {count(held['needed'])} disliked places in "
                f"validation, where there are {count(held['negatives'])}.",
            )
        else:
            broken = held["test_fpr"] is not None and held["test_fpr"] > alpha
            yield Finding(
                True,
                f"Recommending above {number(held['threshold'])}, {name} holds {promise}, by "
                f"{count(held['negatives'])} disliked places of validation, {CONDITION}. On test it had a TPR of "
                f"{percent(held['test_tpr'])} and an FPR of {percent(held['test_fpr'])}"
                f"{', above the promise' if broken else ''}.",
            )
