"""The socket manual's first example on `aiosock_sync`: an echo server for one client, IPv4.

    python examples/ipv4_server_sync.py [host] [port]

The manual's program, with another import.  The manual listens on every interface
(host ''); this one on 127.0.0.1 unless told otherwise.
"""

import sys

import aiosock_sync as socket

HOST = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1"  # The local host
PORT = int(sys.argv[2]) if len(sys.argv) > 2 else 50007  # Arbitrary non-privileged port
s = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
s.bind((HOST, PORT))
s.listen(1)
conn, addr = s.accept()
print("Connected by", addr)
while 1:
    data = conn.recv(1024)
    if not data:
        break
    conn.send(data)
conn.close()
s.close()
