"""Sentences of what a leak is worth, and of the label read backwards."""

from collections.abc import Iterator, Sequence

from pipelines.paper.chance import coin, no_coin
from pipelines.paper.repeats import t_interval
from pipelines.paper.wording import MISSING, Finding, Json, at, name_of, number, signed, with_interval, with_spread

# Labels -> the rows that then must be a coin: of ratings dealt anew before the features were made nothing honest can be
# learned, of labels dealt anew afterwards no feature knows.
CONTROLS = {"permuted": "test", "permuted after": "held"}
SPLITS = {"held": "untold train rows'", "test": "test"}


def leak(content: Json) -> Iterator[Finding]:
    """What the same network appears to gain from histories that hold the review itself."""
    found = {(row["model"], row["features"]): row for row in content["leak"]}
    for model in dict.fromkeys(row["model"] for row in content["leak"]):
        honest, leaky = (found.get((model, features), {}) for features in ("honest", "leaky"))
        if honest.get("auc") is not None and leaky.get("auc") is not None:
            yield Finding(
                True,
                f"A leak is worth {signed(leaky['auc'] - honest['auc'])} of AUC to {name_of(model)}: with the review "
                f"itself in its histories {with_spread(leaky['auc'], leaky.get('auc_std'))}, without "
                f"{with_spread(honest['auc'], honest.get('auc_std'))} (± over seeds). It is not real.",
            )
    alone = content.get("alone")
    own, without, everything = (at(alone, f"user_mean_{kind}") for kind in ("with_own", "honest", "of_all_reviews"))
    if own is not None:
        wild = f" The mean of all of a user's reviews, later ones too, has {number(everything)} over all rows."
        yield Finding(
            True,
            f"A user's mean rating that includes the review to be predicted has an AUC of {number(own)} by itself; "
            f"without that review, {number(without)}.{wild if everything is not None else ''}",
        )


def backwards(content: Json) -> Iterator[Finding]:
    """How far train is above test where nobody held train labels back; what there is no figure of; the controls.

    Where labels were held back, `explains` says in its own words what is read backwards and what is known by heart.
    """
    above: dict[str, list[str]] = {}
    missing: dict[str, None] = {}
    for row in (row for row in content["backwards"] if row["labels"] == "true"):
        what, train, test = name_of(row["features"]), row.get("train_auc"), row.get("test_auc")
        if train is None or test is None:
            missing[f"What {what} features carry of the label: {row.get('why') or 'no figure'}."] = None
        elif row.get("held_auc") is None:
            said = f"{what} {over_seeds(row, 'train')} on train, {over_seeds(row, 'test')} on test"
            above.setdefault(reads_of(row), []).append(said)
    yield from (Finding(False, text) for text in missing)
    for reads, lines in above.items():
        yield Finding(True, f"AUC from {reads}: {'; '.join(lines)}.")
    for labels, split in CONTROLS.items():
        yield from control([row for row in content["backwards"] if row["labels"] == labels], labels, split)


def control(rows: Sequence[Json], labels: str, split: str) -> Iterator[Finding]:
    """Whether `split`'s AUC is 0.5, as it must be, within luck of the very rows that it was judged on."""
    judged = [row for row in rows if row.get(f"{split}_auc") is not None]
    if not judged:
        return
    aucs = [row[f"{split}_auc"] for row in judged]
    widths = [width_of(row, split) for row in judged]
    known = [width for width in widths if width is not None]
    odd = [
        f"{name_of(row['features'])}, {reads_of(row)} {over_seeds(row, split)}"
        for row, auc, width in zip(judged, aucs, widths, strict=True)
        if no_coin(auc, width)
    ]
    if odd:
        verdict = f"NO coin: {'; '.join(odd)}. Look for a leak."
    else:
        verdict = "coins, as must be." if len(known) == len(judged) else "how wide a coin is, is not known of all."
    within = span(known)
    spread = f"{span(aucs)} on {len(aucs)} lines"
    yield Finding(
        True,
        f"Control, labels {labels}: {SPLITS[split]} AUC is {spread} (a coin: 0.5 ± {within} by luck of the rows): "
        f"{verdict}",
    )


def span(values: Sequence[float]) -> str:
    """`least to most`, or the one that all are; n/a without any."""
    if not values:
        return MISSING
    least, most = number(min(values)), number(max(values))
    return least if least == most else f"{least} to {most}"


def width_of(row: Json, split: str) -> float | None:
    """How far from 0.5 the mean AUC of scores that know nothing may be, on the line's own rows; None if unknown."""
    counts, seeds = at(row, "counts", split), seeds_of(row)
    return coin(counts, seeds) if counts and seeds else None


def interval_of(row: Json, split: str) -> dict[str, float | None]:
    """Of the mean over seeds or permutations."""
    return t_interval(row.get(f"{split}_auc"), row.get(f"{split}_std"), seeds_of(row))


def seeds_of(row: Json) -> int | None:
    """How many: `seeds` is their number, or they themselves."""
    return len(row["seeds"]) if isinstance(row.get("seeds"), list) else row.get("seeds")


def over_seeds(row: Json, split: str) -> str:
    return with_interval(row.get(f"{split}_auc"), interval_of(row, split))


def reads_of(row: Json) -> str:
    """Who learned a line of leak.json's from what."""
    return f"{row['reads']} ({name_of(row['model'])})" if row.get("model") else str(row["reads"])
