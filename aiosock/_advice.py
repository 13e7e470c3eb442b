"""What is said to who has made a mistake, where the error's own text does not say enough.

Knows the stdlib alone.  The text of an error is the stdlib's and stays so; what we know
besides (the shape of an address, the host that was looked up) is a note on it.  Nothing here
runs unless a call has failed.
"""

import errno
import socket as _stdlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

__all__ = [
    "CLOSED",
    "AsyncOnly",
    "explain",
    "noted",
    "tell_closed",
    "tell_shape",
    "tell_text",
    "tell_timeout",
]

E = TypeVar("E", bound=BaseException)

CLOSED: Final = "the socket was closed or detached while this call waited"
CLOSED_BEFORE: Final = "the socket is closed already, by close, detach or start_tls"
WITH_ADDRESS: Final = ("sendto", "sendmsg")
WITH_DATA: Final = ("send", "sendto", "sendmsg")
TEXT: Final = "only bytes can be sent; text.encode() makes bytes of text"

Host = str | bytes | bytearray


def noted(error: E, note: str) -> E:
    """The error with a note on it, once."""
    if note not in getattr(error, "__notes__", ()):
        error.add_note(note)
    return error


# --- addresses ----------------------------------------------------------------------


def _is_ip(address: Any, longest: int) -> bool:
    return (
        isinstance(address, tuple)
        and 2 <= len(address) <= longest
        and isinstance(address[0], Host)
        and all(hasattr(number, "__index__") for number in address[1:])
    )


# How an address of the family is written, and whether one is.
SHAPES: Final[dict[int, tuple[str, Callable[[Any], bool]]]] = {
    _stdlib.AF_INET: (
        "(host, port), a tuple of str and int",
        lambda address: _is_ip(address, 2),
    ),
    _stdlib.AF_INET6: (
        "(host, port[, flowinfo[, scope_id]]), a tuple of str and ints",
        lambda address: _is_ip(address, 4),
    ),
    _stdlib.AF_UNIX: (
        "a path as str or bytes, of a PathLike os.fspath(path)",
        lambda address: isinstance(address, str | bytes | bytearray | memoryview),
    ),
}


def tell_shape(error: BaseException, family: int, address: Any) -> None:
    """A note on what addresses of the family look like, if this one does not."""
    shape, fits = SHAPES.get(family, ("", lambda address: True))
    if not fits(address):
        name = _stdlib.AddressFamily(family).name
        noted(error, f"an {name} address is {shape}; this one is {address!r}")


# --- calls --------------------------------------------------------------------------


def explain(
    error: BaseException,
    sock: _stdlib.socket,
    attempt: Callable[..., Any],
    args: tuple[Any, ...],
    waited: bool,
) -> None:
    """Notes on what an attempt of the engine has raised."""
    if isinstance(error, TypeError):
        attempt, args = getattr(attempt, "first_call", (attempt, args))
        name = getattr(attempt, "__name__", None)
        if name in WITH_DATA:
            tell_text(error, args[0])
        if name in WITH_ADDRESS and args[-1] is not None:
            tell_shape(error, sock.family, args[-1])
    else:
        tell_closed(error, sock, CLOSED if waited else CLOSED_BEFORE)


def tell_closed(error: E, sock: _stdlib.socket, note: str = CLOSED_BEFORE) -> E:
    """The error with a note on it, if a close is what it is of, and nobody has said so."""
    is_closed = getattr(error, "errno", None) == errno.EBADF and sock.fileno() < 0
    return noted(error, note) if is_closed and not hasattr(error, "__notes__") else error


def tell_text(error: BaseException, data: object) -> None:
    """A note on what to do with text, if data or one of several pieces is text."""
    if any(isinstance(piece, str) for piece in (data if isinstance(data, tuple) else (data,))):
        noted(error, TEXT)


def tell_timeout(error: BaseException, value: object) -> None:
    noted(error, f"a timeout is a number of seconds, or None for no limit; this one is {value!r}")


class AsyncOnly:
    """Entered with ``async with``; whoever writes ``with`` is told so."""

    __slots__ = ()

    if not TYPE_CHECKING:  # who is to refuse it as well

        def __enter__(self) -> NoReturn:
            raise TypeError(
                f"{type(self).__name__!r} object does not support the context manager protocol: "
                f"enter it with `async with`, not with `with`"
            )

        def __exit__(self, *args: object) -> None: ...
