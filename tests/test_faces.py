"""The harness itself: one text, every face, every loop."""

import asyncio

import pytest
from faces import Face


async def test_one_text_runs_on_every_face(net: Face) -> None:
    client, server = await net.tcp_pair()
    await client.sendall(b"hello")
    assert await server.recv(10) == b"hello"
    reading = asyncio.create_task(server.recv(10))
    await asyncio.sleep(0.01)
    assert not reading.done()
    await client.send(b"again")
    assert await reading == b"again"
    client.settimeout(0.01)
    with pytest.raises(TimeoutError, match="^timed out$"):
        await client.recv(1)
