"""A protocol of lines that turns to TLS in the middle, and back: a server, and its client.

    python examples/starttls.py server [host] [port] --certificate FILE
    python examples/starttls.py client [host] [port] --ca FILE

The client says STARTTLS; both sides shake hands on the connection that they have, and talk
on.  After STOPTLS both end TLS, and say goodbye in plain.  The server's FILE is in PEM form
and holds the key and the chain of certificates, the client's FILE those of the authorities
that it trusts.  It serves this machine only unless another host is given; port 0 takes a
free one.  Ctrl-C stops the server.

Two rules make an upgrade safe.  What came in plain behind the line that asks for TLS, or
behind its answer, may be anybody's: it is refused, and never taken for a secret word.  And
the client goes on in TLS or not at all: who cuts STARTTLS out wants it to talk in plain.
"""

import argparse
import asyncio
import ssl
import sys
from contextlib import closing, suppress
from typing import Any

import aiosock


class Lines:
    """A connection on which both sides say lines, in plain or in TLS."""

    def __init__(self, sock: aiosock.socket) -> None:
        self._sock, self._received = sock, bytearray()

    async def say(self, line: str) -> None:
        await self._sock.sendall(f"{line}\n".encode())

    async def hear(self) -> str:
        while b"\n" not in self._received:
            data = await self._sock.recv(4096)
            if not data or len(self._received) > 65536:
                raise ConnectionError("no whole line came")
            self._received += data
        line, _, self._received = self._received.partition(b"\n")
        return line.decode(errors="replace")

    async def ask(self, line: str) -> str:
        await self.say(line)
        return await self.hear()

    async def start_tls(self, context: ssl.SSLContext, **side: Any) -> None:
        if self._received:
            raise ConnectionError("something came in plain where TLS should begin")
        self._sock = await self._sock.start_tls(context, **side)

    async def stop_tls(self) -> None:
        if isinstance(self._sock, aiosock.SSLSocket):
            await self._sock.unwrap()  # the same socket, in plain from here on

    def spoken(self) -> str:
        """The version of TLS; "plain" before it and after it."""
        tls = self._sock if isinstance(self._sock, aiosock.SSLSocket) else None
        return (tls and tls.version()) or "plain"

    def close(self) -> None:
        self._sock.close()


# --- the server ---------------------------------------------------------------------


async def serve(args: argparse.Namespace) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(args.certificate)
    clients = set[asyncio.Task[None]]()  # the loop itself does not keep a task alive
    async with aiosock.create_server((args.host, args.port)) as server:
        print("listening on", server.getsockname(), flush=True)
        while True:
            try:
                conn, peer = await server.accept()
            except OSError as error:  # no descriptor left: who knocks now waits in the queue
                print("cannot accept:", error, flush=True)
                await asyncio.sleep(0.1)
                continue
            client = asyncio.create_task(answer(Lines(conn), peer, context))
            clients.add(client)
            client.add_done_callback(clients.discard)


async def answer(lines: Lines, peer: Any, context: ssl.SSLContext) -> None:
    with closing(lines):
        try:
            async with asyncio.timeout(60):
                await answer_until_bye(lines, context)
        except OSError as error:  # an ssl.SSLError and a TimeoutError are such too
            print(peer, "is gone:", error or type(error).__name__, flush=True)


async def answer_until_bye(lines: Lines, context: ssl.SSLContext) -> None:
    while True:
        match await lines.hear(), lines.spoken():
            case "STARTTLS", "plain":
                await lines.say("GO AHEAD")
                await lines.start_tls(context, server_side=True)
            case "STOPTLS", spoken if spoken != "plain":
                await lines.say("AS YOU LIKE")
                await lines.stop_tls()
            case "HELLO", spoken:
                await lines.say(f"HELLO in {spoken}")
            case "BYE", spoken:
                return await lines.say(f"GOODBYE in {spoken}")
            case _:
                await lines.say("PARDON?")


# --- the client ---------------------------------------------------------------------


async def talk(args: argparse.Namespace) -> None:
    context = ssl.create_default_context(cafile=args.ca)
    with closing(Lines(await aiosock.create_connection((args.host, args.port)))) as lines:
        print(await lines.ask("HELLO"))
        if await lines.ask("STARTTLS") != "GO AHEAD":
            sys.exit("the server does not speak TLS")
        try:
            await lines.start_tls(context, server_hostname=args.host)
        except ssl.SSLCertVerificationError as error:
            sys.exit(f"{args.host} is not to be trusted: {error.verify_message}")
        print(await lines.ask("HELLO"))
        await lines.ask("STOPTLS")
        await lines.stop_tls()
        print(await lines.ask("BYE"))


def main() -> None:
    parser = argparse.ArgumentParser(description="A protocol that turns to TLS, and back.")
    sides = parser.add_subparsers(required=True, metavar="server|client")
    for name, side, host in (("server", serve, "127.0.0.1"), ("client", talk, "localhost")):
        arguments = sides.add_parser(name)
        arguments.set_defaults(side=side)
        arguments.add_argument("host", nargs="?", default=host)
        arguments.add_argument("port", nargs="?", default=50007, type=int)
        if side is serve:
            arguments.add_argument("--certificate", required=True, metavar="FILE")
        else:
            arguments.add_argument("--ca", metavar="FILE")
    args = parser.parse_args()
    aiosock.run(args.side(args))


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
