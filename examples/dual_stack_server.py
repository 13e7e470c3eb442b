"""The socket manual's third example with `await`: an echo server, IPv4 or IPv6.

    python examples/dual_stack_server.py [host] [port]

It listens on the first address that works, of those that the host has, and serves one
client.  The manual's host is '' (every interface); here it is this machine alone unless
told otherwise.
"""

import sys

import aiosock

HOST = sys.argv[1] if len(sys.argv) > 1 else "localhost"  # Symbolic name meaning the local host
PORT = int(sys.argv[2]) if len(sys.argv) > 2 else 50007  # Arbitrary non-privileged port


async def main() -> None:
    s = None
    for res in await aiosock.getaddrinfo(
        HOST, PORT, aiosock.AF_UNSPEC, aiosock.SOCK_STREAM, 0, aiosock.AI_PASSIVE
    ):
        af, socktype, proto, _canonname, sa = res
        try:
            s = aiosock.socket(af, socktype, proto)
        except aiosock.error:
            s = None
            continue
        try:
            await s.bind(sa)
            s.listen(1)
        except aiosock.error:
            s.close()
            s = None
            continue
        break
    if s is None:
        print("could not open socket")
        sys.exit(1)
    conn, addr = await s.accept()
    print("Connected by", addr)
    while True:
        data = await conn.recv(1024)
        if not data:
            break
        await conn.send(data)
    conn.close()
    s.close()


if __name__ == "__main__":
    aiosock.run(main())
