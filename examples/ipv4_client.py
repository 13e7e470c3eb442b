"""The socket manual's second example with `await`: a client of the echo server, IPv4.

    python examples/ipv4_client.py [host] [port]

It sends one line to the server and prints the answer.
"""

import sys

import aiosock

HOST = sys.argv[1] if len(sys.argv) > 1 else "localhost"  # The remote host
PORT = int(sys.argv[2]) if len(sys.argv) > 2 else 50007  # The same port as used by the server


async def main() -> None:
    s = aiosock.socket(aiosock.AF_INET, aiosock.SOCK_STREAM)
    await s.connect((HOST, PORT))
    await s.send(b"Hello, world")
    data = await s.recv(1024)
    s.close()
    print("Received", repr(data))


if __name__ == "__main__":
    aiosock.run(main())
