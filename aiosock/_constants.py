"""Every constant that this Python's socket module has, and the types they are members of.

Knows nothing but the stdlib's module, and copies no list from it: each Python, and each
platform, has its own.  For type checkers the names stand in the ``.pyi`` beside this
file; a test holds the two against each other.
"""

import socket as _stdlib

BESIDES = "AddressFamily AddressInfo EAGAIN EBADF EWOULDBLOCK MsgFlag SocketKind".split()


def _is_constant(name: str) -> bool:
    named_so = name.isupper() or name in ("AF_DECnet", "has_ipv6")
    return named_so and not callable(getattr(_stdlib, name))


_NAMES = sorted({*BESIDES, *filter(_is_constant, _stdlib.__all__)})
__all__ = _NAMES

globals().update({name: getattr(_stdlib, name) for name in _NAMES})
