"""A case: what is measured of several subjects alike, in turn, round after round."""

import resource
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from ._load import Mode, Tools
from ._programs import LOADING, Program, Server
from ._statistics import Sense, Spread, compared, spread
from .peers import LIMITS, PEERS, command, loop_of, works_of

Rates = dict[str, float]  # by unit
Take = Callable[[], Rates]
Pair = tuple[str, str]  # who is compared with whom
OURS = "aiosock"
OTHERS = 64  # descriptors of a program that are no connections


@dataclass
class Case:
    name: str
    takes: dict[str, Take]
    sense: Sense = "more"
    pairs: list[Pair] | None = None  # ours with all peers on the same loop, or on none
    once: bool = False  # where rounds would tell nothing more
    at: float | None = None  # where on the axis of a curve


@dataclass
class Result:
    group: str
    case: str
    unit: str
    sense: Sense
    values: dict[str, list[float]]
    pairs: list[Pair]
    at: float | None = None

    def medians(self) -> dict[str, float]:
        return {subject: spread(values).median for subject, values in self.values.items()}

    def spreads(self) -> dict[Pair, Spread]:
        found = self.values
        return {(a, b): compared(found[a], found[b], self.sense) for a, b in self.pairs}


def beside(subjects: Collection[str]) -> list[Pair]:
    ours = [subject for subject in subjects if subject.startswith(OURS)]
    others = [subject for subject in subjects if subject not in ours]
    return [(a, b) for a in ours for b in others if loop_of(b) in ("", loop_of(a))]


@dataclass
class Plan:
    """How much is measured, and of whom; what was left out, and why."""

    tools: Tools
    rounds: int = 7
    seconds: float = 0.08
    quick: bool = False
    subjects: Collection[str] = ("",)  # parts of names
    left_out: list[str] = field(default_factory=list)
    most: int = 8000  # connections to one server

    def leave_out(self, what: str, why: str) -> None:
        line = f"{what} is left out: {why}"
        if line not in self.left_out:
            self.left_out.append(line)

    def wants(self, subject: str) -> bool:
        return any(part in subject for part in self.subjects)

    def peers(self, *work: str, among: Collection[str] = tuple(PEERS)) -> list[str]:
        """Who is installed, wanted, and knows all of this work."""
        found = []
        for subject in among:
            peer = PEERS[subject]
            if not self.wants(subject):
                continue
            if peer.lacks:
                self.leave_out(subject, f"{peer.lacks} is not installed")
            elif set(work) <= works_of(peer).keys():
                found.append(subject)
        return found

    def can_hold(self, connections: int) -> bool:
        """Whether a program may have so many open."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft < hard:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # for children too
        return connections + OTHERS <= hard or hard == resource.RLIM_INFINITY

    # --- programs -------------------------------------------------------------------

    @contextmanager
    def servers(
        self, names: Collection[str], work: str, certificate: str | None = None
    ) -> Iterator[dict[str, Server]]:
        """One for each name, on the core that is measured; and the limit in C."""
        with ExitStack() as stack:
            commands = {name: command(name, work, certificate) for name in names}
            in_c = self.tools.program("limit") if work in ("echo", "once") else None
            if in_c and not certificate and self.wants(LIMITS[1]):
                commands[LIMITS[1]] = [in_c, work]
            started = {
                name: stack.enter_context(Server(*words)) for name, words in commands.items()
            }
            yield {name: server.started() for name, server in started.items()}

    @contextmanager
    def counterpart(self) -> Iterator[Server]:
        """An echo server on the core of the load, for what measures clients."""
        in_c = self.tools.program("limit")
        words = [in_c, "echo"] if in_c else command(LIMITS[0], "echo")
        with Server(*words, core=LOADING) as server:
            yield server.started()

    @contextmanager
    def loads(
        self,
        servers: dict[str, Server],
        mode: Mode,
        connections: int = 1,
        size: int = 1,
        active: int = 0,
        tls: bool = False,
    ) -> Iterator[dict[str, Program]]:
        """For each server a load, connected and ready."""
        words = (mode, connections, active or connections, size, tls)
        if not self.tools.program("load", *(("-DTLS", "-lssl", "-lcrypto") if tls else ())):
            self.leave_out("the load in C", "nothing compiles it here; one in Python is slower")
        with ExitStack() as stack:
            found = {}
            for name, server in servers.items():
                found[name] = stack.enter_context(self.tools.load(server, *words))
                found[name].hear()
            yield found

    @contextmanager
    def loaded(
        self,
        work: str,
        mode: Mode,
        connections: int = 1,
        size: int = 1,
        active: int = 0,
        *,
        names: Collection[str] | None = None,
        certificate: str | None = None,
    ) -> Iterator[tuple[dict[str, Program], dict[str, Server]]]:
        """Servers of this work, all who know it unless names are given, and a load for each."""
        names = self.peers(work) if names is None else names
        with ExitStack() as stack:
            servers = stack.enter_context(self.servers(names, work, certificate))
            loads = self.loads(servers, mode, connections, size, active, tls=bool(certificate))
            yield stack.enter_context(loads), servers

    @contextmanager
    def workers(self, commands: dict[str, list[str]]) -> Iterator[dict[str, Program]]:
        """Programs that are measured while they work, and ready to."""
        with ExitStack() as stack:
            programs = {n: stack.enter_context(Program(*words)) for n, words in commands.items()}
            for program in programs.values():
                program.hear()
            yield programs

    # --- what to take ---------------------------------------------------------------

    def rates(
        self,
        loads: dict[str, Program],
        unit: str,
        servers: Mapping[str, Program] | None = None,
        per: float = 1,
    ) -> dict[str, Take]:
        """What is done in a second; and in a second of the servers' CPU, if they are given."""

        def take(name: str) -> Rates:
            server = servers[name] if servers else None
            cpu = server.cpu() if server else 0.0
            done, elapsed = loads[name].work(self.seconds)
            rates = {f"{unit}/s": done / per / elapsed}
            if server:
                rates[f"{unit}/s of its CPU"] = done / per / server.cpu_since(cpu)
            return rates

        return {name: lambda name=name: take(name) for name in loads}  # type: ignore[misc]  # mypy infers no lambda with defaults

    def run(self, group: str, case: Case, watch: Callable[[str], None]) -> list[Result]:
        """Every subject is measured once in each round, in turn; the first round warms up."""
        taken: dict[str, list[Rates]] = {subject: [] for subject in case.takes}
        rounds = 1 if case.once else self.rounds
        for turn in range(case.once, rounds + 1):
            for subject in list(taken):
                watch(f"{group}: {case.name}, round {turn} of {rounds}: {subject}")
                try:
                    rates = case.takes[subject]()
                except (RuntimeError, OSError) as error:  # its program has ended: others go on
                    self.leave_out(f"{subject} in {group}: {case.name}", str(error))
                    del taken[subject]
                    continue
                if turn:
                    taken[subject].append(rates)
        return results_of(group, case, taken)


def results_of(group: str, case: Case, taken: dict[str, list[Rates]]) -> list[Result]:
    """One for each unit."""
    pairs = beside(taken) if case.pairs is None else case.pairs
    pairs = [pair for pair in pairs if taken.keys() >= set(pair)]
    units = dict.fromkeys(unit for rounds in taken.values() for rates in rounds for unit in rates)
    return [
        Result(
            group,
            case.name,
            unit,
            case.sense,
            {subject: [rates[unit] for rates in rounds] for subject, rounds in taken.items()},
            pairs,
            case.at,
        )
        for unit in units
    ]
