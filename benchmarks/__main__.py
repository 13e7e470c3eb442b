"""The command: measures, and prints as it goes."""

import argparse
import json
import sys
import time
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from math import inf
from pathlib import Path
from typing import Any

from . import _machine, _report
from ._load import tools
from ._programs import ROOT
from ._rounds import Plan, Result

GROUPS = (
    "echo bulk accepting datagrams lines tls names sync calls timeouts scale fairness memory "
    "imports"
).split()
SLOW = ["profile"]  # only when asked for
PAGE = ROOT / "docs" / "speed.md"


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="aiosock beside its peers, in interleaved rounds"
    )
    parser.add_argument("--quick", action="store_true", help="fewer cases and rounds, for a look")
    parser.add_argument("--only", nargs="+", metavar="GROUP", choices=GROUPS + SLOW)
    parser.add_argument("--list", action="store_true", help="what the groups measure")
    parser.add_argument("--rounds", type=at_least_one, help="7 unless told")
    parser.add_argument("--seconds", type=positive, help="for each in a round; 0.08 unless told")
    parser.add_argument(
        "--subjects", nargs="+", metavar="NAME", default=[""], help="who, by parts of the name"
    )
    parser.add_argument(
        "--connections", type=int, default=8000, help="the most that one server is given"
    )
    parser.add_argument("--python-load", action="store_true", help="as where no compiler is")
    parser.add_argument("--json", type=new_file, metavar="FILE", help="write all that was found")
    parser.add_argument("--plot", type=picture, metavar="FILE", help="SVG or PNG, by matplotlib")
    parser.add_argument(
        "--from",
        type=existing,
        metavar="FILE",
        dest="earlier",
        help="an earlier json, whole or the groups of --only",
    )
    parser.add_argument(
        "--write-docs", action="store_true", help="put the figures into docs/speed.md"
    )
    return parser


# --- arguments are judged before anything is measured ------------------------------------


def at_least_one(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"a number from 1 on, not {text}")
    return int(text)


def positive(text: str) -> float:
    with suppress(ValueError):
        if 0 < (number := float(text)) < inf:
            return number
    raise argparse.ArgumentTypeError(f"a number above 0, not {text}")


def new_file(text: str) -> Path:
    if not Path(text).parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {Path(text).parent}")
    return Path(text)


def picture(text: str) -> Path:
    path = new_file(text)
    if path.suffix not in (".svg", ".png"):
        raise argparse.ArgumentTypeError(f"{path} is to end in .svg or .png")
    return path


def existing(text: str) -> Path:
    try:
        json.loads(Path(text).read_text())["results"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise argparse.ArgumentTypeError(f"{text} holds no earlier run: {error}") from None
    return Path(text)


# --- the work ----------------------------------------------------------------------------


class Progress:
    """A line that tells what is measured now, where somebody looks."""

    def __init__(self) -> None:
        self.shown = sys.stderr.isatty()
        self.start = time.monotonic()

    def show(self, text: str) -> None:
        if self.shown:
            elapsed = time.monotonic() - self.start
            print(f"\r\033[K{elapsed:4.0f} s  {text}"[:110], end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        if self.shown:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def measured(options: argparse.Namespace) -> tuple[dict[str, Any], list[Result]]:
    """All that is asked for; each table is printed when it is known."""
    progress, results = Progress(), list[Result]()
    machine = _machine.facts()
    print(_machine.sentence(machine), "\n", flush=True)
    with tools(python_only=options.python_load) as made:
        plan = Plan(
            made,
            rounds=options.rounds or (3 if options.quick else 7),
            seconds=options.seconds or (0.05 if options.quick else 0.08),
            quick=options.quick,
            subjects=options.subjects,
            most=options.connections,
        )
        if made.compiler is None:
            plan.leave_out("epoll in C", "no compiler is here")
        try:
            for group in options.only or GROUPS:
                for case in import_module(f"benchmarks.{group}").cases(plan):
                    found = plan.run(group, case, progress.show)
                    progress.clear()
                    print(*map(_report.as_text, found), sep="\n", flush=True)
                    results += found
        except KeyboardInterrupt:  # what was found until then is kept
            plan.leave_out("the rest", "Ctrl-C")
    print(*plan.left_out, sep="\n", flush=True)
    settings = {name: getattr(plan, name) for name in ("rounds", "seconds", "quick")}
    return _report.as_json(machine, settings, plan.left_out, results), results


def describe() -> None:
    for group in GROUPS + SLOW:
        first, _, _ = str(import_module(f"benchmarks.{group}").__doc__).partition("\n")
        print(f"{group:11}{first}")


def main() -> None:
    parser = arguments()
    options = parser.parse_args()
    if options.list:
        return describe()
    if options.plot and find_spec("matplotlib") is None:
        parser.error("--plot needs matplotlib, of the extra `bench`")
    if options.earlier:
        told, results = _report.from_json(options.earlier, options.only or GROUPS + SLOW)
        print(*map(_report.as_text, results), sep="\n")
    else:
        told, results = measured(options)
    if options.json:
        options.json.write_text(json.dumps(told, indent=1))
    if options.plot:
        import_module("benchmarks._plot").plot(options.plot, told, results)
    if options.write_docs:
        PAGE.write_text(_report.with_figures(PAGE.read_text(), told, results))
    return None


if __name__ == "__main__":
    main()
