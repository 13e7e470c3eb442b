"""The socket manual's fourth example with `await`: a client for IPv4 and IPv6.

    python examples/dual_stack_client.py [host] [port]

It tries every address that the host has, and talks to the first that takes it.
(`aiosock.create_connection` is this loop, ready made.)
"""

import sys

import aiosock

HOST = sys.argv[1] if len(sys.argv) > 1 else "localhost"  # The remote host
PORT = int(sys.argv[2]) if len(sys.argv) > 2 else 50007  # The same port as used by the server


async def main() -> None:
    s = None
    for res in await aiosock.getaddrinfo(HOST, PORT, aiosock.AF_UNSPEC, aiosock.SOCK_STREAM):
        af, socktype, proto, _canonname, sa = res
        try:
            s = aiosock.socket(af, socktype, proto)
        except aiosock.error:
            s = None
            continue
        try:
            await s.connect(sa)
        except aiosock.error:
            s.close()
            s = None
            continue
        break
    if s is None:
        print("could not open socket")
        sys.exit(1)
    await s.send(b"Hello, world")
    data = await s.recv(1024)
    s.close()
    print("Received", repr(data))


if __name__ == "__main__":
    aiosock.run(main())
