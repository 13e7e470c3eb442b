"""Every constant that this Python's socket module has, and the types they are members of.

Knows nothing but the stdlib's module, and copies no list from it: each Python, and each
platform, has its own.  For type checkers the names stand in the ``.pyi`` beside this
file; a test holds the two against each other.
"""

import socket as _stdlib

__all__ = [
    "EAGAIN",
    "EBADF",
    "EWOULDBLOCK",
    "AddressFamily",
    "AddressInfo",
    "MsgFlag",
    "SocketKind",
]
__all__ += [
    name
    for name in _stdlib.__all__
    if (name.isupper() or name in ("AF_DECnet", "has_ipv6"))
    and not callable(getattr(_stdlib, name))
    and name not in __all__
]

globals().update({name: getattr(_stdlib, name) for name in __all__})
