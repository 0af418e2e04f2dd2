"""The common ground of a report's plots: a figure in pixels, quiet axes, text and markers in sentinel colours.

    figure, axes = new_figure(340, 230, left=0.13, right=0.97)
    write(axes, 0.5, 1.0, "a name")
    finish(axes, "training step", y_label="nats")

Texts are never read as mathematics; names and hidden characters are the caller's to clean (plots.fit), axis labels are
cleaned here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nsd.plugins.untrusted import visible
from nsd.reports.page.svg import COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def new_figure(
    width: float, height: float, left: float, right: float, bottom: float = 54, top: float = 12
) -> tuple[Figure, Axes]:
    """A figure in pixels with one axes; matplotlib's points are taken as the page's pixels."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width / 72, height / 72))
    FigureCanvasSVG(figure)
    axes = figure.add_axes((left, bottom / height, right - left, 1 - (bottom + top) / height))
    return figure, axes


def finish(axes: Axes, label: str, y_label: str | None = None, grid: str = "x") -> None:
    """Quiet axes: labels with units, a light grid, no box."""
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(COLOURS["muted"])
    axes.set_xlabel(visible(label), fontsize=12, color=COLOURS["ink"], labelpad=6, parse_math=False)
    ticks = {"labelsize": 11, "labelcolor": COLOURS["muted"]}
    axes.tick_params(axis="x", color=COLOURS["muted"], pad=5, **ticks)
    if y_label is None:
        axes.set_yticks([])
    else:
        # Above the axis and level: read without turning the head, and clear of the numbers whatever the font.
        axes.text(
            *(-0.1, 1.06, visible(y_label)),
            transform=axes.transAxes,
            fontsize=12,
            color=COLOURS["ink"],
            parse_math=False,
        )
        axes.tick_params(axis="y", length=0, pad=5, **ticks)
    axes.set_axisbelow(True)
    for one in ("x", "y"):
        if grid in (one, "both"):
            axes.grid(axis=one, color=COLOURS["grid"], linewidth=1)


def write(
    axes: Axes,
    x: float,
    y: float,
    text: str,
    ha: str = "left",
    va: str = "center",
    of_axes: bool = False,
    size: float = 12.5,
    colour: str = "ink",
    rotation: float = 0,
    backed: bool = False,
) -> None:
    """Text at x (a share of the axes' width with `of_axes`), y in data; `backed` hides the lines behind it."""
    where = axes.get_yaxis_transform() if of_axes else axes.transData
    axes.text(
        *(x, y, text),
        transform=where,
        ha=ha,
        va=va,
        fontsize=size,
        color=COLOURS[colour],
        rotation=rotation,
        rotation_mode="anchor" if rotation == 0 else "default",
        parse_math=False,
        clip_on=False,
        bbox={"facecolor": COLOURS["paper"], "edgecolor": "none", "pad": 1} if backed else None,
    )


def place_marker(
    axes: Axes, x: float, y: float, marker: str, colour: str, size: float, filled: bool | None = None
) -> None:
    hollow = marker == "o" if filled is None else not filled
    inside = COLOURS["paper"] if hollow else COLOURS[colour]
    axes.plot(
        *([x], [y], marker),
        markersize=size,
        markerfacecolor=inside,
        markeredgecolor=COLOURS[colour],
        markeredgewidth=1.8,
        clip_on=False,
        zorder=5,
    )
