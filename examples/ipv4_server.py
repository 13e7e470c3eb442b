"""The socket manual's first example with `await`: an echo server for one client, IPv4.

    python examples/ipv4_server.py [host] [port]

The manual listens on every interface (host ''); this one on 127.0.0.1 unless told
otherwise.
"""

import sys

import aiosock

HOST = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1"  # The local host
PORT = int(sys.argv[2]) if len(sys.argv) > 2 else 50007  # Arbitrary non-privileged port


async def main() -> None:
    s = aiosock.socket(aiosock.AF_INET, aiosock.SOCK_STREAM)
    await s.bind((HOST, PORT))
    s.listen(1)
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
