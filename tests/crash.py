"""Kill a process at random points of what it does to a store, reopen the store, check the invariants: `python tests/crash.py --kills 300`."""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

from store_kit import NOON, PRINTS, new, page

from lpm_core.doctor import examine
from lpm_core.migrations import MIGRATIONS
from lpm_core.store import MemoryStore

FIXTURE = Path(__file__).parent / "fixtures" / "store_v1.sql"
OLD_TURNS = 3000
ROUNDS_PER_STORE = 10


class BrokenInvariantError(AssertionError):
    """The store is in a state that is neither before nor after an operation."""


def work(url: str, seed: int, report: int) -> None:
    """Remember and forget until killed; say on `report` what is begun and what is done."""

    def say(**event: Any) -> None:
        os.write(report, json.dumps(event).encode() + b"\n")

    draw = random.Random(seed)
    number = 0
    say(begin="open")
    store = MemoryStore(url)
    say(done="open")
    mine = [turn.id for turn in store.turns("ann")]
    while True:
        if draw.random() < 0.6 or len(mine) < 3:
            texts = [f"<{seed}-{number}-{part}>" + "x" * draw.randrange(3000) for part in range(draw.randint(1, 4))]
            number += 1
            say(begin="remember", texts=[text.partition(">")[0] for text in texts])
            turns = store.append_turns("ann", [new(text, f"s{draw.randrange(3)}") for text in texts])
            say(done="remember", ids={turn.id: turn.content.partition(">")[0] for turn in turns})
            mine += [turn.id for turn in turns]
            last = store.turns("ann", session_id=turns[0].session_id)
            say(begin="pages")
            store.replace_pages("ann", turns[0].session_id, [page(last)], from_index=0, version=store.version("ann"), **PRINTS)
            say(done="pages")
        else:
            gone = draw.sample(mine, draw.randint(1, 3))
            say(begin="forget", ids=gone)
            store.delete_turns("ann", gone)
            say(done="forget", ids=gone)
            mine = [turn_id for turn_id in mine if turn_id not in gone]
            say(begin="vacuum")
            store.vacuum()
            say(done="vacuum")


def kill_at_random(url: str, seed: int, longest: float) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
    """Run `work` for a moment: what it acknowledged, and what it was doing when it was killed."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reader)
            work(url, seed, writer)
        finally:
            os._exit(1)
    os.close(writer)
    with open(reader, "rb") as events:
        first = events.readline()  # it runs
        time.sleep(random.Random(seed).uniform(0, longest))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        lines = (first + events.read()).splitlines()
    if os.waitstatus_to_exitcode(status) != -signal.SIGKILL:
        raise BrokenInvariantError(f"seed {seed}: the process ended by itself")
    told = [json.loads(line) for line in lines]
    begun = next((event for event in reversed(told) if "begin" in event), None)
    return [event for event in told if "done" in event], None if told and "done" in told[-1] else begun


def check(path: Path, kept: dict[str, str], gone: dict[str, str], doing: dict[str, Any] | None, seed: int) -> None:
    """Reopen; `kept` and `gone` (id: text) are what was acknowledged, and take in what the killed operation did."""
    with MemoryStore(f"sqlite:///{path}") as store:
        turns = {turn.id: turn.content.partition(">")[0] for turn in store.turns("ann")}
        doing = doing or {}
        if doing.get("begin") == "remember":
            added = {turn_id: text for turn_id, text in turns.items() if text in doing["texts"]}
            require(sorted(added.values()) in ([], sorted(doing["texts"])), seed, "half of a call to remember is there")
            kept.update(added)
        elif doing.get("begin") == "forget" and not turns.keys() & set(doing["ids"]):
            gone.update({turn_id: kept.pop(turn_id) for turn_id in doing["ids"]})
        require(turns == kept, seed, "acknowledged turns are lost, or forgotten ones are back")
        require(store.version("ann") == len(store.audit("ann")), seed, "the version is not the number of changes")
        require(examine(store, **PRINTS).findings == (), seed, "the doctor finds something")
        data = b"".join(file.read_bytes() for file in path.parent.glob(f"{path.name}*"))
        require(not any(f"{text}>".encode() in data for text in gone.values()), seed, "forgotten text is in the file")


def require(holds: bool, seed: int, what: str) -> None:
    if not holds:
        raise BrokenInvariantError(f"seed {seed}: {what}")


def old_store(path: Path) -> None:
    """A store of the first schema with many turns, so that its upgrade takes a while."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript(FIXTURE.read_text("utf-8"))
        at = int(NOON.timestamp() * 1e6)
        rows = [(f"{number:032x}", 2, 3, number + 2, "user", "user", at, b"old" * 50) for number in range(OLD_TURNS)]
        connection.executemany("INSERT INTO turns VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
        connection.execute("UPDATE users SET last_position = ? WHERE key = 2", (OLD_TURNS + 2,))


def run(kills: int, seed: int, folder: Path) -> dict[str, int]:
    """Kill and check `kills` times; counts of what the killed processes were doing. Raises BrokenInvariantError."""
    seen: Counter[str] = Counter()
    template = folder / "old.db"
    old_store(template)
    kept: dict[str, str] = {}
    gone: dict[str, str] = {}
    path = folder / "none.db"
    for number in range(seed, seed + kills):
        if number % 5 == 4:
            upgraded = folder / f"old-{number}.db"
            upgraded.write_bytes(template.read_bytes())
            _, doing = kill_at_random(f"sqlite:///{upgraded}", number, 0.4)
            with closing(sqlite3.connect(upgraded)) as connection:
                (version,) = connection.execute("SELECT max(version) FROM schema_version").fetchone()
            require(version in (1, len(MIGRATIONS)), number, "the schema is between versions")
            with MemoryStore(f"sqlite:///{upgraded}") as store:
                require(len(store.turns("bob")) == OLD_TURNS + 1, number, "the upgrade lost turns")
                require(examine(store).findings == (), number, "the upgrade left findings")
            seen["migrate" if version == 1 else "migrated"] += 1
            upgraded.unlink()
            continue
        if (number - seed) % ROUNDS_PER_STORE == 0:
            path, kept, gone = folder / f"{number}.db", {}, {}
        done, doing = kill_at_random(f"sqlite:///{path}", number, 0.25)
        for event in done:
            if event["done"] == "remember":
                kept.update(event["ids"])
            elif event["done"] == "forget":
                gone.update({turn_id: kept.pop(turn_id) for turn_id in event["ids"]})
        check(path, kept, gone, doing, number)
        seen[doing["begin"] if doing else "between"] += 1
    return dict(sorted(seen.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        seen = run(options.kills, options.seed, Path(folder))
    result = {"kills": options.kills, "seed": options.seed, "killed_in": seen, "lost_turns": 0, "unreadable_stores": 0}
    sys.stdout.write(json.dumps(result | {"seconds": round(time.perf_counter() - begin, 1)}) + "\n")


if __name__ == "__main__":
    main()
