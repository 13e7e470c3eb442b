"""Runs one suite of CPython's on one face, and writes down how each test ends.

Knows how a module is put in the place of `socket`, and unittest; knows nothing of other
runs, and judges nothing.  It is started by `run.py` in a folder where it finds ``job`` and
leaves ``events``, a line for each test that begins and each that ends.

The clients of `socket` are not listed anywhere.  What asyncio and its like need is imported
first and keeps the stdlib's `socket`; any other module that names it then is forgotten, to
be imported again on top of the other face, and none may name it once the suite is there.

A test that takes too long ends the process.  The C level's watchdog sees to it: it needs
no thread that the tests would count, and its traces tell where the test was stuck.
"""

import ctypes
import faulthandler
import importlib
import json
import os
import signal
import socket as _stdlib
import sys
import unittest
from _socket import socket as _socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any, Final

FOUNDATION: Final = "asyncio concurrent.futures logging selectors subprocess uvloop".split()
KEPT: Final = {
    "__main__",
    "__mp_main__",  # the same by another name, where multiprocessing is loaded
    "socket",
    "aiosock",
    "aiosock_sync",
    "asyncio",
    "concurrent",
    *FOUNDATION,
}
SECURED: Final = ("test.test_ssl",)  # about our SSLSocket: see put_in_ssl
NETWORKED: Final = ("test.test_timeout", "test.test_socketserver")  # so they say: see local_hosts
PR_SET_PDEATHSIG: Final = 1

STARTED, PASSED, SKIPPED, FAILED, ENDED = "started", "passed", "skipped", "failed", "ended"


# --- another module in the place of socket ------------------------------------------


def put_in_place(face: str, secured: bool) -> None:
    for name in FOUNDATION:
        with suppress(ModuleNotFoundError):  # uvloop is not everywhere
            importlib.import_module(name)
    ours = importlib.import_module(face)
    if secured:
        put_in_ssl(ours)
    for name in clients_of_stdlib():
        forget(name)
    sys.modules["socket"] = ours


def put_in_ssl(ours: ModuleType) -> None:
    """Keep `ssl`, which is no client any more then: its contexts make our SSLSocket.

    Its own SSLSocket stays, since ours is a subclass of it, and its methods name it in super().

    Other suites forget `ssl` as they do any client: with ftplib, poplib, smtplib and http.client
    it is the stdlib's SSLSocket that is tested on top of our socket, which must work as well.
    """
    ssl = importlib.import_module("ssl")
    vars(ssl).update(_socket=ours, socket=ours.socket, create_connection=ours.create_connection)
    ssl.SSLContext.sslsocket_class = ours.SSLSocket


def clients_of_stdlib() -> list[str]:
    """The modules that name the stdlib's socket, but for those that are to keep it."""
    loaded = {name: module for name, module in sys.modules.items() if top(name) not in KEPT}
    return [name for name, module in loaded.items() if names_stdlib(module)]


def top(name: str) -> str:
    return name.partition(".")[0]


def names_stdlib(module: ModuleType) -> bool:
    values = list(getattr(module, "__dict__", {}).values())
    return any(value is _stdlib or value is _stdlib.socket for value in values)


def forget(name: str) -> None:
    module, (package, _, leaf) = sys.modules.pop(name), name.rpartition(".")
    if getattr(sys.modules.get(package), leaf, None) is module:
        delattr(sys.modules[package], leaf)


# --- hosts ---------------------------------------------------------------------------


def local_hosts(suite: ModuleType) -> list[_socket]:
    """Give test_timeout here, by their ports, the three hosts that it wants of the Internet.

    One accepts and says nothing, one never answers (its queue is full, so it drops whatever
    comes), one refuses.  They live as long as the sockets that are returned.
    """
    silent, deaf, gone = listening(64), listening(0), listening(0)
    addresses = {80: silent.getsockname(), 56666: deaf.getsockname(), 56667: gone.getsockname()}
    suite.resolve_address = lambda host, port: addresses[port]  # type: ignore[attr-defined]  # it has one
    gone.close()
    return [silent, deaf, *(calling(addresses[56666]) for _ in range(4))]


def listening(backlog: int) -> _socket:
    sock = _socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen(backlog)
    return sock


def calling(address: Any) -> _socket:
    sock = _socket()
    sock.setblocking(False)
    sock.connect_ex(address)
    return sock


