"""What is printed, and what is told on stderr: notices, and errors in one line each.

Knows errors, and nothing of where they come from.  A line says what is wrong and what to do.
"""

import errno
import os
import re
import socket as _stdlib
import ssl
import sys
from contextlib import suppress

__all__ = [
    "Misuse",
    "OutputClosedError",
    "Refusal",
    "encoding",
    "explained",
    "forget_output",
    "show",
    "tell",
    "unwritable",
]

UNNAMED = re.compile(r"^\[\w+\] | \(_ssl\.c:\d+\)$")  # around a reason that Python has no name for
ADVICE_ON_TLS = {
    "alert certificate required": "the server asks who you are: --cert FILE and --key FILE say it",
    "alert no application protocol": "the server speaks none of the protocols of --alpn",
}
EXPIRED, NOT_FOR_NAME, NOT_FOR_ADDRESS = 10, 62, 64  # X509_V_ERR_…


class Refusal(Exception):  # noqa: N818  # its text is the line that the user reads
    """A command cannot go on: exit code 1."""


class Misuse(Exception):  # noqa: N818  # likewise
    """A command cannot be meant so: exit code 2."""


class OutputClosedError(Exception):
    """Whoever read standard output has enough: exit code 1, and nothing to be told."""


def tell(text: str, end: str = "\n") -> None:
    """A notice, on stderr if there is one."""
    if sys.stderr is not None:
        with suppress(OSError):
            print(text, end=end, file=sys.stderr, flush=True)


def show(line: str) -> None:
    """A line of what was asked for, on standard output."""
    try:
        print(line.encode(encoding(), "backslashreplace").decode(encoding()), flush=True)
    except OSError as error:
        forget_output()
        if isinstance(error, BrokenPipeError):
            raise OutputClosedError from None
        raise unwritable(error) from error


def forget_output() -> None:
    """Let what Python holds back of its output go nowhere: it would try, and fail, once more."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def unwritable(error: OSError) -> Refusal:
    return Refusal(f"standard output cannot be written: {error.strerror}")


def encoding() -> str:
    """That of standard output."""
    return getattr(sys.stdout, "encoding", None) or "ascii"


def explained(error: BaseException) -> str:
    """What is wrong and what to do, in one line."""
    if isinstance(error, Refusal | Misuse):
        return str(error)
    if isinstance(error, ssl.SSLError):
        return _of_tls(error)
    if isinstance(error, _stdlib.gaierror):
        return _of_names(error)
    if isinstance(error, TimeoutError) and error.errno is None:
        return (
            "no answer in time; is the host up, and no firewall between? a longer -w waits longer"
        )
    if isinstance(error, OSError):
        return _of_system(error)
    if isinstance(error, UnicodeError):  # of IDNA: a label is empty, too long, or no text
        return "that is no host name; check its spelling"
    return (
        f"{type(error).__name__}: {error}; this is a bug: please report it, with what "
        f"--traceback shows and what `aiosock doctor` prints"
    )


def _of_tls(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return _of_certificates(error)
    if isinstance(error, ssl.SSLEOFError):
        return "the connection was cut in the middle of TLS: what came may not be all"
    reason = getattr(error, "reason", None) or error.strerror or " ".join(map(str, error.args))
    reason = UNNAMED.sub("", reason).replace("_", " ").lower()
    if "wrong version number" in reason or "record layer failure" in reason:
        return "the other side does not speak TLS; leave TLS out"
    known = (advice for said, advice in ADVICE_ON_TLS.items() if said in reason)
    return f"TLS failed: {reason}; {next(known, '-v and `aiosock trace` tell more')}"


def _of_certificates(error: ssl.SSLCertVerificationError) -> str:
    why = error.verify_message.rstrip(".")
    if error.verify_code in (NOT_FOR_NAME, NOT_FOR_ADDRESS):
        return f"the certificate is another host's: {why}; --servername NAME says whose you expect"
    if error.verify_code == EXPIRED:
        return "the certificate has expired; its owner has to renew it"
    return (
        f"the certificate is not trusted: {why}; --cafile FILE trusts its authority "
        f"(--insecure verifies nothing, for tests)"
    )


def _of_names(error: _stdlib.gaierror) -> str:
    if error.errno == _stdlib.EAI_SERVICE:
        return "the port's name is not known here; write its number"
    if error.errno == _stdlib.EAI_AGAIN:
        return "the host's name cannot be looked up now; is there a network?"
    return f"the host is not known ({error.strerror}); check its spelling, and -4 or -6"


ADVICE = {
    errno.ECONNREFUSED: "nobody listens there; check the port, and that the server runs",
    errno.ECONNRESET: "the other side has broken the connection off",
    errno.EADDRINUSE: "stop who listens there, or take another port (0: any that is free)",
    errno.EADDRNOTAVAIL: "this machine has no such address; `*` means every address it has",
    errno.EHOSTUNREACH: "no way leads there; check the address and the network",
    errno.ENETUNREACH: "no way leads there; check the address, the network, and -4 or -6",
    errno.ENOENT: "there is no such socket; check the path, and that the server runs",
    errno.ENOTSOCK: "that file is no socket",
    errno.EMSGSIZE: "that is too long for one datagram; send less at a time",
    errno.EAFNOSUPPORT: "this machine has no such addresses; `aiosock doctor` lists its families",
    errno.EMFILE: "the limit of open files is reached; raise it by `ulimit -n`",
}

ADVICE_ON_LISTENING_AT_A_PATH = {
    errno.EADDRINUSE: "stop who listens there, or remove the path if it was left behind",
    errno.ENOENT: "its directory is missing; make it first",
}


def _of_system(error: OSError) -> str:
    if error.errno in (errno.EACCES, errno.EPERM):
        return "permission denied; ports below 1024, and others' paths, need privileges"
    said = error.strerror or str(error)
    said, _, doing = said.partition(" (while attempting to ")
    if said[1:2].islower():  # a word, and no abbreviation
        said = said[:1].lower() + said[1:]
    at_path = doing.startswith(("bind on address '", 'bind on address "'))
    advices = ADVICE | ADVICE_ON_LISTENING_AT_A_PATH if at_path else ADVICE
    advice = advices.get(error.errno or 0)
    return f"{said}: {advice}" if advice else said
