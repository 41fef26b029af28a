"""Nothing acknowledged is lost: reopening, threads, processes, kill -9."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from store_kit import PRINTS, new, page, same

import lpm_core.store as store_module
from lpm_core.store import MemoryStore


def test_a_reopened_store_has_everything(url: str) -> None:
    with MemoryStore(url) as store:
        turns = store.append_turns("ann", [new("1"), new("2", "s2")])
        store.replace_pages("ann", "s1", [page(turns[:1])], from_index=0, version=1, **PRINTS)
        before = (store.id, turns, store.users(), store.version("ann"), store.audit("ann"))
    with MemoryStore(url) as store:
        assert (store.id, store.turns("ann"), store.users(), store.version("ann"), store.audit("ann")) == before
        assert same(store.pages("ann", **PRINTS), [page(turns[:1])])
        with MemoryStore("sqlite://") as other, MemoryStore("sqlite://") as another:
            assert len({store.id, other.id, another.id}) == 3


def test_threads_append_to_one_user_without_loss(store: MemoryStore) -> None:
    def append(thread: int) -> list[str]:
        return [store.append_turns("ann", [new(f"{thread} {number}")])[0].id for number in range(50)]

    with ThreadPoolExecutor(4) as pool:
        acknowledged = [turn_id for ids in pool.map(append, range(4)) for turn_id in ids]

    turns = store.turns("ann")
    assert len(acknowledged) == 200
    assert sorted(turn.id for turn in turns) == sorted(acknowledged)
    assert store.version("ann") == len(store.audit("ann")) == 200
    for thread in range(4):
        mine = [turn.content for turn in turns if turn.content.startswith(f"{thread} ")]
        assert mine == [f"{thread} {number}" for number in range(50)]


def test_stores_opened_at_once_on_a_new_file_share_it(url: str) -> None:
    start = threading.Barrier(4)

    def append(number: int) -> str:
        start.wait()
        with MemoryStore(url) as store:
            for count in range(5):
                store.append_turns("ann", [new(f"{number} {count}")])
            return store.id

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(append, range(4)))) == 1
    with MemoryStore(url) as store:
        assert len({turn.content for turn in store.turns("ann")}) == store.version("ann") == 20


def test_readers_see_whole_page_sets(url: str) -> None:
    with MemoryStore(url) as store:
        turns = store.append_turns("ann", [new(str(number)) for number in range(6)])
        sets = [[page([turn], index, seed) for index, turn in enumerate(turns)] for seed in range(2)]
        store.replace_pages("ann", "s1", sets[0], from_index=0, version=1, **PRINTS)
        done = threading.Event()

        def read() -> int:
            reads = 0
            while not done.is_set() or not reads:
                pages = store.pages("ann", **PRINTS)
                assert same(pages, sets[0]) or same(pages, sets[1])
                reads += 1
            return reads

        with ThreadPoolExecutor(2) as pool:
            readers = [pool.submit(read) for _ in range(2)]
            for number in range(30):
                store.replace_pages("ann", "s1", sets[number % 2], from_index=0, version=1, **PRINTS)
            done.set()
            assert all(reader.result() for reader in readers)


CHILD = """
import os, sys
from datetime import UTC, datetime
from lpm_core.store import MemoryStore, NewTurn
store = MemoryStore(sys.argv[1])
while True:
    turn, = store.append_turns("ann", [NewTurn("s1", "user", "x" * 5000, datetime.now(UTC), "user")])
    os.write(1, (turn.id + "\\n").encode())
"""


def test_kill_9_after_append_loses_nothing(url: str) -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(store_module.__file__).parents[1])}
    with subprocess.Popen([sys.executable, "-c", CHILD, url], stdout=subprocess.PIPE, text=True, env=environment) as child:
        assert child.stdout is not None
        acknowledged = [child.stdout.readline().strip() for _ in range(20)]
        child.kill()
        acknowledged += child.stdout.read().split()

    with MemoryStore(url) as store:
        turns = store.turns("ann")
        assert [turn.id for turn in turns][: len(acknowledged)] == acknowledged
        assert store.version("ann") == len(store.audit("ann")) == len(turns) <= len(acknowledged) + 1
        assert store.append_turns("ann", [new("after")])[0] == store.turns("ann")[-1]


def test_deleted_text_and_ids_are_gone_from_the_file(path: Path, url: str) -> None:
    with MemoryStore(url) as store:
        store.append_turns("ann-of-oslo", [new("swordfish" * 3000, "the-session")])
        store.append_turns("bob", [new("kept-by-bob")])
        store.delete_user("ann-of-oslo")
    data = path.read_bytes()
    assert b"kept-by-bob" in data
    assert not any(text in data for text in (b"swordfish", b"ann-of-oslo", b"the-session"))
    assert [file.name for file in path.parent.iterdir()] == ["memory.db"]
