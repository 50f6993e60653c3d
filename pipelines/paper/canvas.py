"""Figures as pictures for a page: one look, the same bytes from the same numbers, no file beside it."""

import base64
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import StringIO
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pipelines.paper.wording import with_interval

# Okabe and Ito's: told apart by the colour-blind. Markers differ as well, for print without colours.
COLOURS = {
    "proposed": "#0072B2",
    "baseline": "#D55E00",
    "logistic": "#009E73",
    "gradient_boosting": "#CC79A7",
    "all_positive": "#666666",
}
MARKERS = {"proposed": "o", "baseline": "s", "logistic": "D", "gradient_boosting": "^", "all_positive": "X"}
LINES: dict[str, Any] = {
    "proposed": "-",
    "baseline": "--",
    "logistic": "-.",
    "gradient_boosting": ":",
    "all_positive": (0, (1, 3)),
}
GREY = "#666666"
WIDTH = 5.6  # inches; 10 points stay legible where a phone shows it at two thirds

STYLE: Any = {
    "svg.hashsalt": "mmrec",  # ids of shapes would differ from run to run
    "svg.fonttype": "path",  # a page looks the same whatever fonts its reader has
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e3e3e3",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 9,
}


@dataclass(frozen=True)
class Picture:
    """`title` and `caption` are read beside it, `alt` instead of it; `src` is a data URI."""

    title: str
    caption: str
    alt: str
    src: str


@dataclass(frozen=True)
class Bar:
    """A figure with its interval, in one row of a forest; `None`s are written as n/a."""

    label: str
    value: float | None
    low: float | None
    high: float | None
    colour: str = GREY
    marker: str = "o"
    filled: bool = True


@contextmanager
def styled() -> Iterator[None]:
    with matplotlib.rc_context(STYLE):
        yield


def picture(title: str, caption: str, alt: str, draw: Callable[[Figure], None], height: float) -> Picture:
    """Draw on a figure of the one width, `height` inches high."""
    with styled():
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure)
        text = StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]  # without the XML declaration and the DOCTYPE
    # as an image, since ids of several inline SVGs would clash in one page
    return Picture(title, caption, alt, f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}")


def forest(axes: Axes, bars: Sequence[Bar], label: str, line: float | None = None) -> None:
    """A row a bar, the first on top: figure and interval; `line` is what an interval should exclude."""
    if line is not None:
        axes.axvline(line, color="black", linewidth=1)
    for y, bar in enumerate(bars):
        face = bar.colour if bar.filled else "white"
        if bar.low is not None and bar.high is not None:
            axes.plot([bar.low, bar.high], [y, y], color=bar.colour, linewidth=2, solid_capstyle="butt")
        if bar.value is not None:
            axes.plot([bar.value], [y], bar.marker, color=bar.colour, markerfacecolor=face, markersize=7, zorder=3)
        else:
            axes.annotate("n/a", (0.02, y), xycoords=("axes fraction", "data"), va="center", color=GREY)
    axes.set_yticks(range(len(bars)), [bar.label for bar in bars])
    axes.set_ylim(max(len(bars), 1) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(label)
    few_ticks(axes)


def few_ticks(axes: Axes) -> None:
    """As many numbers below as stay apart."""
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))


def said(bars: Sequence[Bar], digits: int = 3) -> str:
    """The bars in words, for who cannot see them."""
    return "; ".join(f"{b.label}: {with_interval(b.value, {'low': b.low, 'high': b.high}, digits)}" for b in bars)
