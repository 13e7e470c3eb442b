"""The socket manual's third example on `aiosock_sync`: an echo server, IPv4 or IPv6.

    python examples/dual_stack_server_sync.py [host] [port]

The manual's program, with another import.  It listens on the first address that works, of
those that the host has, and serves one client.  The manual's host is '' (every interface);
here it is this machine alone unless told otherwise.
"""

# ruff: noqa: F841  # the manual names errors that it does not use
import sys

import aiosock_sync as socket

HOST = sys.argv[1] if len(sys.argv) > 1 else "localhost"  # Symbolic name meaning the local host
PORT = int(sys.argv[2]) if len(sys.argv) > 2 else 50007  # Arbitrary non-privileged port
s = None
for res in socket.getaddrinfo(
    HOST, PORT, socket.AF_UNSPEC, socket.SOCK_STREAM, 0, socket.AI_PASSIVE
):
    af, socktype, proto, canonname, sa = res
    try:
        s = socket.socket(af, socktype, proto)
    except socket.error as msg:
        s = None
        continue
    try:
        s.bind(sa)
        s.listen(1)
    except socket.error as msg:
        s.close()
        s = None
        continue
    break
if s is None:
    print("could not open socket")
    sys.exit(1)
conn, addr = s.accept()
print("Connected by", addr)
while 1:
    data = conn.recv(1024)
    if not data:
        break
    conn.send(data)
conn.close()
s.close()
