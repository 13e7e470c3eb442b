"""A DNS client: asks over UDP, and over TCP when the answer was cut off.

    python examples/dns_client.py name [type] [server] [port]

The UDP socket is connected, so that the kernel takes datagrams from the server alone; what
answers another question is passed over.  The messages are dnspython's, all else is aiosock's.
"""

import asyncio
import sys
from contextlib import suppress
from pathlib import Path

import dns.exception
import dns.flags
import dns.message
from dns.message import Message

import aiosock

PATIENCE = 2.0  # seconds for a try
TRIES = 3


def configured() -> str:
    """The first server that this machine is told to ask."""
    lines = Path("/etc/resolv.conf").read_text().splitlines()
    return next((line.split()[1] for line in lines if line[:10] == "nameserver"), "127.0.0.1")


async def ask_by_udp(query: Message, server: tuple[str, int]) -> Message:
    found = await aiosock.getaddrinfo(*server, type=aiosock.SOCK_DGRAM)
    family, kind, proto, _, address = found[0]
    with aiosock.socket(family, kind, proto) as sock:
        await sock.connect(address)
        for _ in range(TRIES):
            with suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE):
                    await sock.send(query.to_wire())
                    return await answer_to(query, sock)
    raise TimeoutError("the server does not answer")


async def answer_to(query: Message, sock: aiosock.socket) -> Message:
    while True:
        with suppress(dns.exception.DNSException):  # that was no DNS message
            reply = dns.message.from_wire(await sock.recv(65535))
            if query.is_response(reply):  # it has our id and our question
                return reply


async def ask_by_tcp(query: Message, server: tuple[str, int]) -> Message:
    async with asyncio.timeout(PATIENCE), aiosock.create_connection(server) as sock:
        await sock.sendall(query.to_wire(prepend_length=True))
        size = int.from_bytes(await sock.recv(2, aiosock.MSG_WAITALL))
        reply = dns.message.from_wire(await sock.recv(size, aiosock.MSG_WAITALL))
    if query.is_response(reply):
        return reply
    raise ConnectionError("the server answers another question")


async def main() -> None:
    if not 2 <= len(sys.argv) <= 5:
        sys.exit(__doc__)
    defaults = ["", "", "A", configured(), "53"]
    _, name, kind, host, port = sys.argv + defaults[len(sys.argv) :]
    server = host, int(port)
    try:
        query = dns.message.make_query(name, kind)
        reply = await ask_by_udp(query, server)
        if reply.flags & dns.flags.TC:
            reply = await ask_by_tcp(query, server)
    except (OSError, dns.exception.DNSException) as error:
        sys.exit(f"no answer: {error or type(error).__name__}")
    print("\n".join(map(str, reply.answer)) or dns.rcode.to_text(reply.rcode()))


if __name__ == "__main__":
    aiosock.run(main())
