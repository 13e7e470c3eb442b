"""TLS over TCP: echo of 1 KiB on 10 connections, bulk each way, handshakes.

The certificate is ECDSA's, made for this run by openssl or trustme, and verified by nobody;
the protocol is what Python chooses: TLS 1.3.  A handshake comes with a byte each way and a
close; no session is taken up again.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

from ._programs import Program, Server
from ._rounds import Case, Plan
from .peers import BATCH, KNOW_NO_TLS, LIMITS

MIB = 1 << 20
Loaded = AbstractContextManager[tuple[dict[str, Program], dict[str, Server]]]


def cases(plan: Plan) -> Iterator[Case]:
    certificate = plan.tools.certificate()
    if certificate is None:
        return plan.leave_out("tls", "neither openssl nor trustme makes a certificate")

    def loaded(work: str, *how: Any, **more: Any) -> Loaded:
        unable = KNOW_NO_TLS if work == "echo" else (*KNOW_NO_TLS, LIMITS[0])
        names = [name for name in plan.peers(work) if name not in unable]
        return plan.loaded(work, *how, **more, names=names, certificate=certificate)

    with loaded("echo", "echo", 10, 1024) as (loads, _):
        yield Case("echo of 1 KiB on 10 connections", plan.rates(loads, "round trips"))
    with loaded("receive", "pour", size=BATCH) as (loads, servers):
        yield Case("received", plan.rates(loads, "MiB", servers, per=MIB))
    with loaded("send", "drain", size=BATCH) as (loads, servers):
        yield Case("sent", plan.rates(loads, "MiB", servers, per=MIB))
    with loaded("once", "short", connections=4) as (loads, servers):
        yield Case("handshakes", plan.rates(loads, "handshakes", servers))
    return None
