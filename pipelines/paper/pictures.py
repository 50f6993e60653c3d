"""The report's pictures of the judgement, out of compare.json; a figure that is missing is left out or is n/a."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipelines.paper.canvas import COLOURS, GREY, LINES, MARKERS, Bar, Picture, few_ticks, forest, picture, said
from pipelines.paper.wording import (
    LOWER_IS_BETTER,
    Json,
    at,
    count,
    excludes_zero,
    name_of,
    number,
    with_spread,
)

MODELS = ("proposed", "baseline", "logistic", "gradient_boosting", "all_positive")
NETWORKS = ("proposed", "baseline")
GROUPS = {"all": "all test rows", "warm": "warm: user and place known", "cold": "cold: user or place new"}
FIGURES = ("auc", "log_loss", "pr_auc_negative", "fpr_at_tpr_90")


def there(models: Json) -> list[str]:
    """The models that were judged, ours first."""
    return [name for name in MODELS if name in models]


def bar(model: str, value: float | None, bounds: Json | None) -> Bar:
    """In the model's own colour and shape."""
    shape: dict[str, Any] = {"colour": COLOURS.get(model, GREY), "marker": MARKERS.get(model, "o")}
    return Bar(name_of(model), value, at(bounds, "low"), at(bounds, "high"), **shape)


def aucs(compare: Json) -> Picture:
    """AUC with its interval, every model, all rows and warm and cold ones apart."""
    models = compare["models"]
    of_group = {
        group: [
            bar(name, at(models[name], "rows", group, "auc"), at(models[name], "intervals", group, "auc"))
            for name in there(models)
        ]
        for group in GROUPS
    }
    rows = {group: at(models, there(models)[0], "rows", group, "n") for group in GROUPS} if there(models) else {}

    def draw(figure: Figure) -> None:
        axes = figure.subplots(len(GROUPS), 1, sharex=True)
        for i, (group, text) in enumerate(GROUPS.items()):
            label = "AUC on test, with its 95 % interval (1: perfect, 0.5: a coin)" if i == len(GROUPS) - 1 else ""
            forest(axes[i], of_group[group], label, line=0.5)
            axes[i].set_title(f"{text} ({count(rows.get(group))} rows)")

    alt = ". ".join(f"{text}: {said(of_group[group])}" for group, text in GROUPS.items())
    caption = "A network is the mean of its seeds' probabilities. Intervals: other users might have been drawn."
    return picture("How well does each rank?", caption, alt, draw, 5.4)


def paired(compare: Json, rows: str = "all") -> Picture:
    """Differences of pairs of models with their intervals, a panel a figure."""
    of_figure: dict[str, list[Bar]] = {}
    for pair in compare["paired"]:
        if pair["rows"] == rows and pair["metric"] in (*FIGURES, "ndcg_at_10"):
            label = f"{name_of(pair['a'])} − {name_of(pair['b'])}"
            colour = COLOURS.get(pair["a"], GREY)
            bounds = (pair["difference"], pair["low"], pair["high"])
            marker = MARKERS.get(pair["a"], "o")
            shape = Bar(label, *bounds, colour, marker, filled=excludes_zero(pair))
            of_figure.setdefault(pair["metric"], []).append(shape)

    def draw(figure: Figure) -> None:
        panels = figure.subplots(max(len(of_figure), 1), 1, squeeze=False)[:, 0]
        for axes, (name, bars) in zip(panels, of_figure.items(), strict=False):
            better = "left" if name in LOWER_IS_BETTER else "right"
            forest(axes, bars, f"difference ({better} of 0: the first is better)", line=0)
            axes.set_title(name_of(name))
            axes.margins(x=0.15)

    alt = ". ".join(f"Difference of {name_of(name)}: {said(bars)}" for name, bars in of_figure.items())
    caption = (
        "The same rows, the same drawn users for both. Filled: the 95 % interval excludes 0; hollow: these data do not "
        "tell which is better."
    )
    return picture("Which is better, and do the data tell?", caption, alt, draw, 1.95 * max(len(of_figure), 1))


def calibration(compare: Json) -> Picture:
    """Share liked by stated probability."""
    models = compare["models"]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color="#bbbbbb", linewidth=1)
        for name in there(models):
            curve = at(models[name], "curves", "calibration")
            if curve and name != "all_positive":
                stated, liked, rows = zip(*curve, strict=True)
                axes.plot(stated, liked, LINES[name], color=COLOURS[name], linewidth=1.2)
                largest = max(rows) or 1
                sizes = [12 + 110 * n / largest for n in rows]
                style: dict[str, Any] = {
                    "marker": MARKERS[name],
                    "color": COLOURS[name],
                    "label": name_of(name),
                    "alpha": 0.75,
                }
                axes.scatter(stated, liked, sizes, **style)
        axes.set_xlabel("stated probability that the place is liked")
        axes.set_ylabel("share that was liked")
        axes.set_xlim(-0.02, 1.02)
        axes.set_ylim(-0.02, 1.04)
        if axes.get_legend_handles_labels()[0]:
            legend = axes.legend(loc="upper left")
            for handle in legend.legend_handles:
                handle.set_sizes([45])  # type: ignore[union-attr]

    listed = ". ".join(f"{name_of(name)}: {number(at(models[name], 'rows', 'all', 'ece'))}" for name in there(models))
    caption = "On the diagonal a stated 80 % is an 80 %. The larger a mark, the more test rows were told so."
    alt = f"Calibration on test. Expected calibration errors: {listed}."
    return picture("Can the probabilities be taken at their word?", caption, alt, draw, 4.8)


