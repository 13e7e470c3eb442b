"""The table, JSON, and what is written into docs/speed.md."""

import json
import re
from collections.abc import Collection, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ._machine import sentence
from ._rounds import Pair, Result
from ._statistics import Spread

Cells = list[list[str]]
FIRST = "echo"  # group on the page
BLOCK = re.compile(r"(<!-- figures: (\w+) -->\n).*?(<!-- end of figures -->)", re.S)


# --- JSON --------------------------------------------------------------------------------


def as_json(
    machine: dict[str, Any], settings: dict[str, Any], left_out: list[str], results: list[Result]
) -> dict[str, Any]:
    return {
        "machine": machine,
        "settings": settings,
        "left out": left_out,
        "results": [
            {
                **asdict(result),
                "ratios": [
                    {"ours": a, "peer": b, **asdict(spread)}
                    for (a, b), spread in result.spreads().items()
                ],
            }
            for result in results
        ],
    }


def from_json(path: Path, groups: Collection[str]) -> tuple[dict[str, Any], list[Result]]:
    """What was told of some groups, and the results as they were."""
    told = json.loads(path.read_text())
    told["results"] = [one for one in told["results"] if one["group"] in groups]
    results = []
    for one in told["results"]:
        fields = {name: value for name, value in one.items() if name != "ratios"}
        fields["pairs"] = [(a, b) for a, b in one["pairs"]]
        results.append(Result(**fields))
    return told, results


# --- tables ------------------------------------------------------------------------------


def number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"


def cell(spread: Spread, sense: str) -> str:
    sign = "+" if sense == "beyond" else ""
    low, high = f"{spread.low:{sign}.2f}", f"{spread.high:{sign}.2f}"
    if low == high:
        return f"{spread.median:{sign}.2f}"
    return f"{spread.median:{sign}.2f} ({low} to {high})"


def table(result: Result) -> Cells:
    """A row for each subject: its own figure, and ours beside it."""
    spreads, medians = result.spreads(), result.medians()
    ours, peers = _unique(a for a, _ in result.pairs), _unique(b for _, b in result.pairs)
    if len(ours) > len(peers) or len(spreads) * 2 < len(ours) * len(peers):
        return _by_pair(result, spreads)
    rows = [["", result.unit, *ours]]
    for subject, median in medians.items():
        beside = [spreads.get((one, subject)) for one in ours]
        cells = [cell(found, result.sense) if found else "" for found in beside]
        rows.append([subject, number(median), *cells])
    return rows


def _by_pair(result: Result, spreads: dict[Pair, Spread]) -> Cells:
    rows = [["", result.unit, "beside", ""]]
    for subject, median in result.medians().items():
        found = [(b, spread) for (a, b), spread in spreads.items() if a == subject]
        if not found:
            rows.append([subject, number(median), "", ""])
        for peer, spread in found:
            rows.append([subject, number(median), peer, cell(spread, result.sense)])
    return rows


def _unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


def heading(result: Result) -> str:
    beyond = ", and how much beyond the other" if result.sense == "beyond" else ""
    return f"{result.group}: {result.case}, {result.unit}{beyond}"


def as_text(result: Result) -> str:
    rows = table(result)
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [heading(result)]
    for row in rows:
        first, _, *rest = (text.ljust(width) for text, width in zip(row, widths, strict=True))
        lines.append("  " + "  ".join([first, row[1].rjust(widths[1]), *rest]).rstrip())
    return "\n".join(lines) + "\n"


# --- the page ----------------------------------------------------------------------------


def as_markdown(results: Iterable[Result]) -> str:
    parts = []
    for result in results:
        first, *rows = table(result)
        lines = [f"{result.case[0].upper()}{result.case[1:]}:", "", _row(first)]
        lines.append("|---|" + "---:|" + "---|" * (len(first) - 2))
        lines += map(_row, rows)
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def with_figures(page: str, told: dict[str, Any], results: list[Result]) -> str:
    """The page, with the figures of this run in the blocks for those groups.

    The line about the machine is of the run whose figures follow first.
    """
    measured = {result.group for result in results}

    def filled(block: re.Match[str]) -> str:
        start, group, end = block.groups()
        found = [result for result in results if result.group == group]
        if group == "machine" and FIRST in measured:
            text = f"{sentence(told['machine'])}. {settings_of(told)}."
        elif found:
            text = as_markdown(found)
        else:
            return block[0]
        return f"{start}\n{text}\n\n{end}"

    return BLOCK.sub(filled, page)


def settings_of(told: dict[str, Any]) -> str:
    settings = told["settings"]
    return f"{settings['rounds']} rounds of {settings['seconds']} s for each"
