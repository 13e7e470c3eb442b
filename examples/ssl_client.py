"""The socket manual's SSL example with `await`: whom a server's certificate names.

    python examples/ssl_client.py [host] [port]

It prints the distinguished names of the server and of the issuer, sends a request, and
reads the response: all of it, as `read()` without a size reads to the end.  `ssl` verifies
nothing, and warns of it; `tls_echo_client.py` knows whom it talks to.
"""

import sys

import aiosock

HOST = sys.argv[1] if len(sys.argv) > 1 else "localhost"
PORT = int(sys.argv[2]) if len(sys.argv) > 2 else 443


async def main() -> None:
    s = aiosock.socket(aiosock.AF_INET, aiosock.SOCK_STREAM)
    await s.connect((HOST, PORT))

    ssl_sock = await aiosock.ssl(s)

    print(repr(ssl_sock.server()))
    print(repr(ssl_sock.issuer()))

    # Set a simple HTTP request -- use httplib in actual code.
    await ssl_sock.write(b"GET / HTTP/1.0\r\nHost: %b\r\n\r\n" % HOST.encode())

    # Read a chunk of data. Will not necessarily
    # read all the data returned by the server.
    _data = await ssl_sock.read()

    # Note that you need to close the underlying socket, not the SSL object.
    del ssl_sock
    s.close()


if __name__ == "__main__":
    aiosock.run(main())
