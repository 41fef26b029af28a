"""Kill a process at random points of what an engine does, reopen the store, check the invariants: `python tests/crash.py --kills 300`."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # its threads do not survive a fork

import torch
from store_kit import NOON
from tiny_model import make_tiny, tiny_weights

from lpm_core import LPM
from lpm_core.backbone import Backbone
from lpm_core.consolidation import ConsolidationRecipe
from lpm_core.doctor import examine
from lpm_core.exceptions import StoreKeyError
from lpm_core.memory import Page
from lpm_core.migrations import MIGRATIONS
from lpm_core.storage.encryption import new_master_key
from lpm_core.storage.rekey import encrypt_store, rotate_key
from lpm_core.store import MemoryStore

EARLIER = sorted((Path(__file__).parent / "fixtures").glob("store_v*.sql"))
OLD_TURNS = 3000
ROUNDS_PER_STORE = 10
USERS = ("ann", "bob")
RECIPE = ConsolidationRecipe(steps=1, questions=3, question_tokens=12, answer_tokens=6)
KEY, OTHER_KEY = new_master_key(), new_master_key()

Say = Callable[..., None]
Work = Callable[[str, random.Random, Say], None]


class BrokenInvariantError(AssertionError):
    """The store is in a state that is neither before nor after an operation."""


def require(holds: bool, seed: int, what: str) -> None:
    if not holds:
        raise BrokenInvariantError(f"seed {seed}: {what}")


def fingerprints(pages: list[Page] | tuple[Page, ...]) -> dict[str, str]:
    """Which page, of which turns: what its slots are."""
    return {
        f"{page.session_id} {page.index} {' '.join(page.slot_turns)} {page.tokens}": hashlib.sha256(page.slots.contiguous().numpy().tobytes()).hexdigest()
        for page in pages
    }


class AnnouncingStore(MemoryStore):
    """A store that says which pages it is about to put in place of others."""

    say: Say = staticmethod(lambda **_: None)

    def put_pages(self, user_id: str, pages: Any, *, keep: bool = False, **rest: Any) -> bool:
        if not keep:
            self.say(putting=fingerprints(pages))
        return super().put_pages(user_id, pages, keep=keep, **rest)


class Crash:
    """Engines on a tiny Qwen3, the work that is killed, and the checks after it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.backbone = Backbone.load(make_tiny(folder / "tiny", terse=True))
        self.weights, self.other_weights = (tiny_weights(self.backbone, seed=seed) for seed in range(2))
        self.kept: dict[str, dict[str, str]] = {}
        self.pages: dict[str, dict[str, str]] = {}
        self.gone: set[str] = set()
        self.start_over()

    def start_over(self) -> None:
        """Expect an empty store."""
        self.kept, self.pages, self.gone = {user: {} for user in USERS}, {user: {} for user in USERS}, set()

    def engine(self, url: str) -> LPM:
        return LPM(self.backbone, self.weights, AnnouncingStore(url))

    def stored(self, engine: LPM, user: str) -> dict[str, str]:
        return fingerprints(engine.store.pages(user, backbone=self.backbone.fingerprint, weights=self.weights.fingerprint))

    # What is killed

    def use(self, url: str, draw: random.Random, say: Say) -> None:
        """Remember, forget, consolidate and rebuild; say what is begun and what is done."""
        say(begin="open")
        engine = self.engine(url)
        other = LPM(self.backbone, self.other_weights, engine.store)
        engine.store.say = say  # type: ignore[attr-defined]
        say(done="open")
        mine = {user: [(turn.id, turn.session_id) for turn in engine.turns(user)] for user in USERS}
        number = 0
        while True:
            user = draw.choice(USERS)
            what = draw.choices(("remember", "forget", "consolidate", "rebuild"), (8, 3, 5, 2))[0]
            if len(mine[user]) < 3 or (what != "forget" and len(mine[user]) > 8):
                what = "remember" if len(mine[user]) < 3 else "forget"
            if what == "remember":
                number += 1
                session = f"s{draw.randrange(3)}"
                texts = [f"<{draw.getrandbits(60)}-{number}-{part}>" for part in range(draw.randint(1, 3))]
                say(begin=what, user=user, texts=texts)
                ids = engine.remember(user, [{"role": "user", "content": text + " I like fish." * draw.randrange(20)} for text in texts], session_id=session)
                mine[user] += [(turn, session) for turn in ids]
                say(done=what, user=user, ids=dict(zip(ids, texts, strict=True)), pages=self.stored(engine, user))
            elif what == "forget":
                way = draw.choice(("turn_ids", "session_id", "user"))
                session = draw.choice(mine[user])[1]
                named = {turn for turn, _ in draw.sample(mine[user], 2)}
                gone = [turn for turn, of in mine[user] if way == "user" or (of == session if way == "session_id" else turn in named)]
                say(begin=what, user=user, ids=gone)
                if way == "user":
                    engine.forget_user(user)
                else:
                    engine.forget(user, **{way: {"turn_ids": gone, "session_id": session}[way]})  # type: ignore[arg-type]
                mine[user] = [row for row in mine[user] if row[0] not in gone]
                say(done=what, user=user, ids=gone, pages=self.stored(engine, user))
            elif what == "consolidate":
                say(begin=what, user=user)
                report = engine.consolidate(user, RECIPE, on_step=lambda step: say(step=step))
                say(done=what, user=user, promoted=report.promoted, pages=self.stored(engine, user))
            else:
                say(begin=what, user=user)
                other.rebuild(user, on_progress=lambda done, _: say(step=done))
                engine.rebuild(user, on_progress=lambda done, _: say(step=done))
                say(done=what, user=user, pages=self.stored(engine, user))

    def upgrade(self, url: str, _draw: random.Random, say: Say) -> None:
        """Open a store of an earlier schema, and write the pages that other weights made."""
        say(begin="open")
        engine = self.engine(url)
        say(done="open")
        engine.rebuild("ann")
        while True:
            engine.recall("ann", "Where do I live?")

    @staticmethod
    def rekey(url: str, _draw: random.Random, say: Say) -> None:
        """Encrypt a store, then change its master key back and forth."""
        key, other = KEY, OTHER_KEY
        say(begin="encrypt")
        encrypt_store(url, key)
        while True:
            say(begin="rotate")
            rotate_key(url, key, other)
            key, other = other, key

    # What must hold afterwards

    def check(self, path: Path, told: list[dict[str, Any]], seed: int) -> str:
        """Reopen the store; take in what was acknowledged and what the killed operation did. Returns that operation."""
        doing: dict[str, Any] = {}
        putting: dict[str, str] = {}
        promoted = 0
        for event in told:
            if "begin" in event:
                doing, putting = event, {}
            putting = event.get("putting", putting)
            if "done" in event:
                doing = {}
                promoted += event.get("promoted", False)
                self.take(event)
        with self.engine(f"sqlite:///{path}") as engine:
            for user in USERS:
                self.check_user(engine, user, doing if doing.get("user") == user else {}, putting, seed)
            require(examine(engine.store).findings == (), seed, "the doctor finds something")
            data = b"".join(file.read_bytes() for file in path.parent.glob(f"{path.name}*"))
            require(not any(text.encode() in data for text in self.gone), seed, "forgotten text is in the file")
        self.promoted = promoted
        return str(doing.get("begin", "between")) + ("/put" if putting and doing else "")

    def take(self, event: dict[str, Any]) -> None:
        if event["done"] == "remember":
            self.kept[event["user"]] |= event["ids"]
        elif event["done"] == "forget":
            self.gone |= {self.kept[event["user"]].pop(turn) for turn in event["ids"]}
        if "pages" in event:
            self.pages[event["user"]] = event["pages"]

    def check_user(self, engine: LPM, user: str, doing: dict[str, Any], putting: dict[str, str], seed: int) -> None:
        turns = {turn.id: turn.content.partition(" ")[0] for turn in engine.turns(user)}
        kept, held = self.kept[user], self.pages[user]
        if doing.get("begin") == "remember":
            added = {turn: text for turn, text in turns.items() if text in doing["texts"]}
            require(list(added.values()) in ([], doing["texts"]), seed, "half of a call to remember is there")
            kept |= added
        elif doing.get("begin") == "forget" and not turns.keys() & set(doing["ids"]):
            self.gone |= {kept.pop(turn) for turn in doing["ids"]}
        require(list(turns.items()) == list(kept.items()), seed, "acknowledged turns are lost or out of order, or forgotten ones are back")
        require(engine.store.version(user) == len(engine.store.audit(user)), seed, "the version is not the number of changes")
        found = fingerprints(engine._memory(user)[0].pages)  # missing pages are written now
        engine.ask(user, "Where do I live?", max_new_tokens=1)
        if not doing:
            require(found == held, seed, "the pages are not those that were acknowledged")
        else:
            fresh = self.canonical(engine, user)
            require(found.keys() == fresh.keys(), seed, "the pages are not those of the log")
            wrong = [page for page, slots in found.items() if slots not in (fresh[page], held.get(page), putting.get(page))]
            require(not wrong, seed, "a page is neither old nor new")
            if doing["begin"] == "consolidate":
                new = [found[page] == slots for page, slots in putting.items() if slots != held[page]]
                require(all(new) or not any(new), seed, "some pages are refined and some are not")
        if doing.get("begin") == "forget" and not turns.keys() & set(doing["ids"]):
            require(found == self.canonical(engine, user), seed, "a page knows of forgotten turns")
        self.pages[user] = found

    def canonical(self, engine: LPM, user: str) -> dict[str, str]:
        """The pages of an engine that was told the user's turns and nothing else."""
        with self.engine("sqlite://") as fresh:
            fresh.store.import_turns(user, engine.turns(user))
            return fingerprints(fresh._memory(user)[0].pages)

    def check_upgrade(self, path: Path, schema: int, seed: int) -> str:
        with closing(sqlite3.connect(path)) as connection:
            (version,) = connection.execute("SELECT max(version) FROM schema_version").fetchone()
        require(version in (schema, len(MIGRATIONS)), seed, "the schema is between versions")
        with self.engine(f"sqlite:///{path}") as engine:
            require([len(engine.turns(user)) for user in USERS] == [3, 1 + OLD_TURNS * (schema == 1)], seed, "the upgrade lost turns")
            require(examine(engine.store).findings == (), seed, "the upgrade left findings")
            require(fingerprints(engine._memory("ann")[0].pages) == self.canonical(engine, "ann"), seed, "the pages are not those of the log")
        return "migrate" if version == schema < len(MIGRATIONS) else "migrated"

    def check_keys(self, path: Path, told: list[dict[str, Any]], seed: int) -> str:
        opened = 0
        for key in (None, KEY, OTHER_KEY):
            try:
                with MemoryStore(f"sqlite:///{path}", key) as store:
                    opened += 1
                    for user in USERS:
                        require([turn.id for turn in store.turns(user)] == list(self.kept[user]), seed, "changing the keys lost turns")
                    require(examine(store).findings == (), seed, "changing the keys left findings")
                data = b"".join(file.read_bytes() for file in path.parent.glob(f"{path.name}*"))
                texts = {text.encode() for user in USERS for text in self.kept[user].values()}
                require(key is None or not any(text in data for text in texts), seed, "an encrypted store holds plain text")
            except StoreKeyError:
                continue
        require(opened == 1, seed, f"{opened} keys open the store")
        return str(told[-1]["begin"])