def seeds(compare: Json) -> Picture:
    """Each network beside the mean of all, and the floors."""
    models = compare["models"]

    def strip(axes: Axes, figure: str) -> None:
        for y, name in enumerate(NETWORKS):
            own = [seed.get(figure) for seed in at(models, name, "seeds") or []]
            own = [value for value in own if value is not None]
            style: dict[str, Any] = {"color": COLOURS[name], "markerfacecolor": "white"}
            axes.plot(own, [y] * len(own), MARKERS[name], linestyle="none", markersize=6, **style)
            mean = at(models, name, "rows", "all", figure)
            if mean is not None:
                axes.plot([mean], [y], MARKERS[name], color=COLOURS[name], markersize=10)
        for floor in ("logistic", "gradient_boosting"):
            value = at(models, floor, "rows", "all", figure)
            if value is not None:
                axes.axvline(value, color=COLOURS[floor], linestyle=LINES[floor], label=name_of(floor), linewidth=1.8)
        axes.set_yticks(range(len(NETWORKS)), NETWORKS)
        axes.set_ylim(len(NETWORKS) - 0.5, -0.5)
        few_ticks(axes)
        axes.set_xlabel(name_of(figure) + (" (lower is better)" if figure in LOWER_IS_BETTER else ""))

    def draw(figure: Figure) -> None:
        axes = figure.subplots(3, 1)
        for one, name in zip(axes, ("auc", "log_loss", "fpr_at_tpr_90"), strict=True):
            strip(one, name)
        if axes[0].get_legend_handles_labels()[0]:
            figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)

    spreads = []
    for name in NETWORKS:
        own = [number(seed.get("auc")) for seed in at(models, name, "seeds") or []]
        spreads.append(
            f"{name}: seeds {', '.join(own) or 'n/a'}, together {number(at(models, name, 'rows', 'all', 'auc'))}"
        )
    caption = "Hollow: one network, one seed. Filled: the mean of their probabilities. Lines: the floors."
    return picture("How much is luck of the seed?", caption, f"Test AUC by seed. {'. '.join(spreads)}.", draw, 4.8)


def ablation(compare: Json) -> Picture:
    """AUC of each group of features above that of the numbers alone."""
    bars = []
    for row in (row for row in compare["ablation"] if not row.get("no_data")):
        label = f"{row['name'].replace('numbers+', '+ ')}  {with_spread(row['auc'], row['auc_std'])}"
        gain = at(row, "difference", "auc")
        bounds = (at(row, "difference", "low"), at(row, "difference", "high"))
        colour = COLOURS.get(row["name"], COLOURS["logistic"])
        marker = MARKERS.get(row["name"], "D")
        if row["name"] != "numbers":
            bars.append(Bar(label, gain, *bounds, colour, marker, filled=excludes_zero(at(row, "difference"))))
        else:
            bars.append(Bar(label, 0.0, None, None, GREY, "o", filled=False))

    def draw(figure: Figure) -> None:
        forest(figure.subplots(), bars, "AUC above numbers alone, with its 95 % interval", line=0)

    caption = (
        "Each network reads the history numbers and what its line says; beside it AUC ± standard deviation over seeds."
    )
    return picture(
        "What does each group of features add?", caption, f"AUC above numbers alone. {said(bars)}.", draw, 4.4
    )


def ranking(compare: Json) -> Picture:
    """NDCG@10 and recall@10 over the whole catalogue."""
    models = compare["models"]
    of_figure = {
        figure: [
            bar(name, at(models[name], "ranking", figure), at(models[name], "ranking", "intervals", figure))
            for name in there(models)
        ]
        for figure in ("ndcg_at_10", "recall_at_10")
    }
    first = at(models, there(models)[0], "ranking") if there(models) else None

    def draw(figure: Figure) -> None:
        for axes, (name, bars) in zip(figure.subplots(2, 1), of_figure.items(), strict=True):
            forest(axes, bars, "")
            axes.set_title(name_of(name))

    users, places = count(at(first, "users")), count(at(first, "candidates"))
    caption = (
        f"{users} users, each with all {places} places ranked as of the test cut, less those already reviewed. "
        "What a user likes without having reviewed it counts as missed."
    )
    alt = ". ".join(f"{name_of(name)}: {said(bars)}" for name, bars in of_figure.items())
    return picture("Are liked places on top of the whole list?", caption, alt, draw, 4.6)
