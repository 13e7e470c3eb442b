"""What it was measured on."""

import os
import platform
import ssl
from importlib import metadata
from pathlib import Path
from typing import Any

DISTRIBUTIONS = "uvloop trio curio anyio gevent".split()


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def facts() -> dict[str, Any]:
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release().partition("-")[0],
        "python": platform.python_version(),
        "openssl": ssl.OPENSSL_VERSION,
        "peers": {name: found for name in DISTRIBUTIONS if (found := _version(name))},
        "load average": [round(load, 2) for load in os.getloadavg()],
    }


def sentence(machine: dict[str, Any]) -> str:
    peers = ", ".join(f"{name} {version}" for name, version in machine["peers"].items())
    loads = " ".join(map(str, machine["load average"]))
    return (
        f"{machine['cpu']}, {machine['cores']} cores, Linux {machine['kernel']}, "
        f"Python {machine['python']}, {machine['openssl']}, {peers}; "
        f"load average at the start {loads}"
    )
