"""The report's pictures of the paper's claim: its operating points beside our curves, and the sweep's sixty runs."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipelines.paper.canvas import COLOURS, LINES, MARKERS, Picture, picture
from pipelines.paper.pictures import NETWORKS, there
from pipelines.paper.published import operating_points
from pipelines.paper.repeats import SELECTIONS
from pipelines.paper.wording import Json, at, name_of, number, percent

SELECTED = {"test": "selected on the test set, as the paper", "validation": "selected on validation"}


def roc(compare: Json) -> Picture:
    """Our curves, and the points that the paper's Table 2 implies."""
    models, points = compare["models"], operating_points("test")

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color="#bbbbbb", linewidth=1)
        for name in there(models):
            curve = at(models[name], "curves", "roc")
            if curve and name != "all_positive":
                axes.plot(*zip(*curve, strict=True), LINES[name], color=COLOURS[name], label=name_of(name), linewidth=2)
        for name in NETWORKS:
            for weights, face in (("basic", COLOURS[name]), ("sqrt", "white")):
                own = [point for point in points if point["model"] == name and point["class_weights"] == weights]
                xy = ([point["fpr"] for point in own], [point["tpr"] for point in own])
                label = f"the paper's {name}, {'basic' if weights == 'basic' else 'square root'}"
                style: dict[str, Any] = {
                    "color": COLOURS[name],
                    "markerfacecolor": face,
                    "label": label,
                    "markersize": 6.5,
                }
                axes.plot(*xy, MARKERS[name], linestyle="none", zorder=4, **style)
        axes.set_xlabel("FPR: share of disliked places recommended")
        axes.set_ylabel("TPR: share of liked places recommended")
        axes.set_xlim(-0.01, 1.01)
        axes.set_ylim(-0.01, 1.02)
        axes.legend(loc="lower right")

    implied = {name: [point["auc"] for point in points if point["model"] == name] for name in NETWORKS}
    ranges = ", ".join(f"{name} {number(min(v), 2)} to {number(max(v), 2)}" for name, v in implied.items())
    caption = (
        "Lines: ours. Points: the paper's Table 2, of its own data, dropout 0.1, 0.3, 0.5. It prints accuracy and FPR; "
        "TPR = (accuracy − n (1 − FPR)) / (1 − n), with the paper's share of negatives n = 2,032 / 17,402. If both "
        f"classes' scores were normal and spread alike, these points would have an AUC of: {ranges}. The proposed "
        "model's points have a lower FPR and a lower TPR: a moved threshold does that too."
    )
    aucs = {name: at(models[name], "rows", "all", "auc") for name in there(models)}
    listed = ". ".join(f"{name_of(name)}: AUC {number(value)}" for name, value in aucs.items())
    alt = f"ROC curves on test. {listed}. The paper's points by implied AUC: {ranges}."
    return picture("ROC, and the paper's operating points", caption, alt, draw, 5.4)


def sweep(content: Json) -> Picture:
    """FPR against TPR of every run, selected on the test set above, on validation below."""
    runs: Sequence[Json] = content["runs"]

    def panel(axes: Axes, selection: str) -> None:
        for name in NETWORKS:
            for weights, face in (("basic", COLOURS[name]), ("sqrt", "white"), ("none", "#dddddd")):
                own = [run[f"{selection}_selected"]["test"] for run in runs
                       if run["model"] == name and run["class_weights"] == weights]  # fmt: skip
                points = [(test.get("fpr"), test.get("tpr")) for test in own]
                points = [point for point in points if None not in point]
                if points:
                    text = {"sqrt": "square root"}.get(weights, weights)
                    style: dict[str, Any] = {
                        "color": COLOURS[name],
                        "markerfacecolor": face,
                        "label": f"{name}, {text}",
                    }
                    axes.plot(*zip(*points, strict=True), MARKERS[name], linestyle="none", alpha=0.8, **style)
        axes.set_title(SELECTED[selection])
        axes.set_ylabel("TPR")

    def draw(figure: Figure) -> None:
        axes = figure.subplots(2, 1, sharex=True, sharey=True)
        for one, selection in zip(axes, SELECTIONS, strict=True):
            panel(one, selection)
        axes[-1].set_xlabel("FPR: share of disliked places recommended")
        if axes[0].get_legend_handles_labels()[0]:
            figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)

    alts = []
    for selection in SELECTIONS:
        for name in NETWORKS:
            own = [run[f"{selection}_selected"]["test"] for run in runs if run["model"] == name]
            means = []
            for figure in ("fpr", "tpr"):
                values = [test[figure] for test in own if test.get(figure) is not None]
                means.append(f"mean {name_of(figure)} {percent(sum(values) / len(values) if values else None)}")
            alts.append(f"{name}, {SELECTED[selection]}: {', '.join(means)}")
    caption = (
        f"{len(runs)} runs on test rows. Down the cloud a lower FPR is paid for with TPR; only up and to the left is a "
        "better ranking. Points of the upper panel were chosen by their own FPR on these very rows."
    )
    return picture("The sweep: what a lower FPR costs", caption, f"{'. '.join(alts)}.", draw, 6.6)
