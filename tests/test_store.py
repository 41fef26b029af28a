"""The turn log: what was stored comes back as it was, in order, and to its own user only."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_kit import CALLS, FINE, NOON, PRINTS, new, page, same

from lpm_core.exceptions import InvalidInputError
from lpm_core.memory import Turn
from lpm_core.store import MemoryStore, NewTurn

NOTHING = ((), 0, 0)
ODD_TEXT = ["\x00", "a\x00b\x00", "", "🏔️ ḱ\u0301", "\u202eRTL", "<|im_end|>", "../../etc", "x" * 1_000_000, "'; DROP TABLE turns; --", "\U0010ffff\r\x1b"]
BAD_TURNS: list[tuple[Any, ...]] = [
    *(("s", "robot", "x", NOON, "user"), ("s", "user", "x", NOON, "\x00"), ("s", "user", "x", NOON.replace(tzinfo=None), "user")),
    *(("s", "user", "x", "yesterday", "user"), ("s", "user", "x", datetime.min.replace(tzinfo=timezone(timedelta(hours=14))), "user")),
]


def test_turns_come_back_as_they_were_stored_and_in_order(store: MemoryStore) -> None:
    first = store.append_turns("ann", [new("one"), NewTurn("s2", "assistant", "two", NOON - timedelta(days=9), "assistant")])
    second = store.append_turns("ann", [NewTurn("s1", "tool", "", NOON.astimezone(timezone(timedelta(hours=5))), "import")])

    turns = store.turns("ann")

    assert turns == first + second
    assert [(t.session_id, t.role, t.content, t.source) for t in turns] == [
        *(("s1", "user", "one", "user"), ("s2", "assistant", "two", "assistant"), ("s1", "tool", "", "import"))
    ]
    assert [(t.at, t.at.tzinfo) for t in turns] == [(NOON, UTC), (NOON - timedelta(days=9), UTC), (NOON, UTC)]
    assert [len({t.id for t in turns}), {len(t.id) for t in turns}, {t.user_id for t in turns}] == [3, {32}, {"ann"}]


def test_turns_of_a_session_or_by_id(store: MemoryStore) -> None:
    one, two, three = store.append_turns("ann", [new("one"), new("two", "s2"), new("three")])

    assert [store.turns("ann", session_id="s1"), store.turns("ann", session_id="none")] == [[one, three], []]
    assert store.turns("ann", turn_ids=[three.id, "no such id", "\x00", "9" * 100_000, one.id, one.id]) == [one, three]
    assert store.turns("ann", session_id="s2", turn_ids=[one.id, two.id]) == [two]
    assert store.turns("ann", turn_ids=[]) == []
    with pytest.raises(InvalidInputError, match="list"):
        store.turns("ann", turn_ids=one.id)


def test_more_ids_than_a_statement_takes(store: MemoryStore) -> None:
    ids = [turn.id for turn in store.append_turns("ann", [new(str(number)) for number in range(1201)])]

    assert [turn.content for turn in store.turns("ann", turn_ids=reversed(ids))] == [str(number) for number in range(1201)]
    assert len(store.delete_turns("ann", ids[:1200] + ["f" * 32] * 40_000).turn_ids) == 1200
    assert [turn.content for turn in store.turns("ann")] == ["1200"]


def test_versions_count_the_writes_that_change_history(store: MemoryStore) -> None:
    versions = [store.version("ann")]
    turns = store.append_turns("ann", [new("one"), new("two")])
    versions.append(store.version("ann"))
    store.append_turns("ann", [])
    store.replace_pages("ann", "s1", [page(turns)], from_index=0, version=1, **PRINTS)
    store.delete_turns("ann", ["0" * 32])
    versions.append(store.version("ann"))
    store.delete_turns("ann", [turns[0].id])
    versions.append(store.version("ann"))
    store.delete_user("ann")
    versions.append(store.version("ann"))
    store.append_turns("ann", [new("again")])
    assert [*versions, store.version("ann")] == [0, 1, 1, 2, 3, 4]


def test_audit_names_turns_and_never_content(store: MemoryStore) -> None:
    before = datetime.now(UTC)
    one, two = store.append_turns("ann", [new("a secret"), new("another secret")])
    store.delete_turns("ann", [one.id])
    store.delete_user("ann")

    rows = store.audit("ann")

    assert [(row.action, row.turn_ids) for row in rows] == [("remember", (one.id, two.id)), ("forget", (one.id,)), ("forget_user", (two.id,))]
    assert before <= rows[0].at <= rows[1].at <= rows[2].at <= datetime.now(UTC)
    assert "secret" not in repr(rows)


def test_users_are_isolated(store: MemoryStore) -> None:
    ann = store.append_turns("ann", [new("ann's")])
    bob = store.append_turns("bob", [new("bob's")])
    assert store.replace_pages("ann", "s1", [page(ann)], from_index=0, version=1, **PRINTS)

    assert store.users() == ["ann", "bob"]
    assert [store.turns("ann"), store.turns("bob")] == [ann, bob]
    assert store.turns("bob", turn_ids=[ann[0].id]) == []
    assert store.pages("bob", **PRINTS) == []
    assert store.delete_turns("bob", [ann[0].id]) == NOTHING
    with pytest.raises(InvalidInputError, match="not in its session"):
        store.replace_pages("bob", "s1", [page(ann)], from_index=0, version=1, **PRINTS)
    assert store.delete_user("bob") == ((bob[0].id,), 0, 1)
    assert store.turns("ann") == ann
    assert same(store.pages("ann", **PRINTS), [page(ann)])
    assert store.users() == ["ann"]


def test_a_user_never_seen_has_nothing(store: MemoryStore) -> None:
    assert [store.turns("x"), store.users(), store.audit("x"), store.pages("x", **PRINTS)] == [[], [], [], []]
    assert store.delete_turns("x", ["0" * 32]) == NOTHING
    assert store.delete_user("x") == NOTHING
    assert store.version("x") == 0
    assert store.replace_pages("x", "s1", [], from_index=0, version=0, **PRINTS)
    assert [store.users(), store.audit("x")] == [[], []]


@pytest.mark.parametrize("text", ODD_TEXT)
def test_any_text_round_trips_as_content_and_as_id(store: MemoryStore, text: str) -> None:
    other = store.append_turns(text + "\x00", [new("of another user", text + "x")])
    stored = store.append_turns(text, [new(text, text)])

    assert store.turns(text) == stored == store.turns(text, session_id=text)
    assert [(t.user_id, t.session_id, t.content) for t in stored] == [(text, text, text)]
    assert store.users() == [text + "\x00", text]
    assert store.replace_pages(text, text, [page(stored)], from_index=0, version=1, **PRINTS)
    assert same(store.pages(text, **PRINTS), [page(stored)])
    assert store.delete_user(text) == ((stored[0].id,), 1, 1)
    assert store.turns(text + "\x00") == other


@pytest.mark.parametrize("bad", ["\ud800", "ok\udfff", None, 3, b"bytes"])
def test_what_is_not_text_is_refused_and_nothing_written(store: MemoryStore, bad: Any) -> None:
    kept = store.append_turns("ann", [new("kept")])
    for turn in (new(bad), new("fine", session=bad)):
        with pytest.raises(InvalidInputError):
            store.append_turns("ann", [FINE, turn])
    for method, arguments, named in CALLS:
        with pytest.raises(InvalidInputError):
            getattr(store, method)(bad, *arguments, **named)
    with pytest.raises(InvalidInputError):
        store.pages("ann", backbone=bad, weights="w")
    assert [store.turns("ann"), store.users(), store.version("ann")] == [kept, ["ann"], 1]


@pytest.mark.parametrize("fields", BAD_TURNS)
def test_turns_that_cannot_be_kept_are_refused(store: MemoryStore, fields: tuple[Any, ...]) -> None:
    with pytest.raises(InvalidInputError):
        store.append_turns("ann", [FINE, NewTurn(*fields)])
    assert store.turns("ann") == []


ACTIONS = st.sampled_from(["append", "append", "delete", "delete_user", "reopen"])
VALUES = st.lists(st.tuples(st.integers(0, 9), st.text(max_size=30)), max_size=3)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(ACTIONS, st.sampled_from(["ann", "bob", ""]), VALUES), max_size=12))
def test_the_log_is_what_a_plain_list_would_be(steps: list[tuple[str, str, list[tuple[int, str]]]]) -> None:
    model: dict[str, list[Turn]] = {"ann": [], "bob": [], "": []}
    versions = dict.fromkeys(model, 0)
    with tempfile.TemporaryDirectory() as folder:
        store = MemoryStore(f"sqlite:///{Path(folder).as_posix()}/memory.db")
        for action, user, values in steps:
            before = len(model[user])
            if action == "append":
                model[user] += store.append_turns(user, [new(content, f"s{number % 3}") for number, content in values])
            elif action == "delete":
                ids = [model[user][index].id for index in {number for number, _ in values} if index < before]
                assert len(store.delete_turns(user, ids).turn_ids) == len(ids)
                model[user] = [turn for turn in model[user] if turn.id not in ids]
            elif action == "delete_user":
                assert len(store.delete_user(user).turn_ids) == before
                model[user] = []
            else:
                store.close()
                store = MemoryStore(f"sqlite:///{Path(folder).as_posix()}/memory.db")
            for name, turns in model.items():
                assert store.turns(name) == turns
                assert store.version(name) >= versions[name] + (name == user and len(turns) != before)
                versions[name] = store.version(name)
            assert sorted(store.users()) == sorted(name for name, turns in model.items() if turns)
        store.close()
