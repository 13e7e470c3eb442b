"""aiosock beside its peers, measured in turn, round after round, in one run.

    python -m benchmarks                       all of it, in under ten minutes
    python -m benchmarks --quick               for a look
    python -m benchmarks --only echo tls       some groups; --list names them

A map of the house, from the ground up.

    _statistics     ratios of rounds: the median, and the quarters
    _programs       programs on a core of their own, which are asked and answer
    _load           the load: load.c, or the same in Python where no compiler is
    peers/          the servers: one small function for each peer and each work
    _rounds         a case: what is measured of several subjects alike, in turn
    _machine        what it was measured on
    _report         the table, JSON, and what is written into docs/speed.md
    _plot           the picture
    __main__        the command

and a module for each group of cases: echo, bulk, accepting, datagrams, lines, tls, names,
sync, calls, timeouts, scale, fairness, memory, imports.
"""
