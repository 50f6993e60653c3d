"""The report's pictures of what a leak is worth, out of leak.json."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pipelines.paper.canvas import COLOURS, GREY, Picture, picture
from pipelines.paper.wording import Json, at, name_of, number

Mark = tuple[str, str, str]
"""What it says in the legend, colour and shape."""

FEATURES: Sequence[Mark] = (
    ("honest: visible reviews", COLOURS["proposed"], "o"),
    ("leaky: with the review itself", COLOURS["baseline"], "s"),
)
ROWS: Mapping[str, Mark] = {
    "test": ("test", COLOURS["proposed"], "o"),
    "held": ("train, label not told", COLOURS["logistic"], "D"),
    "train": ("train", COLOURS["baseline"], "s"),
}
LABELS = {
    "true": "true labels",
    "permuted": "ratings dealt anew before features",
    "permuted after": "labels dealt anew after features",
}


def dumbbells(axes: Axes, rows: Sequence[tuple[str, Sequence[float | None]]], marks: Sequence[Mark]) -> None:
    """A row: its name, and a figure a mark, joined by a line; n/a where there is none."""
    for y, (_, values) in enumerate(rows):
        there = [value for value in values if value is not None]
        if there:
            axes.plot([min(there), max(there)], [y, y], color="#999999", linewidth=1.5)
        else:
            axes.annotate("n/a", (0.02, y), xycoords=("axes fraction", "data"), va="center", color=GREY)
        for i, (value, (_, colour, marker)) in enumerate(zip(values, marks, strict=True)):
            if value is not None:  # the first are small and on top: equal ones are all seen
                axes.plot([value], [y], marker, color=colour, markersize=5 + 2 * i, zorder=9 - i)
    axes.axvline(0.5, color="black", linewidth=1)
    axes.set_yticks(range(len(rows)), [name for name, _ in rows])
    axes.set_ylim(max(len(rows), 1) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    axes.margins(x=0.06)


def named(figure: Figure, marks: Sequence[Mark]) -> None:
    """A legend over all panels."""
    handles = [Line2D([], [], color=c, marker=m, linestyle="none", markersize=7, label=text) for text, c, m in marks]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(marks))


def leak(content: Json) -> Picture:
    """Test AUC, honest and leaky, of each model; and of a user's mean rating alone."""
    found = {(row["model"], row["features"]): row.get("auc") for row in content["leak"]}
    models = list(dict.fromkeys(row["model"] for row in content["leak"]))
    rows = [(name_of(m), (found.get((m, "honest")), found.get((m, "leaky")))) for m in models]
    alone = content.get("alone")
    rows.append(("user's mean rating, alone", (at(alone, "user_mean_honest"), at(alone, "user_mean_with_own"))))

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        dumbbells(axes, rows, FEATURES)
        axes.set_xlabel("AUC on test (0.5: a coin)")
        named(figure, FEATURES)

    told = "; ".join(f"{name}: honest {number(a)}, leaky {number(b)}" for name, (a, b) in rows)
    caption = (
        "The same rows, networks and seeds; the leaky histories include the review that is to be predicted. Nothing of "
        "this experiment is used elsewhere. A pipeline that leaked without a word would look like the squares."
    )
    return picture("What a leak is worth", caption, f"Test AUC. {told}.", draw, 1.5 + 0.45 * len(rows))


def backwards(content: Json) -> list[Picture]:
    """A picture a learner: train, untold train and test AUC by how the own review was left out, a panel the labels."""
    learners = list(dict.fromkeys(row.get("model") for row in content["backwards"]))
    return [
        of_learner([row for row in content["backwards"] if row.get("model") == one], name_of(one or "network"))
        for one in learners or [None]
    ]


def of_learner(lines: Sequence[Json], learner: str) -> Picture:
    """The lines of one learner; rows in the order of the JSON."""
    of_labels: dict[str, list[tuple[str, list[float | None]]]] = {}
    for row in lines:
        label = f"{name_of(row['features'])}:\n{row['reads']}"
        aucs = [row.get(f"{split}_auc") for split in ROWS]
        of_labels.setdefault(row["labels"], []).append((label, aucs))

    def draw(figure: Figure) -> None:
        if not of_labels:
            return
        heights = [len(rows) for rows in of_labels.values()]
        panels = figure.subplots(len(of_labels), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
        for axes, (labels, rows) in zip(panels, of_labels.items(), strict=True):
            dumbbells(axes, rows, list(ROWS.values()))
            axes.set_title(LABELS.get(labels, labels))
        panels[-1].set_xlabel("AUC (0.5: a coin)")
        named(figure, list(ROWS.values()))

    told = ". ".join(
        f"{LABELS.get(labels, labels)}: " + "; ".join(f"{name} {in_words(aucs)}" for name, aucs in rows)
        for labels, rows in of_labels.items()
    )
    caption = (
        "Leaving out one's own review makes an entity's mean lower exactly where the review was good. Who recognises "
        "the entity reads the label backwards, on train rows alone. Dealt anew, ratings leave nothing honest to learn: "
        "what untold train rows then show above 0.5 is the label backwards; what told ones show beyond is by heart."
    )
    height = 1.2 + sum(0.4 + 0.42 * len(rows) for rows in of_labels.values())
    title = f"Read backwards by: {learner}"
    return picture(title, caption, f"AUC. {' '.join(told.split())}.", draw, height)


def in_words(aucs: Sequence[float | None]) -> str:
    return ", ".join(f"{split} {number(value)}" for split, value in zip(ROWS, aucs, strict=True))
