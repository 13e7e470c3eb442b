"""The picture: a panel for each case, by matplotlib, as SVG or PNG or what it writes."""

import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

from ._machine import sentence
from ._report import heading
from ._rounds import Result

COLOURS = ("tab:blue", "tab:orange", "tab:green", "tab:red")
COLUMNS = 3
FACTORS = (0.05, 0.1, 0.2, 0.5, 0.7, 1, 1.5, 2, 3, 5, 10, 20, 50)  # that an axis is marked with


def plot(path: Path, told: dict[str, Any], results: list[Result]) -> None:
    """Write the picture; the suffix of the path says in which form."""
    import_module("matplotlib").use("Agg")
    pyplot: Any = import_module("matplotlib.pyplot")
    panels = [result for result in results if result.pairs]
    curves = [result for result in results if result.at is not None]
    count = len(panels) + bool(curves)
    rows = max(1, -(-count // COLUMNS))
    figure, axes = pyplot.subplots(
        rows, COLUMNS, figsize=(7 * COLUMNS, 4 * rows), squeeze=False, layout="constrained"
    )
    places = list(axes.flat)
    for axis, result in zip(places, panels, strict=False):
        _dots(axis, result)
    if curves:
        _curve(places[len(panels)], curves)
    for axis in places[count:]:
        axis.axis("off")
    figure.suptitle(sentence(told["machine"]), fontsize=9)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of fonts and their like, about which nobody asked
        figure.savefig(path, dpi=90)
    pyplot.close(figure)


def _dots(axis: Any, result: Result) -> None:
    """The median of each ratio as a dot, with a line from quarter to quarter."""
    spreads = result.spreads()
    ours = list(dict.fromkeys(a for a, _ in spreads))
    labels = list(dict.fromkeys(b if len(ours) < 4 else a for a, b in spreads))
    for (one, peer), found in spreads.items():
        few = len(ours) < 4
        height = labels.index(peer if few else one)
        shift = (ours.index(one) - (len(ours) - 1) / 2) * 0.2 if few else 0
        colour = COLOURS[ours.index(one) if few else 0]
        axis.plot([found.low, found.high], [height + shift] * 2, color=colour, linewidth=2)
        axis.plot(found.median, height + shift, "o", color=colour, markersize=4)
    axis.axvline(0 if result.sense == "beyond" else 1, color="grey", linewidth=0.8)
    if result.sense != "beyond":
        axis.set_xscale("log")
        low, high = axis.get_xlim()
        axis.set_xticks([n for n in FACTORS if low <= n <= high], minor=False)
        axis.set_xticks([], minor=True)
        axis.xaxis.set_major_formatter("{x:g}")
    axis.set_yticks(range(len(labels)), labels, fontsize=7)
    axis.invert_yaxis()
    axis.tick_params(axis="x", which="both", labelsize=7)
    axis.set_title(heading(result), fontsize=8)
    if len(ours) < 4:
        for one, colour in zip(ours, COLOURS, strict=False):
            axis.plot([], [], "o", color=colour, label=one)
        axis.legend(fontsize=6)


def _curve(axis: Any, results: list[Result]) -> None:
    """The cost against the number of connections."""
    for subject in dict.fromkeys(name for result in results for name in result.values):
        points = [(r.at, r.medians()[subject]) for r in results if subject in r.values]
        axis.plot(*zip(*points, strict=True), marker=".", label=subject)
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_title(f"{results[0].group}: {results[0].unit}, by connections", fontsize=8)
    axis.legend(fontsize=6)
