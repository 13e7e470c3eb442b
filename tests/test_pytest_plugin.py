"""The plugin for pytest: its fixtures under each way to run async tests, and the leak check.

Inner runs of pytest are made in this process, which is quick; those that leave things behind, or
must not have loaded anything, in one of their own.
"""

import subprocess
import sys

import pytest
from pages import Block, blocks

pytest.importorskip(
    "trustme", reason="its fixture is made of it"
)  # here once: cryptography cannot be imported twice in a process
pytest_plugins = "pytester"

HEAVY = {"aiosock_sync", "trustme", "uvloop", "cryptography"}

ASYNC_TESTS = """
import aiosock, aiosock_sync, pytest

@pytest.fixture
def anyio_backend():
    return "asyncio"

async def echo(conn, peer):
    while data := await conn.recv(100):
        await conn.sendall(data)

{mark}
async def test_pair(aiosock_pair):
    one, other = aiosock_pair
    await one.sendall(b"x")
    assert await other.recv(1) == b"x"

{mark}
async def test_echo(aiosock_echo, aiosock_resolver):
    aiosock_resolver({{"it.test": aiosock_echo[0]}})
    async with aiosock.create_connection(("it.test", aiosock_echo[1])) as client:
        await client.sendall(b"x")
        assert await client.recv(1) == b"x"

{mark}
async def test_server_and_tls(aiosock_server, aiosock_tls):
    where = aiosock_server(echo, ssl=aiosock_tls.server)
    async with aiosock.create_connection(where, ssl=aiosock_tls.client) as client:
        await client.sendall(b"x")
        assert await client.recv(1) == b"x"

def test_blocking(aiosock_server):
    with aiosock_sync.create_connection(aiosock_server(echo)) as client:
        client.sendall(b"x")
        assert client.recv(1) == b"x"
"""
WAYS = {
    "strict": ("asyncio_mode=strict", "@pytest.mark.asyncio"),
    "auto": ("asyncio_mode=auto", ""),
    "anyio": ("asyncio_mode=strict", "@pytest.mark.anyio"),
}
LEAKS = """
import asyncio, os, aiosock, aiosock_sync, pytest
kept = []

def test_a_descriptor():
    kept.append(os.open(os.devnull, os.O_RDONLY))

async def stay(conn, peer):
    await conn.recv(1)

def test_a_socket(aiosock_server):
    kept.append(aiosock_sync.create_connection(aiosock_server(stay, grace_period=0)))

async def test_a_task():
    kept.append(asyncio.create_task(asyncio.sleep(60)))

def test_that_fails_anyhow():
    sock = aiosock.socket()
    raise ZeroDivisionError

@pytest.mark.aiosock_leak_check(False)
def test_what_is_let_go():
    kept.append(aiosock.socket())

async def test_nothing(aiosock_pair, aiosock_echo):
    task = asyncio.create_task(aiosock_pair[0].recv(1))
    await aiosock_pair[1].send(b"x")
    assert await task == b"x"

def test_nothing_of_a_thread(aiosock_echo):
    with aiosock_sync.create_connection(aiosock_echo) as client:
        client.sendall(b"x")
        assert client.recv(1) == b"x"

@pytest.fixture(scope="module")
def shared():
    with aiosock.socket() as sock:
        yield sock

def test_what_a_wider_fixture_holds(shared): ...

def test_on_the_fastest_loop():
    aiosock.run(asyncio.sleep(0))
"""


QUIETLY = "-q -p no:cacheprovider -p no:hypothesispytest -W error".split()
LOOP_SCOPE = "asyncio_default_fixture_loop_scope=function"  # pytest-asyncio wants to be told


def run(pytester: pytest.Pytester, *options: str, alone: bool = False) -> pytest.RunResult:
    run = pytester.runpytest_subprocess if alone else pytester.runpytest_inprocess
    return run(*QUIETLY, "-o", LOOP_SCOPE, *options)


