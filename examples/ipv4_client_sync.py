"""The socket manual's second example on `aiosock_sync`: a client of the echo server, IPv4.

    python examples/ipv4_client_sync.py [host] [port]

The manual's program, with another import.  It sends one line to the server and prints
the answer.
"""

import sys

import aiosock_sync as socket

HOST = sys.argv[1] if len(sys.argv) > 1 else "localhost"  # The remote host
PORT = int(sys.argv[2]) if len(sys.argv) > 2 else 50007  # The same port as used by the server
s = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
s.connect((HOST, PORT))
s.send(b"Hello, world")
data = s.recv(1024)
s.close()
print("Received", repr(data))
