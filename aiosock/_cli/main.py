"""Runs a command, and makes of its end an exit code.

0 is success, 1 a failure, 2 a command that is not understood, 130 Ctrl-C.  An error is one
line on stderr; its traceback is shown with --traceback, and in Python's development mode.
"""

import logging
import os
import sys
import traceback
from argparse import Namespace
from functools import partial

import aiosock

from .arguments import parse
from .words import Misuse, OutputClosedError, Refusal, explained, forget_output, tell, unwritable

__all__ = ["main"]

FAILED, MISUSED, INTERRUPTED = 1, 2, 130


def main() -> int:
    """Run the command of ``sys.argv``; its exit code."""
    fill_standard_descriptors()
    try:
        code = done(parse())
    except SystemExit as end:  # after a request for help, or a misuse, that argparse has told of
        code = int(end.code or 0)
    return max(code, flushed())


def done(options: Namespace) -> int:
    log_in_lines(options.verbose)
    try:
        aiosock.run(partial(options.run, options))
    except KeyboardInterrupt:
        return INTERRUPTED
    except OutputClosedError:
        return FAILED
    except Exception as error:
        return failed(error, options)
    return 0


def fill_standard_descriptors() -> None:
    """Where the shell has closed one, a socket must not get its number: uvloop would abort."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(fd)


def failed(error: Exception, options: Namespace) -> int:
    if options.traceback or sys.flags.dev_mode:
        traceback.print_exception(error)
    if options.verbose:
        for note in getattr(error, "__notes__", ()):
            tell(f"aiosock: {note}")
    place = getattr(options, "endpoint", None) or getattr(options, "host", None)
    where = f"{place}: " if place and not isinstance(error, Refusal | Misuse) else ""
    tell(f"aiosock: {where}{explained(error)}")
    return MISUSED if isinstance(error, Misuse) else FAILED


def flushed() -> int:
    """Write out what was printed, where an error can still be told; nobody may want it."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        forget_output()
        if not isinstance(error, BrokenPipeError):
            tell(f"aiosock: {unwritable(error)}")
        return FAILED
    return 0


class Lines(logging.Handler):
    """The library's log, in our own manner."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info and record.exc_info[1]
        tell(f"aiosock: {record.getMessage()}{f': {explained(error)}' if error else ''}")


def log_in_lines(is_verbose: bool) -> None:
    logger = logging.getLogger("aiosock")
    logger.addHandler(Lines())
    logger.propagate = False
    logger.setLevel(logging.DEBUG if is_verbose else logging.ERROR)