@pytest.mark.parametrize(
    ("asked", "found", "heavy"),
    [
        ("import pytest_aiosock", "pytest_aiosock", HEAVY | {"aiosock", "asyncio", "ssl"}),
        ("import aiosock._pytest", "aiosock._pytest", HEAVY),
    ],
)
def test_nothing_is_loaded_before_it_is_asked_for(asked: str, found: str, heavy: set[str]) -> None:
    ask = f"import sys, pytest; before = {{*sys.modules}}; {asked}; print(*sys.modules)"
    told = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    assert found in told.stdout.split()
    assert not heavy & set(told.stdout.split())


def test_a_run_that_asks_for_nothing_does_not_import_the_library(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(
        """
        import sys

        def test_it():
            assert "pytest_aiosock" in sys.modules
            assert "aiosock" not in sys.modules
        """
    )
    run(pytester, alone=True).assert_outcomes(passed=1)


@pytest.mark.parametrize("way", WAYS)
def test_the_fixtures_serve_each_way_to_run_async_tests(
    pytester: pytest.Pytester, way: str
) -> None:
    if way == "anyio":
        pytest.importorskip("anyio", reason="its plugin is the way that is shown")
    mode, mark = WAYS[way]
    pytester.makepyfile(ASYNC_TESTS.format(mark=mark))
    run(pytester, "-o", mode).assert_outcomes(passed=4)


def test_the_tests_of_the_pages_pass(pytester: pytest.Pytester) -> None:
    pages = blocks("py")
    pytester.makepyfile(**{f"test_{number}": page.text for number, page in enumerate(pages)})
    count = sum(page.text.count("def test_") for page in pages)
    assert count >= 8
    run(pytester).assert_outcomes(passed=count)


def test_what_a_test_leaves_fails_it_where_that_is_asked_for(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(LEAKS)
    options = ["-o", "asyncio_mode=auto", "-W", "ignore::ResourceWarning"]
    told = run(pytester, *options, "-o", "aiosock_leak_check=true", alone=True)
    told.assert_outcomes(passed=7, failed=2, errors=2)
    told.stdout.fnmatch_lines_random(
        [
            "*ERROR at teardown of test_a_descriptor*",
            "left behind: descriptor *, /dev/null",
            "*ERROR at teardown of test_a_socket*",
            "left behind: descriptor *, <aiosock_sync.socket fd=*",
            "left behind: <Task pending * coro=<sleep() *",
        ]
    )


def test_each_thing_has_its_line_and_the_summary_names_the_first(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")  # or it cuts the line off
    pytester.makepyfile(
        """
        import os, pytest

        @pytest.mark.aiosock_leak_check
        def test_two(): os.open("/dev/null", os.O_RDONLY), os.open("/dev/zero", os.O_RDONLY)
        """
    )
    told = run(pytester, alone=True)
    told.assert_outcomes(passed=1, errors=1)
    told.stdout.fnmatch_lines(
        ["left behind: descriptor *, /dev/null", "  descriptor *, /dev/zero"], consecutive=True
    )
    told.stdout.fnmatch_lines(["ERROR *::test_two - *left behind: descriptor *"])


def test_a_socket_that_is_dropped_is_told_where_a_resource_warning_is_an_error(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(
        """
        import aiosock, pytest

        @pytest.mark.aiosock_leak_check
        def test_a_drop(): aiosock.socket()
        """
    )
    lenient = "-W", "ignore::ResourceWarning"
    run(pytester, *lenient, alone=True).assert_outcomes(passed=1)
    told = run(pytester, alone=True)  # in which every warning is an error
    told.assert_outcomes(failed=1)
    told.stdout.fnmatch_lines(["*ResourceWarning: unclosed <socket.socket fd=*"])


@pytest.mark.parametrize("block", blocks("ini"), ids=lambda block: block.id)
def test_the_settings_of_the_pages_switch_the_check_on(
    pytester: pytest.Pytester, block: Block
) -> None:
    leak = "import os\ndef test_a_descriptor(): os.open(os.devnull, os.O_RDONLY)"
    pytester.makepyfile(leak)
    run(pytester, alone=True).assert_outcomes(passed=1)
    pytester.makeini(block.text)
    run(pytester, "--strict-config", alone=True).assert_outcomes(passed=1, errors=1)


def test_a_test_that_does_not_ask_may_leave_what_it_likes(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(LEAKS)
    told = run(pytester, "-o", "asyncio_mode=auto", "-W", "ignore::ResourceWarning", alone=True)
    told.assert_outcomes(passed=8, failed=1)


def test_an_error_in_a_handler_fails_the_test(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import aiosock_sync

        async def wrong(conn, peer):
            assert await conn.recv(1) == b"y"

        async def gone(conn, peer):
            await conn.recv(1)
            raise ConnectionResetError

        def test_wrong(aiosock_server):
            with aiosock_sync.create_connection(aiosock_server(wrong)) as client:
                client.sendall(b"x")
                assert client.recv(1) == b""

        def test_gone(aiosock_server):
            with aiosock_sync.create_connection(aiosock_server(gone)) as client:
                client.sendall(b"x")
                assert client.recv(1) == b""

        def test_late(aiosock_server):
            async def stay(conn, peer):
                await conn.recv(1)
            client = aiosock_sync.create_connection(aiosock_server(stay, grace_period=0))
            request = aiosock_server(gone)  # a second one on the same loop
            client.close()

        def test_no_handler(aiosock_server):
            aiosock_server(print)
        """
    )
    told = run(pytester, alone=True)  # as an error that is kept keeps what it knows
    told.assert_outcomes(passed=3, failed=1, errors=1)
    told.stdout.fnmatch_lines_random(
        [
            "*ERROR at teardown of test_wrong*",
            "*ExceptionGroup: a handler of aiosock_server has failed*",
            "*TypeError: the handler must be a coroutine function*",
        ]
    )


def test_a_handler_that_does_not_end_is_named(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import asyncio, aiosock_sync

        async def stubborn(conn, peer):
            await conn.sendall(b"x")
            while True:
                try:
                    await asyncio.sleep(60)
                except asyncio.CancelledError:
                    pass

        def test_it(monkeypatch, aiosock_server):
            monkeypatch.setattr("aiosock._pytest.LIMIT", 1.0)
            address = aiosock_server(stubborn, grace_period=0)
            with aiosock_sync.create_connection(address) as client:
                assert client.recv(1) == b"x"
        """
    )
    told = run(pytester, alone=True)
    told.assert_outcomes(passed=1, errors=1)
    told.stdout.fnmatch_lines(["a handler does not end, though cancelled: <function stubborn at *"])


def test_trustme_is_named_where_it_is_missing(pytester: pytest.Pytester) -> None:
    pytester.makeconftest("import sys; sys.modules['trustme'] = None")
    pytester.makepyfile("def test_it(aiosock_tls): ...")
    told = run(pytester)
    told.assert_outcomes(errors=1)
    told.stdout.fnmatch_lines(["*needs the package trustme, which is not installed here*"])


def test_a_resolver_is_put_in_place_for_one_test(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import aiosock_sync, pytest
        from aiosock import _names
        before = _names._resolver

        def look(host):
            if host == "broken.test":
                raise aiosock_sync.gaierror(-3, "try again")
            return {"a.test": "127.0.0.1"}.get(host)

        async def look_async(host):
            return ["::1", "127.0.0.2"]

        def hosts(name, *how):
            return [found[4][0] for found in aiosock_sync.getaddrinfo(name, 80, *how, type=1)]

        def test_it(aiosock_resolver):
            aiosock_resolver(look)
            assert hosts("a.test") == ["127.0.0.1"]
            assert hosts(b"a.test") == ["127.0.0.1"]
            with pytest.raises(aiosock_sync.gaierror, match="Name or service not known"):
                hosts("a.test", aiosock_sync.AF_INET6)
            with pytest.raises(aiosock_sync.gaierror, match="Name or service not known"):
                hosts("b.test")
            with pytest.raises(aiosock_sync.gaierror, match="try again"):
                hosts("broken.test")
            aiosock_resolver(look_async)
            assert hosts("a.test") == ["::1", "127.0.0.2"]
            assert hosts("a.test", aiosock_sync.AF_INET) == ["127.0.0.2"]
            assert aiosock_sync.getnameinfo(("127.0.0.1", 80), 0)[0] == "127.0.0.1"

        def test_then():
            assert _names._resolver is before
        """
    )
    run(pytester).assert_outcomes(passed=2)
