"""The command line: ``python -m aiosock demo``."""

import argparse

from ._demo import demo
from ._run import run


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m aiosock", description="Awaitable sockets.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("demo", help="an echo server on loopback, and real clients against it")
    parser.parse_args()
    run(demo)


if __name__ == "__main__":
    main()
