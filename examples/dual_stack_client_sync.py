"""The socket manual's fourth example on `aiosock_sync`: a client for IPv4 and IPv6.

    python examples/dual_stack_client_sync.py [host] [port]

The manual's program, with another import.  It tries every address that the host has, and
talks to the first that takes it.  (`create_connection` is this loop, ready made.)
"""

# ruff: noqa: F841  # the manual names errors that it does not use
import sys

import aiosock_sync as socket

HOST = sys.argv[1] if len(sys.argv) > 1 else "localhost"  # The remote host
PORT = int(sys.argv[2]) if len(sys.argv) > 2 else 50007  # The same port as used by the server
s = None
for res in socket.getaddrinfo(HOST, PORT, socket.AF_UNSPEC, socket.SOCK_STREAM):
    af, socktype, proto, canonname, sa = res
    try:
        s = socket.socket(af, socktype, proto)
    except socket.error as msg:
        s = None
        continue
    try:
        s.connect(sa)
    except socket.error as msg:
        s.close()
        s = None
        continue
    break
if s is None:
    print("could not open socket")
    sys.exit(1)
s.send(b"Hello, world")
data = s.recv(1024)
s.close()
print("Received", repr(data))
