"""The options of every command, and their help, which newcomers read first.

Knows the commands by name.
"""

import argparse
import platform
import sys
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn

import aiosock

from .demo import Fault, demo
from .doctor import DISTRIBUTION, doctor, version_of
from .echo import echo
from .endpoints import duration, endpoint, port
from .netcat import connect, listen
from .resolve import resolve
from .trace import trace
from .words import OutputClosedError, Refusal

__all__ = ["parse"]

Command = Callable[[argparse.Namespace], Coroutine[Any, Any, None]]

ABOUT = """\
Sockets by hand, on the library aiosock: talk to a server, be one, and see what happens.

  demo       see the library work: a server and clients on this machine
  connect    send standard input to a server, and print what it answers
  listen     wait for a client, and talk to it in the same way
  echo       serve clients by sending back what they send
  resolve    list a host's addresses, in the order in which they would be tried
  trace      see how long each step of a connection takes
  doctor     print what a report of a bug should tell
"""
ENDPOINTS = """\
ENDPOINT is one of
  host:port, tcp://host:port    TCP              udp://host:port    UDP
  tls://host:port               TLS over TCP     unix:/path         a Unix socket
  :8080      this machine, which is meant where no host is named
  [::1]:80   an IPv6 address stands in brackets
A port is a number or a service's name, as in example.org:http.
"""
LISTENING = """\
To listen, port 0 takes any that is free, and the host `*`, as in '*:8080', is every
address of this machine: without it nobody else can connect.
"""
CODES = """\
Exit codes: 0 all went well, 1 something failed, 2 the command was not understood,
130 Ctrl-C. Notices and errors go to stderr, data to stdout.
"""
SEEN = "Control characters are escaped when the output is a terminal, and untouched otherwise."