# --- the tests -----------------------------------------------------------------------


class Recorder(unittest.TestResult):
    """Writes a line when a test begins and one when it ends, and limits its time.

    Python 3.12.1 does not tell of the beginning of a test that it skips.
    """

    def __init__(self, events: Path, limit: float) -> None:
        super().__init__()
        self._events, self._limit = events, limit

    def startTest(self, test: unittest.TestCase) -> None:  # noqa: N802  # unittest's name
        super().startTest(test)
        self.write_fixtures()
        self._write(test.id(), STARTED, "")
        limit_time(self._limit)

    def stopTest(self, test: unittest.TestCase) -> None:  # noqa: N802  # unittest's name
        super().stopTest(test)
        self.write_fixtures()
        wrong = bool(self.failures or self.errors or self.unexpectedSuccesses)
        said = [text for _, text in (*self.failures, *self.errors, *self.skipped)]
        outcome = FAILED if wrong else SKIPPED if self.skipped else PASSED
        self._write(test.id(), outcome, "\n".join(said))
        self._clear()
        limit_time(self._limit)

    def write_fixtures(self) -> None:
        """What befell what is no test, as setUpClass is none: its name is its id."""
        for status, kept in (FAILED, self.errors), (SKIPPED, self.skipped):
            for fixture, text in kept:
                if not isinstance(fixture, unittest.TestCase):
                    self._write(fixture.id(), status, text)
            kept[:] = [(test, text) for test, text in kept if isinstance(test, unittest.TestCase)]

    def end(self) -> None:
        self.write_fixtures()
        self._write("", ENDED, "")

    def _clear(self) -> None:
        """Nor does a test that failed live on, and its sockets with it."""
        for kept in self.failures, self.errors, self.skipped, self.expectedFailures:
            kept.clear()
        self.unexpectedSuccesses.clear()

    def _write(self, name: str, status: str, detail: str) -> None:
        with self._events.open("a") as events:
            print(json.dumps([short(name), status, detail]), file=events)


def short(name: str) -> str:
    return name.removeprefix("test.")


def limit_time(seconds: float) -> None:
    faulthandler.dump_traceback_later(seconds, exit=True)


def every_test(suite: unittest.TestSuite) -> Iterator[unittest.TestCase]:
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from every_test(test)
        else:
            yield test


def wanted(job: dict[str, Any], module: ModuleType) -> Iterator[unittest.TestCase]:
    for test in every_test(unittest.defaultTestLoader.loadTestsFromModule(module)):
        name = short(test.id())
        if name in job["done"] or name.startswith(tuple(job["excluded"])):
            continue
        if job["only"] is None or is_named(test, job["only"]):
            yield test


def is_named(test: unittest.TestCase, names: list[str]) -> bool:
    """A fixture, as ``tearDownClass (test.test_ssl.A)``, names every test that it is for."""
    module, kind = type(test).__module__, type(test).__qualname__
    around = f"({module})", f"({module}.{kind})"
    return short(test.id()) in names or any(name.endswith(around) for name in names)


# --- the process ---------------------------------------------------------------------


def settle(limit: float) -> None:
    """End with the parent, or when stuck; take Ctrl-C as Python does."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    faulthandler.enable()
    limit_time(limit)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def suite_on_face(name: str, face: str) -> ModuleType:
    if face != "socket":
        put_in_place(face, name in SECURED)
    support = importlib.import_module("test.support")
    support.verbose, support.use_resources = 0, ["walltime"]  # type: ignore[attr-defined]  # it has them
    if name in NETWORKED:
        support.use_resources.append("network")
    suite = importlib.import_module(name)
    if face != "socket" and (strays := clients_of_stdlib()):
        raise ImportError(f"not on {face}, but on the stdlib's socket: {strays}")
    return suite


def main(folder: Path) -> None:
    job = json.loads((folder / "job").read_text())
    settle(job["limit"])
    suite = suite_on_face(job["module"], job["face"])
    hosts = local_hosts(suite) if job["module"] == "test.test_timeout" else []
    recorder = Recorder(folder / "events", job["limit"])
    unittest.TestSuite(wanted(job, suite)).run(recorder)
    recorder.end()
    del hosts
    os._exit(0)  # a thread that a test has left behind holds nobody up


if __name__ == "__main__":
    main(Path(sys.argv[1]))
