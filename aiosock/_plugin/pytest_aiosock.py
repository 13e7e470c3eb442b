"""The plugin for pytest that finds it by itself: names of fixtures, and a switch.

Knows pytest alone.  It is loaded in every run of an environment that has it, where mostly nobody
asks for it: so it stands beside the package, which it would import from within, and imports what
its fixtures are made of, `aiosock._pytest`, when a test asks for one.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    import aiosock
    from aiosock._pytest import TLS, Address, Resolve, Serve

__all__: list[str] = []

LEAK_CHECK: Final = "aiosock_leak_check"


def _room() -> Any:
    import aiosock._pytest

    return aiosock._pytest


@pytest.fixture
def aiosock_pair() -> Iterator[tuple[aiosock.socket, aiosock.socket]]:
    """Two `aiosock.socket`s connected to each other, which are closed at the end."""
    yield from _room().pair()


@pytest.fixture
def aiosock_server() -> Iterator[Serve]:
    """Call it with a handler: it serves on a free port of 127.0.0.1, and the address comes back.

    The handler is that of `aiosock.serve`, and so are the keywords, `ssl` among them.  It runs in
    a thread with a loop of its own.  At the end of the test handlers have `grace_period` seconds,
    1 where it is not given, before they are cancelled.  An error in a handler fails the test.
    """
    yield from _room().server()


@pytest.fixture
def aiosock_echo(aiosock_server: Serve) -> Address:
    """The address of a server that sends back what it receives."""
    return aiosock_server(_room().echo)


@pytest.fixture
def aiosock_tls() -> TLS:
    """`TLS` contexts of an authority made for this test; needs the package trustme."""
    made: TLS = _room().tls()
    return made


@pytest.fixture
def aiosock_resolver() -> Iterator[Resolve]:
    """Call it with a mapping of names to addresses, or a function, which may be async.

    One address is a str, several are an iterable, none is None or an error that the function
    raises.  Other names are unknown: nothing is asked of the network.  It serves both faces until
    the end of the test, then the resolver of before does again.
    """
    yield from _room().resolver()


# --- leaks ----------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini(
        LEAK_CHECK,
        "fail tests that leave descriptors, sockets or tasks behind",
        type="bool",
        default=False,
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        f"{LEAK_CHECK}(on=True): fail the test if it leaves descriptors, sockets or tasks behind",
    )


def _is_checked(item: pytest.Item) -> bool:
    mark = item.get_closest_marker(LEAK_CHECK)
    if mark is None:
        return bool(item.config.getini(LEAK_CHECK))
    on: bool = mark.kwargs.get("on", *mark.args[:1] or (True,))
    return on


@pytest.fixture(autouse=True)
def _aiosock_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Begun before the test's other fixtures, and ended after them."""
    if _is_checked(request.node):
        yield from _room().without_descriptors_left(request.node)
    else:
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Tasks are looked for before the test's loop ends, which would cancel them."""
    if _is_checked(item):
        yield from _room().without_tasks_left(item)
    else:
        yield
