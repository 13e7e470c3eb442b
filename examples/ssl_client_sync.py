"""The socket manual's SSL example on `aiosock_sync`: whom a server's certificate names.

    python examples/ssl_client_sync.py [host] [port]

The manual's program, with another import.  It prints the distinguished names of the server
and of the issuer, sends a request, and reads the response: all of it, as `read()` without a
size reads to the end.  `ssl` verifies nothing, and warns of it.
"""

import sys

import aiosock_sync as socket

HOST = sys.argv[1] if len(sys.argv) > 1 else "localhost"
PORT = int(sys.argv[2]) if len(sys.argv) > 2 else 443
s = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
s.connect((HOST, PORT))

ssl_sock = socket.ssl(s)

print(repr(ssl_sock.server()))
print(repr(ssl_sock.issuer()))

# Set a simple HTTP request -- use httplib in actual code.
ssl_sock.write(b"GET / HTTP/1.0\r\nHost: %b\r\n\r\n" % HOST.encode())

# Read a chunk of data. Will not necessarily
# read all the data returned by the server.
data = ssl_sock.read()

# Note that you need to close the underlying socket, not the SSL object.
del ssl_sock
s.close()
