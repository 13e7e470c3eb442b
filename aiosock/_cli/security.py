"""TLS as the options ask for it.

Knows the stdlib's contexts.  Verification is on, unless --insecure turns it off.
"""

import argparse
import ssl

import aiosock

from .words import Misuse, tell

__all__ = ["as_client", "as_server", "refuse_without_tls", "spoken"]

OPTIONS = "cafile", "alpn", "insecure", "servername", "cert", "key"
LONGEST_NAME = 255  # of a protocol, in bytes: RFC 7301


def as_client(options: argparse.Namespace) -> ssl.SSLContext:
    """A context that verifies, by the system's authorities or those of --cafile."""
    try:
        context = ssl.create_default_context(cafile=options.cafile)
    except (OSError, ssl.SSLError) as error:
        raise unreadable("--cafile", options.cafile, error) from error
    if options.insecure:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        tell("aiosock: warning: --insecure: who answers is not verified, and may be anybody")
    return _adjusted(context, options)


def as_server(options: argparse.Namespace) -> ssl.SSLContext:
    """A context that shows the certificate of --cert."""
    if not options.cert:
        raise Misuse("a TLS server needs a certificate: give --cert FILE and --key FILE")
    return _adjusted(ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), options)


def _adjusted(context: ssl.SSLContext, options: argparse.Namespace) -> ssl.SSLContext:
    if options.cert:
        try:
            context.load_cert_chain(options.cert, options.key)
        except (OSError, ssl.SSLError) as error:
            raise unreadable("--cert/--key", options.cert, error) from error
    elif options.key:
        raise Misuse("--key FILE is the key of a certificate: give --cert FILE too")
    if options.alpn is not None:
        context.set_alpn_protocols(protocols(options.alpn))
    return context


def protocols(names: str) -> list[str]:
    """What is written as NAMES."""
    found = names.split(",")
    if not all(name.isascii() and 1 <= len(name) <= LONGEST_NAME for name in found):
        raise Misuse(f"--alpn {names!r:.60}: a protocol's name has 1 to 255 ASCII characters")
    return found


def unreadable(option: str, file: str, error: OSError) -> Misuse:
    no_pem = isinstance(error, ssl.SSLError)
    why = "it is no PEM file of that, or the key is another's" if no_pem else error.strerror
    return Misuse(f"{option} {file}: {why}")


def refuse_without_tls(options: argparse.Namespace) -> None:
    for name in OPTIONS:
        if getattr(options, name, None):
            raise Misuse(f"--{name} is for TLS: add --tls, or write tls://host:port")


def spoken(sock: aiosock.SSLSocket) -> str:
    """What a handshake has agreed on."""
    version, cipher, protocol = sock.version(), sock.cipher(), sock.selected_alpn_protocol()
    return ", ".join(filter(None, [version, cipher and cipher[0], protocol and f"ALPN {protocol}"]))
