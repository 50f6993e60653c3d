"""What data do not support whatever comes out of them: a simulated world, features without meaning, too few rows."""

from collections.abc import Iterator

from pipelines.paper.repeats import summary
from pipelines.paper.wording import Json, at, count, group_of, number, percent

COLD_ROWS = 1000


def limits(compare: Json, made_with: Json) -> Iterator[str]:
    """The most limiting first. `made_with`: image_weights and summaries, as params.yaml names them."""
    data, models = compare.get("data"), compare["models"]
    if at(data, "source") == "synthetic":
        yield "Anything about quality: the reviews are simulated, and synthetic data prove mechanics, never quality."
    if at(made_with, "summaries") == "extractive":
        yield "Anything about language models: summaries and tags are extractive, no model wrote them."
    elif at(made_with, "summaries") is not None:
        yield f"Anything about language models other than {at(made_with, 'summaries')}, which wrote the summaries."
    absent = [group_of(row["name"]) for row in compare["ablation"] if row.get("no_data")]
    if absent:
        yield f"Anything about what {' and '.join(absent)} would add: these data have none."
    if at(made_with, "image_weights") == "random" and "image" not in absent:
        yield "Anything about images: ResNet50's weights are random; vectors tell photos apart, not what is on them."
    rows, share = at(data, "rows", "test"), at(data, "negative_share", "test")
    if rows is not None and share is not None:
        negatives = round(rows * share)
        within = f"known to ± {percent(half_width(negatives))}" if negatives else "not known"
        yield f"An FPR to the last digit: of {count(negatives)} disliked test places, a share of a half is {within}."
    yield from rows_that_lack(models)
    for name in ("proposed", "baseline"):
        spread = summary(seed.get("auc") for seed in at(models, name, "seeds") or [])
        if spread["std"] is not None:
            yield (
                f"Differences below the luck of a seed: {name}'s AUC has a standard deviation of "
                f"{number(spread['std'])} over {spread['n']} seeds. Intervals between models are of these seeds' mean, "
                "and leave this luck out."
            )
    yield "The paper's own levels: they are of its data, which are not these; the kind of comparison alone is the same."


def rows_that_lack(models: Json) -> Iterator[str]:
    """Groups of rows without figures or with few rows; rankings without users."""
    first = next((at(of_model, "rows") for of_model in models.values()), None)
    for group in ("warm", "cold"):
        n = at(first, group, "n")
        if not n:
            yield f"Any figure of {group} rows: there are none."
        elif at(first, group, "auc") is None:
            yield f"Any ranking of {group} rows: there are {count(n)}, not both liked and disliked."
        elif group == "cold" and n < COLD_ROWS:
            yield f"Fine differences on cold rows: there are {count(n)}."
    if all(at(of_model, "ranking", "ndcg_at_10") is None for of_model in models.values()):
        yield "Ranking over the whole catalogue: it has no figure here."


def half_width(n: int) -> float:
    """Of the 95 % interval of a share of n, where it is widest: 1.96 sqrt(1/4 / n)."""
    return float(1.96 * (0.25 / n) ** 0.5)
