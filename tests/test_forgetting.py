"""Forgetting is exact: afterwards every tensor is that of a store that never saw the turns, and their text is in no file."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_kit import new, sql

from lpm_core import LPM, ForgetReceipt, InvalidInputError, MemoryStore, UnknownUserError
from lpm_core.store import NewTurn

WAYS = ("turn_ids", "session_id", "before", "expire")
START = datetime(2024, 5, 1, 12, tzinfo=UTC)
WORDS = [
    "my",
    "dog",
    "Rex",
    "lives",
    "in",
    "Oslo",
    "and",
    "likes",
    "fish.",
    "Mother",
    "called",
    "about",
    "the",
    "garden;",
    "we",
    "moved",
    "to",
    "Rome",
    "last",
    "May!",
]


@pytest.fixture(scope="module")
def engine(tiny_folder: Path) -> Iterator[LPM]:
    with LPM.from_pretrained(tiny_folder, store="sqlite://") as engine:
        yield engine


def said(history: list[tuple[str, str, datetime]]) -> list[NewTurn]:
    roles: list[Literal["user", "assistant"]] = ["user" if len(text) % 3 else "assistant" for _, text, _ in history]
    return [NewTurn(session, role, text, at, role) for role, (session, text, at) in zip(roles, history, strict=True)]


def tensors(engine: LPM) -> list[torch.Tensor]:
    """Every tensor that memory gives for a user: slots of the stored pages, and soft tokens of two messages."""
    soft = [engine.recall("ann", message).soft_prompt for message in ("Where do I live?", "dog")]
    pages = engine.store.pages("ann", backbone=engine.backbone.fingerprint, weights=engine.weights.fingerprint)
    return [*(page.slots for page in sorted(pages, key=lambda page: (page.session_id, page.index))), *soft]


def check_forgotten(engine: LPM, seed: int, turns: int, way: str) -> None:
    """Tell an engine a random history and forget a part of it: it must equal one that never saw that part."""
    draw = random.Random(seed)
    history = [
        (f"s{draw.randrange(3)}", " ".join(draw.choices(WORDS, k=draw.choice((1, 6, 40)))), START + timedelta(hours=draw.randrange(48))) for _ in range(turns)
    ]
    cut = START + timedelta(hours=draw.randrange(48) - 0.5)
    with engine.on_store("sqlite://") as told, engine.on_store("sqlite://") as never:
        ids = [told.remember("ann", {"role": turn.role, "content": turn.content}, session_id=turn.session_id, at=turn.at)[0] for turn in said(history)]
        named = set(draw.sample(ids, draw.randrange(turns + 1)))
        goes: dict[str, Callable[[int], bool]] = {
            "turn_ids": lambda number: ids[number] in named,
            "session_id": lambda number: history[number][0] == "s0",
        }
        gone = [number for number in range(turns) if goes.get(way, lambda number: history[number][2] < cut)(number)]

        if way == "expire":
            receipts = told.expire("ann", ttl=datetime.now(UTC) - cut)
            assert [receipt.turns for receipt in receipts] == ([len(gone)] if gone else [])
        else:
            receipt = told.forget("ann", **{way: {"turn_ids": list(named), "session_id": "s0", "before": cut}[way]})
            assert receipt.turns == len(gone)
        never.store.append_turns("ann", said([turn for number, turn in enumerate(history) if number not in gone]))

        left, right = tensors(told), tensors(never)
        assert len(left) == len(right)
        assert all(torch.equal(mine, other) for mine, other in zip(left, right, strict=True))
        assert [turn.content for turn in told.turns("ann")] == [turn.content for turn in never.turns("ann")]


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), turns=st.integers(1, 6), way=st.sampled_from(WAYS))
def test_forgotten_equals_never_seen_bit_for_bit(engine: LPM, seed: int, turns: int, way: str) -> None:
    check_forgotten(engine, seed, turns, way)


def test_refined_pages_of_other_sessions_keep_nothing_of_forgotten_turns(tiny: LPM) -> None:
    with tiny.on_store("sqlite://") as told, tiny.on_store("sqlite://") as never:
        gone = told.remember("ann", "My secret is safe.", session_id="s1")
        for engine in (told, never):
            engine.remember("ann", "I live in Oslo.", session_id="s2")
        names = {"backbone": told.backbone.fingerprint, "weights": told.weights.fingerprint}
        refined = [replace(page, slots=page.slots + 1) for page in told.store.pages("ann", **names) if page.session_id == "s2"]
        assert told.store.replace_pages("ann", "s2", refined, from_index=0, version=2, **names)

        told.forget("ann", turn_ids=gone)

        assert all(torch.equal(mine, other) for mine, other in zip(tensors(told), tensors(never), strict=True))


def on_disk(path: Path) -> bytes:
    """Everything in the database file and the logs beside it."""
    return b"".join(file.read_bytes() for file in path.parent.glob(f"{path.name}*"))


@pytest.mark.parametrize("way", ["turn_ids", "session_id", "before", "expire", "user"])
def test_no_byte_of_forgotten_text_is_left_in_the_files_while_the_store_is_open(tiny: LPM, path: Path, url: str, way: str) -> None:
    with tiny.on_store(url) as engine:
        ids = engine.remember("ann", ["swordfish " * 900, "The swordfish is safe."][1], session_id="secret", at=START)
        ids += engine.remember("ann", "swordfish " * 900, session_id="secret", at=START)
        kept = engine.remember("bob", "Kept by Bob.", session_id="other", at=START + timedelta(days=1))
        if way != "user":
            engine.remember("ann", "Kept by Ann.", session_id="other", at=START + timedelta(days=1))
        slots = b"".join(page.slots[:, :1].numpy().tobytes() for page in engine._memory("ann")[0].pages if page.session_id == "secret")[:64]
        assert b"swordfish" in on_disk(path)

        if way == "expire":
            (receipt,) = engine.expire(ttl=datetime.now(UTC) - START - timedelta(hours=1))
        elif way == "user":
            receipt = engine.forget_user("ann")
        else:
            receipt = engine.forget("ann", **{way: {"turn_ids": ids, "session_id": "secret", "before": START + timedelta(hours=1)}[way]})

        assert (receipt.user_id, receipt.turns, receipt.sessions, receipt.vacuumed) == ("ann", 2, 1, True)
        assert receipt.pages > 0
        data = on_disk(path)
        assert [word in data for word in (b"swordfish", b"secret", slots)] == [False, False, False]
        assert b"Kept by Bob." in data
        assert (b"Kept by Ann." in data) == (way != "user")
        assert [turn.id for turn in engine.turns("bob")] == kept


def test_a_vacuum_that_others_hinder_is_owed_and_made_up_for(path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lpm_core.storage.database._BUSY_MS", 50)
    with MemoryStore(url) as store, MemoryStore(url) as other:
        store.append_turns("ann", [new("The swordfish is safe.")])
        with other.database.begin() as reader:
            reader.exec_driver_sql("SELECT count(*) FROM turns").scalar()  # a reader holds the log as it was
            store.delete_turns("ann", session_id="s1")
            assert not store.vacuum()
            assert b"swordfish" in on_disk(path)
        other.close()
        with MemoryStore(url):
            assert b"swordfish" not in on_disk(path)
        assert sql(path, "SELECT count(*) FROM meta WHERE key = 'vacuum_due'") == [(0,)]


def test_expire_without_a_user_reaches_all(tiny: LPM) -> None:
    tiny.remember("ann", "Old.", at=START)
    tiny.remember("bob", "Old.", at=START)
    tiny.remember("bob", "New.")
    tiny.remember("cleo", "New.")

    receipts = tiny.expire(ttl=timedelta(days=30))

    assert [(receipt.user_id, receipt.turns) for receipt in receipts] == [("ann", 1), ("bob", 1)]
    assert [[turn.content for turn in tiny.turns(user)] for user in ("ann", "bob", "cleo")] == [[], ["New."], ["New."]]
    assert tiny.expire(ttl=timedelta(days=30)) == []
    assert tiny.expire(ttl=timedelta.max) == []


def test_forgetting_twice_removes_nothing_more(tiny: LPM) -> None:
    ids = tiny.remember("ann", "Gone soon.")

    assert tiny.forget("ann", turn_ids=ids).turns == 1
    assert tiny.forget("ann", turn_ids=ids) == ForgetReceipt("ann", 0, 0, 0, vacuumed=True)
    assert tiny.forget_user("ann").turns == 0
    with pytest.raises(UnknownUserError):
        tiny.forget("ann", turn_ids=ids)


async def test_async_twins_forget_alike(tiny: LPM) -> None:
    ids = await tiny.aremember("ann", ["One."][0])
    await tiny.aremember("ann", "Two.")

    assert (await tiny.aforget("ann", turn_ids=ids)).turns == 1
    assert (await tiny.aforget_user("ann")).turns == 1


@pytest.mark.parametrize(
    "selection",
    [{}, {"turn_ids": [], "session_id": "s"}, {"session_id": "s", "before": START}, {"turn_ids": "0" * 32}, {"session_id": ""}, {"before": "yesterday"}, {"before": 7}],
)  # fmt: skip
def test_what_to_forget_must_be_clear_and_nothing_is_lost_otherwise(tiny: LPM, selection: dict[str, Any]) -> None:
    tiny.remember("ann", "Kept.")

    with pytest.raises(InvalidInputError):
        tiny.forget("ann", **selection)

    assert [turn.content for turn in tiny.turns("ann")] == ["Kept."]


@pytest.mark.parametrize("ttl", [timedelta(days=-1), 30, None])
def test_a_retention_time_that_is_none_is_refused(tiny: LPM, ttl: Any) -> None:
    with pytest.raises(InvalidInputError, match="ttl"):
        tiny.expire(ttl=ttl)