class Parser(argparse.ArgumentParser):
    """An error is one line, and says where to read more."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see `{self.prog} --help`\n")


class CommandParser(Parser):
    """That of one command: it tells itself what it does not know."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        options, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return options, unknown


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The options; without a command, the help of all."""
    parser = made()
    options = parser.parse_args(arguments)
    if options.run is None:
        parser.print_help(sys.stderr)
        parser.exit(2)
    return options


def made() -> Parser:
    parser = Parser(
        prog="aiosock" if sys.argv[0].endswith("aiosock") else "python -m aiosock",
        usage="%(prog)s COMMAND [options]",
        description=ABOUT,
        epilog="`%(prog)s COMMAND --help` tells all about a command.\n\n" + ENDPOINTS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    about = f"aiosock {version_of(DISTRIBUTION)} on Python {platform.python_version()}"
    parser.add_argument("--version", action="version", version=about)
    parser.set_defaults(run=None)
    commands = parser.add_subparsers(
        metavar="COMMAND", help=argparse.SUPPRESS, prog=parser.prog, parser_class=CommandParser
    )
    for add in (_demo, _connect, _listen, _echo, _resolve, _trace, _doctor):
        add(commands)
    return parser


def _command(
    commands: Any, name: str, takes: str, run: Command, about: str, examples: str = "", *more: str
) -> Parser:
    shown = f"Examples:\n{examples}" if examples else ""
    command: Parser = commands.add_parser(
        name,
        usage=f"%(prog)s {takes} [options]".replace("  ", " "),
        description=about,
        epilog="\n".join([shown, *more, CODES]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.set_defaults(run=run, name=name, verbose=False)
    command.add_argument("--traceback", action="store_true", help="show where an error comes from")
    return command


# --- options that several have --------------------------------------------------------------


def _verbose(command: Parser, told: str) -> None:
    command.add_argument("-v", "--verbose", action="store_true", help=f"tell {told}")


def _place(command: Parser, told: str, family: bool = True) -> None:
    command.add_argument("endpoint", metavar="ENDPOINT", type=endpoint, help=told)
    if family:
        _family(command)


def _family(command: Parser) -> None:
    command.set_defaults(family=0)
    of = command.add_mutually_exclusive_group()
    for version, family in ("4", aiosock.AF_INET), ("6", aiosock.AF_INET6):
        told = f"IPv{version} addresses only"
        of.add_argument(f"-{version}", dest="family", action="store_const", const=family, help=told)


def _timeout(command: Parser, told: str) -> None:
    told += " (500ms, 2s, 1m)"
    command.add_argument("-w", "--timeout", metavar="DURATION", type=duration, help=told)


def _tls(command: Parser, is_client: bool) -> None:
    group = command.add_argument_group("TLS", "with --tls, or an endpoint tls://host:port")
    group.add_argument("--tls", action="store_true", help="speak TLS")
    group.set_defaults(cafile=None, insecure=False, servername=None)
    if is_client:
        group.add_argument(
            "--cafile",
            metavar="FILE",
            help="trust the authorities in this PEM file, not the system's",
        )
        group.add_argument(
            "--servername", metavar="NAME", help="whose certificate is expected (default: the host)"
        )
        group.add_argument(
            "--insecure", action="store_true", help="verify nothing: anybody may answer"
        )
    whose = "one's own certificate" if is_client else "the server's certificate"
    group.add_argument("--cert", metavar="FILE", help=f"{whose}, with its chain (PEM)")
    group.add_argument("--key", metavar="FILE", help="its key, if it is not in that file (PEM)")
    group.add_argument("--alpn", metavar="NAMES", help="protocols to offer, as in h2,http/1.1")


def _udp(command: Parser) -> None:
    command.add_argument("-u", "--udp", action="store_true", help="UDP, as udp://")


def _conversation(command: Parser) -> None:
    _udp(command)
    _timeout(command, "give up after such a silence")
    command.add_argument(
        "--hex", action="store_true", help="print a hex dump: < what is received, > what is sent"
    )
    command.add_argument("--crlf", action="store_true", help="end lines of the input by CR LF")
    command.add_argument(
        "--no-shutdown",
        dest="shutdown",
        action="store_false",
        help="keep the end of the input from the other side: some end with it, unanswered",
    )
    command.add_argument("--progress", action="store_true", help="bytes and rate, on stderr")
    _verbose(command, "what happens, on stderr")


# --- the commands ----------------------------------------------------------------------------


async def _run_demo(options: argparse.Namespace) -> None:
    try:
        await demo()
    except BrokenPipeError:
        raise OutputClosedError from None
    except Fault as fault:
        raise Refusal(f"the demo has found a fault: {fault}") from fault


def _demo(commands: Any) -> None:
    _command(
        commands,
        "demo",
        "",
        _run_demo,
        "An echo server on a free port of this machine, and real clients against it: TCP, UDP,\n"
        "Unix sockets, TLS, a timeout. A few seconds; nothing leaves the machine.",
    )


def _connect(commands: Any) -> None:
    command = _command(
        commands,
        "connect",
        "ENDPOINT",
        connect,
        "Connect to ENDPOINT, send it standard input, and print what comes back.\n\n"
        "At the end of the input (Ctrl-D) the other side is told that nothing follows, and what\n"
        "it still sends is printed; when it closes, the command ends. In UDP, and TLS before 1.3,\n"
        "it is not told: there give -w, and such a silence after the input ends the command in\n"
        "peace.\n\n" + SEEN,
        "  %(prog)s example.org:80 --crlf         type GET / HTTP/1.0, and an empty line\n"
        "  %(prog)s tls://example.org:443 -v      the same in TLS; verifies the certificate\n"
        "  %(prog)s :8080 < file                  send a file to a port of this machine\n"
        "  echo hello | %(prog)s -u :5353 -w 1s   a datagram, and answers for a second\n"
        "  %(prog)s unix:/run/some.sock           a Unix socket\n",
        ENDPOINTS,
    )
    _place(command, "where to connect to")
    _conversation(command)
    _tls(command, is_client=True)


def _listen(commands: Any) -> None:
    command = _command(
        commands,
        "listen",
        "ENDPOINT",
        listen,
        "Wait for a client at ENDPOINT, send it standard input, and print what it sends.\n\n"
        "It ends with the first client, or with -k goes on to the next. Only this machine can\n"
        "connect, unless the endpoint names an address of it.\n\n" + SEEN,
        "  %(prog)s :8080                         talk to the client that connects\n"
        "  %(prog)s :8080 > file                  receive a file\n"
        "  %(prog)s -k -u :5353 --hex             see the datagrams that come\n"
        "  %(prog)s tls://:8443 --cert server.pem --key server.key\n",
        ENDPOINTS,
        LISTENING,
    )
    _place(command, "where to listen")
    command.add_argument(
        "-k", "--keep", action="store_true", help="one client after the other, until Ctrl-C"
    )
    _conversation(command)
    _tls(command, is_client=False)


def _echo(commands: Any) -> None:
    command = _command(
        commands,
        "echo",
        "ENDPOINT",
        echo,
        "Send back to every client what it sends, until Ctrl-C. A line on stderr tells where it\n"
        "listens. Only this machine can connect, unless the endpoint names an address of it.",
        "  %(prog)s :8080\n"
        "  %(prog)s udp://:5353\n"
        "  %(prog)s unix:/tmp/echo.sock\n"
        "  %(prog)s tls://:8443 --cert server.pem --key server.key\n",
        ENDPOINTS,
        LISTENING,
    )
    _place(command, "where to listen")
    _udp(command)
    _verbose(command, "of each client, on stderr")
    _tls(command, is_client=False)


def _resolve(commands: Any) -> None:
    command = _command(
        commands,
        "resolve",
        "HOST [PORT]",
        resolve,
        "List the addresses of HOST, in the order in which aiosock.create_connection would try\n"
        "them: IPv6 and IPv4 take turns (RFC 8305), each in the resolver's order.",
        "  %(prog)s localhost\n  %(prog)s example.org https             endpoints for `connect`\n",
    )
    command.add_argument("host", metavar="HOST", help="a name, or an address")
    command.add_argument(
        "port", metavar="PORT", nargs="?", type=port, help="a number, or a service's name"
    )
    _family(command)
    _timeout(command, "give up after that time")
    _verbose(command, "how long it took, on stderr")


def _trace(commands: Any) -> None:
    command = _command(
        commands,
        "trace",
        "ENDPOINT",
        trace,
        "Connect to ENDPOINT, and draw what takes how long: the lookups of its name, each address\n"
        "that was tried, the TLS handshake. A line for each: when it began, how long it took (ms).",
        "  %(prog)s example.org:80\n  %(prog)s tls://example.org:443 -w 5s\n",
        ENDPOINTS,
    )
    _place(command, "where to connect to")
    command.set_defaults(udp=False)
    _timeout(command, "give up after that time")
    _tls(command, is_client=True)


def _doctor(commands: Any) -> None:
    _command(
        commands,
        "doctor",
        "",
        doctor,
        "Print the versions, loops, limits and address families that matter to aiosock here, for\n"
        "a report of a bug. No names of this machine or its users are among them.",
    )
