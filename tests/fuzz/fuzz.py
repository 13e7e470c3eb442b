"""Fuzzes one target with atheris, which looks for inputs that reach new lines of ours.

    python tests/fuzz/fuzz.py TARGET [-runs=N] [-seed=N] [-max_total_time=SECONDS] [CORPUS ...]

The target "every" is all of them.  The arguments behind it are libFuzzer's.  Without a number
of runs or a time it goes on until something is found: it prints that and keeps the input in
a file ``crash-...``, to be given as an argument, which runs it alone.
"""

import sys
import tempfile
from pathlib import Path

import atheris

sys.path.insert(1, str(Path(__file__).parents[1]))
with atheris.instrument_imports(include=["aiosock", "aiosock_sync"]):
    import targets


def main() -> None:
    known = targets.TARGETS | {"every": targets.every}
    if sys.argv[1:2] == [] or sys.argv[1] not in known:
        sys.exit(f"{__doc__}\nThe targets are {', '.join(known)}.")
    name = sys.argv.pop(1)
    with targets.prepared(), tempfile.TemporaryDirectory() as seeds:
        for number, seed in enumerate(targets.some_inputs(name, 50)):
            Path(seeds, str(number)).write_bytes(seed)
        limits = ["-timeout=20", "-max_len=1000", "-len_control=0", "-rss_limit_mb=1000"]
        atheris.Setup([sys.argv[0], *limits, *sys.argv[1:], seeds], known[name])
        atheris.Fuzz()


if __name__ == "__main__":
    main()
