"""Many processes write to the same users of one store: `python tests/many_writers.py --processes 8 --users 40 --turns 50 [--store URL]`."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import tempfile
import time
from collections import Counter
from contextlib import nullcontext

from postgresql_server import running_server
from store_kit import new

from lpm_core.doctor import examine
from lpm_core.store import MemoryStore


def write(url: str, process: int, users: int, turns: int) -> None:
    """Add `turns` turns to each user, one call each."""
    with MemoryStore(url) as store:
        for turn in range(turns):
            for user in range(users):
                store.append_turns(f"user {user}", [new(f"{process} {turn}")])


def run(url: str, processes: int, users: int, turns: int) -> int:
    """Write from all processes at once, then check that every turn is there once, in order, with linear versions; how many there are."""
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=write, args=(url, process, users, turns)) for process in range(processes)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    codes = [writer.exitcode for writer in writers]
    total = 0
    with MemoryStore(url) as store:
        for user in range(users):
            found = [turn.content for turn in store.turns(f"user {user}")]
            expected = Counter(f"{process} {turn}" for process in range(processes) for turn in range(turns))
            ordered = all(
                [line for line in found if line.startswith(f"{process} ")] == [f"{process} {turn}" for turn in range(turns)] for process in range(processes)
            )
            linear = store.version(f"user {user}") == len(store.audit(f"user {user}")) == len(found)
            if any(codes) or Counter(found) != expected or not ordered or not linear:
                raise AssertionError(f"user {user}: {len(found)} turns of {expected.total()}, ordered {ordered}, versions linear {linear}, exit codes {codes}")
            total += len(found)
        if examine(store).findings:
            raise AssertionError("the doctor finds something")
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, value in (("--processes", 8), ("--users", 40), ("--turns", 50)):
        parser.add_argument(name, type=int, default=value)
    parser.add_argument("--store", help="SQLAlchemy URL of an empty store. Default: a temporary SQLite file.")
    parser.add_argument("--postgresql", action="store_true", help="Start a PostgreSQL server for the run.")
    options = parser.parse_args()
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, running_server() if options.postgresql else nullcontext() as server:
        url = options.store or server or f"sqlite:///{folder}/memory.db"
        total = run(url, options.processes, options.users, options.turns)
    counts = {"processes": options.processes, "users": options.users, "turns": options.turns, "present_once": total}
    sys.stdout.write(json.dumps(counts | {"seconds": round(time.perf_counter() - begin, 1)}) + "\n")


if __name__ == "__main__":
    main()
