"""aiosock.run, and what is on its way: programs and sockets as coroutines."""

import asyncio

import pytest

import aiosock


async def loop_of_this_task() -> str:
    return type(asyncio.get_running_loop()).__module__


def test_run_takes_a_coroutine_or_an_async_function_on_uvloop() -> None:
    assert aiosock.run(loop_of_this_task()).startswith("uvloop")
    assert aiosock.run(loop_of_this_task).startswith("uvloop")


def test_run_takes_a_loop_factory() -> None:
    loop = aiosock.run(loop_of_this_task, loop_factory=asyncio.new_event_loop)
    assert loop.startswith("asyncio")


def test_run_without_uvloop_takes_asyncio(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert aiosock.run(loop_of_this_task).startswith("asyncio")


def test_run_hands_debug_on() -> None:
    async def debugs() -> bool:
        return asyncio.get_running_loop().get_debug()

    assert aiosock.run(debugs, debug=True)


async def test_run_within_a_loop_says_what_to_do() -> None:
    with pytest.raises(RuntimeError, match=r"aiosock\.run\(\) cannot be called .*: await"):
        aiosock.run(loop_of_this_task)


async def test_a_socket_on_its_way_may_be_a_task() -> None:
    async with aiosock.create_server(("127.0.0.1", 0)) as listener:
        connecting = [
            asyncio.create_task(aiosock.create_connection(listener.getsockname())) for _ in range(3)
        ]
        for sock in await asyncio.gather(*connecting):
            sock.close()


async def test_a_socket_on_its_way_may_be_cancelled() -> None:
    with aiosock.socket(aiosock.AF_INET) as full:
        await full.bind(("127.0.0.1", 0))
        full.listen(0)
        first = await aiosock.create_connection(full.getsockname())
        tasks = [
            asyncio.create_task(aiosock.create_connection(full.getsockname())) for _ in range(3)
        ]
        await asyncio.sleep(0.05)
        for task in tasks:
            task.cancel()
        for end in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(end, aiosock.socket):
                end.close()
        first.close()
        assert any(task.cancelled() for task in tasks)


def test_a_socket_on_its_way_may_be_given_up() -> None:
    opening = aiosock.create_connection(("127.0.0.1", 1))
    opening.close()


def test_a_name_without_a_loop_says_what_to_do() -> None:
    looking = aiosock.getservbyname("http")
    with pytest.raises(RuntimeError, match=r"start one with aiosock\.run"):
        looking.send(None)
