"""The critical-difference plot: arms along their means, bars over those that are not told apart.

    rank_plot(bands, [short(band.name) for band in bands], "ranks", "Means, and who is not told apart", axis)

As in Demsar, Statistical Comparisons of Classifiers over Multiple Data Sets (JMLR 7, 2006), with pairwise tests by Holm
in place of one critical difference: arms differ in their spread, so no one length fits all pairs.
"""

from __future__ import annotations

from collections.abc import Sequence

from nsd.reports.judge.ranks import RankBand, not_told_apart
from nsd.reports.page.axes import finish, new_figure, place_marker, write
from nsd.reports.page.plots import NAME_LENGTH, WIDE, fit
from nsd.reports.page.svg import COLOURS, svg

ROW, BAR = 22, 12  # pixels of an arm's line and of a bar


def rank_plot(
    bands: Sequence[RankBand],
    names: Sequence[str],
    identity: str,
    title: str,
    axis: str,
    width: int = WIDE,
    scale: float = 100.0,
) -> str:
    """An inline SVG. `names` are those of `bands`, shortened; arms without a mean are left out."""
    known = [(band, name) for band, name in zip(bands, names, strict=True) if band.mean is not None]
    place = {band.name: (band.mean or 0.0) * scale for band, _ in known}
    bars = [(min(map(place.__getitem__, one)), max(map(place.__getitem__, one))) for one in not_told_apart(bands)]
    wide = width > 500
    row = ROW if wide else 2 * ROW
    figure, axes = new_figure(
        width,
        row * len(known) + BAR * len(bars) + 72,
        left=min(0.36, 0.02 + 0.0085 * max((len(name) for _, name in known), default=0)) if wide else 0.04,
        right=0.9 if wide else 0.96,
    )
    for number, (band, name) in enumerate(known):
        y, mean = -float(number), place[band.name]
        if wide:
            write(axes, -0.02, y, fit(name, NAME_LENGTH), ha="right", of_axes=True)
            write(axes, 1.03, y, band.says, of_axes=True, size=11.5, colour="muted")
        else:
            write(axes, 0.0, y + 0.42, f"{fit(name, 34)} · rank {band.says}", of_axes=True, backed=True)
        axes.plot((mean, mean), (y, 0.6 + len(bars) * BAR / row), color=COLOURS["grid"], linewidth=1, zorder=0)
        place_marker(axes, mean, y, "o", "accent", 7, filled=True)
    for number, (low, high) in enumerate(bars):
        y = 0.8 + number * BAR / row
        axes.plot((low, high), (y, y), color=COLOURS["ink"], linewidth=3, solid_capstyle="butt")
    axes.set_ylim(-len(known) + 0.4, 1.2 + len(bars) * BAR / row)
    finish(axes, axis, grid="x")
    said = "; ".join(f"{name}: rank {band.says}" for band, name in known[:12])
    return svg(figure, identity, title, f"{axis}. {said}{'; more in the table' if len(known) > 12 else ''}.")