def kill_at_random(work: Work, url: str, seed: int, events: int, longest: float, *, rare: bytes = b"") -> list[dict[str, Any]]:
    """Let a process work up to an event, now and then to the first that holds `rare`, and a moment longer, and kill it: what it said."""
    draw = random.Random(seed)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reader)
            work(url, draw, lambda **event: os.write(writer, json.dumps(event).encode() + b"\n") and None)
        finally:
            os._exit(1)
    os.close(writer)
    draw = random.Random(f"kill {seed}")
    with open(reader, "rb") as said:
        sought = draw.random() < 0.2 and rare
        first = b""
        for _ in range(2 * events if sought else draw.randint(1, events)):
            first += said.readline()
            if sought and sought in first:
                break
        time.sleep(longest * 10 ** draw.uniform(-4, 0))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        told = [json.loads(line) for line in (first + said.read()).splitlines()]
    require(os.waitstatus_to_exitcode(status) == -signal.SIGKILL, seed, "the process ended by itself")
    return told


def old_store(path: Path, fixture: Path) -> None:
    """A store as an earlier version left it; one of the first schema has many turns, so that its upgrade takes a while."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript(fixture.read_text("utf-8"))
        if fixture == EARLIER[0]:
            at = int(NOON.timestamp() * 1e6)
            rows = [(f"{number:032x}", 2, 3, number + 2, "user", "user", at, b"old" * 50) for number in range(OLD_TURNS)]
            connection.executemany("INSERT INTO turns VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
            connection.execute("UPDATE users SET last_position = ? WHERE key = 2", (OLD_TURNS + 2,))


def run(kills: int, seed: int, folder: Path) -> dict[str, int]:
    """Kill and check `kills` times; counts of what the killed processes were doing. Raises BrokenInvariantError."""
    torch.set_num_threads(1)  # the threads of a pool do not survive a fork, and one thread always gives the same bits
    crash = Crash(folder)
    seen: Counter[str] = Counter()
    templates = [folder / f"{fixture.stem}.db" for fixture in EARLIER]
    for template, fixture in zip(templates, EARLIER, strict=True):
        old_store(template, fixture)
    path = folder / "none.db"
    for number in range(seed, seed + kills):
        if (number - seed) % ROUNDS_PER_STORE == 0:
            path = folder / f"{number}.db"
            crash.start_over()
        copy = folder / f"copy-{number}.db"
        if number % 5 == 4:
            schema = 1 + number // 5 % len(EARLIER)
            shutil.copy(templates[schema - 1], copy)
            kill_at_random(crash.upgrade, f"sqlite:///{copy}", number, 2, 0.4)
            seen[crash.check_upgrade(copy, schema, number)] += 1
        elif number % 10 == 7 and path.exists():
            for file in folder.glob(f"{path.name}*"):
                shutil.copy(file, folder / file.name.replace(path.name, copy.name))
            told = kill_at_random(crash.rekey, f"sqlite:///{copy}", number, 4, 0.1)
            seen[crash.check_keys(copy, told, number)] += 1
        else:
            told = kill_at_random(crash.use, f"sqlite:///{path}", number, 30, 0.2, rare=b'"putting"')
            seen[crash.check(path, told, number)] += 1
            seen["promotions acknowledged"] += crash.promoted
    return dict(sorted(seen.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        seen = run(options.kills, options.seed, Path(folder))
    promotions = seen.pop("promotions acknowledged", 0)
    result = {"kills": options.kills, "seed": options.seed, "killed_in": seen, "promotions": promotions, "lost_turns": 0, "unreadable_stores": 0}
    sys.stdout.write(json.dumps(result | {"seconds": round(time.perf_counter() - begin, 1)}) + "\n")


if __name__ == "__main__":
    main()
