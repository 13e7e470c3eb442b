"""httpcore over aiosock: its requests go through our sockets, with `await` and without.

    python examples/httpcore_backend.py [url] [--ca FILE]

`AsyncBackend` is a network backend for `httpcore.AsyncConnectionPool`.  `Backend` is one for
`httpcore.ConnectionPool`: the same code, each call of which `aiosock_sync.call` runs to its end.
The timeouts that httpcore asks for are the socket's own.  Against `examples/h11_server.py` it
prints two answers that came over one connection, and one that was had without `await`.  TLS
within TLS, for a proxy that is spoken to over https, is not to be had.
"""

import argparse
import asyncio
import select
import ssl
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import httpcore

import aiosock
from aiosock_sync import call

Options = Iterable[httpcore.SOCKET_OPTION]
Error = type[Exception]


# --- with await -------------------------------------------------------------------------


class AsyncStream(httpcore.AsyncNetworkStream):
    def __init__(self, sock: aiosock.socket) -> None:
        self._sock = sock

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        with errors_as(httpcore.ReadTimeout, httpcore.ReadError):
            self._sock.settimeout(timeout)
            return await self._sock.recv(max_bytes)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        with errors_as(httpcore.WriteTimeout, httpcore.WriteError):
            self._sock.settimeout(timeout)
            await self._sock.sendall(buffer)

    async def aclose(self) -> None:
        self._sock.close()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.AsyncNetworkStream:
        with errors_as(httpcore.ConnectTimeout, httpcore.ConnectError):
            self._sock.settimeout(timeout)
            # Many servers cut the connection: that an answer is whole, HTTP tells itself.
            return AsyncStream(
                await self._sock.start_tls(
                    ssl_context, server_hostname=server_hostname, suppress_ragged_eofs=True
                )
            )

    def get_extra_info(self, info: str) -> Any:
        match info:
            case "ssl_object":  # which ALPN protocol was chosen?
                return self._sock if isinstance(self._sock, aiosock.SSLSocket) else None
            case "client_addr":
                return self._sock.getsockname()
            case "server_addr":
                return self._sock.getpeername()
            case "socket":
                return self._sock
            case "is_readable":  # has the server hung up on an idle connection?
                return is_readable(self._sock.fileno())
        return None


class AsyncBackend(httpcore.AsyncNetworkBackend):
    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Options | None = None,
    ) -> httpcore.AsyncNetworkStream:
        source = (local_address, 0) if local_address else None
        nodelay = (aiosock.IPPROTO_TCP, aiosock.TCP_NODELAY, 1)
        with errors_as(httpcore.ConnectTimeout, httpcore.ConnectError):
            async with asyncio.timeout(timeout):  # for the lookup and every address together
                sock = await aiosock.create_connection((host, port), source_address=source)
            return stream(sock, [nodelay, *(socket_options or ())])

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: Options | None = None,
    ) -> httpcore.AsyncNetworkStream:
        with errors_as(httpcore.ConnectTimeout, httpcore.ConnectError):
            sock = aiosock.socket(aiosock.AF_UNIX)
            sock.settimeout(timeout)
            try:
                await sock.connect(path)
            except BaseException:
                sock.close()
                raise
            return stream(sock, socket_options or ())

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def stream(sock: aiosock.socket, options: Options) -> AsyncStream:
    try:
        for option in options:
            sock.setsockopt(*option)
    except BaseException:
        sock.close()
        raise
    return AsyncStream(sock)


def is_readable(fd: int) -> bool:
    poll = select.poll()
    if fd >= 0:
        poll.register(fd, select.POLLIN)
    return fd < 0 or bool(poll.poll(0))


@contextmanager
def errors_as(late: Error, failed: Error) -> Iterator[None]:
    """A socket's errors in httpcore's words."""
    try:
        yield
    except TimeoutError as error:
        raise late(error) from error
    except OSError as error:  # an ssl.SSLError is one too
        raise failed(error) from error


# --- and without ------------------------------------------------------------------------


class Stream(httpcore.NetworkStream):
    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return call(self._stream.read, max_bytes, timeout)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        call(self._stream.write, buffer, timeout)

    def close(self) -> None:
        call(self._stream.aclose)

    def start_tls(self, *args: Any, **kwargs: Any) -> httpcore.NetworkStream:
        return Stream(call(self._stream.start_tls, *args, **kwargs))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class Backend(httpcore.NetworkBackend):
    _backend = AsyncBackend()

    def connect_tcp(self, *args: Any, **kwargs: Any) -> httpcore.NetworkStream:
        return Stream(call(self._backend.connect_tcp, *args, **kwargs))

    def connect_unix_socket(self, *args: Any, **kwargs: Any) -> httpcore.NetworkStream:
        return Stream(call(self._backend.connect_unix_socket, *args, **kwargs))

    def sleep(self, seconds: float) -> None:
        call(self._backend.sleep, seconds)


# --- the example ------------------------------------------------------------------------


async def with_await(url: str, context: ssl.SSLContext) -> None:
    async with httpcore.AsyncConnectionPool(context, network_backend=AsyncBackend()) as pool:
        for _ in range(2):
            show("async:", await pool.request("GET", url))
        print("over", pool.connections)


def without_await(url: str, context: ssl.SSLContext) -> None:
    with httpcore.ConnectionPool(context, network_backend=Backend()) as pool:
        show("blocking:", pool.request("POST", url, content=b"sent back"))


def show(how: str, response: httpcore.Response) -> None:
    print(how, response.status, response.content.decode().rstrip())


def main() -> None:
    parser = argparse.ArgumentParser(description="Requests by httpcore, over aiosock.")
    parser.add_argument("url", nargs="?", default="http://127.0.0.1:50007/")
    parser.add_argument("--ca", metavar="FILE", help="certificates of the authorities, PEM")
    args = parser.parse_args()
    context = ssl.create_default_context(cafile=args.ca)
    aiosock.run(with_await(args.url, context))
    without_await(args.url, context)


if __name__ == "__main__":
    main()
