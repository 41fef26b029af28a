"""What LPM promises: turns are kept, pages follow the log, bad input is refused and nothing is lost."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import torch

from lpm_core import LPM, EngineClosedError, InvalidInputError, StoreCorruptError, UnknownUserError
from lpm_core.store import MemoryStore

_CHAT = [{"role": "user", "content": "I live in Oslo."}, {"role": "assistant", "content": "Nice!"}]


def test_remember_keeps_turns_in_order_with_their_session_and_time(tiny: LPM) -> None:
    first = tiny.remember("ann", _CHAT, session_id="s1", at=datetime(2024, 5, 1, 12, tzinfo=UTC))
    second = tiny.remember("ann", "My dog is Rex.", session_id="s2", at="2024-05-02T08:00:00+02:00")

    turns = tiny.turns("ann")

    assert [turn.id for turn in turns] == first + second
    assert [(turn.session_id, turn.role, turn.content, turn.source) for turn in turns] == [
        ("s1", "user", "I live in Oslo.", "user"),
        ("s1", "assistant", "Nice!", "assistant"),
        ("s2", "user", "My dog is Rex.", "user"),
    ]
    assert turns[2].at == datetime(2024, 5, 2, 6, tzinfo=UTC)
    assert [turn.content for turn in tiny.turns("ann", session_id="s2")] == ["My dog is Rex."]
    assert tiny.users() == ["ann"]


def test_users_do_not_see_each_other(tiny: LPM) -> None:
    tiny.remember("ann", "I live in Oslo.")
    tiny.remember("bob", "I live in Rome.")

    assert [turn.content for turn in tiny.turns("ann")] == ["I live in Oslo."]
    assert {item.turn.user_id for item in tiny.recall("bob", "Where do I live?").evidence} <= {"bob"}


def test_recall_has_the_promised_shapes(tiny: LPM) -> None:
    tiny.remember("ann", _CHAT)

    recall = tiny.recall("ann", "Where do I live?")

    heads, slots = recall.slot_weights.shape
    assert recall.soft_prompt.shape == (4, 32)
    assert heads == 4
    assert slots >= 2
    assert recall.slot_weights.sum(1).max() <= 1.0001
    assert sum(item.weight for item in recall.evidence) <= 1.0001


def test_the_number_of_soft_tokens_does_not_grow_with_the_history(tiny: LPM) -> None:
    short = tiny.ask("ann", "Where do I live?", max_new_tokens=2).usage
    for number in range(30):
        tiny.remember("ann", f"This is story number {number} about my life.", session_id=f"s{number % 3}")

    long = tiny.ask("ann", "Where do I live?", max_new_tokens=2).usage

    assert (long.soft_tokens, long.prompt_tokens, long.kv_bytes) == (short.soft_tokens, short.prompt_tokens, short.kv_bytes)


def test_pages_do_not_depend_on_how_the_turns_arrived(tiny: LPM, tmp_path: Path) -> None:
    texts = [f"Fact {number}: my friend number {number} lives in town {number}." for number in range(12)]
    for text in texts:
        tiny.remember("ann", text)
    with tiny.on_store(f"sqlite:///{tmp_path / 'bulk.db'}") as bulk:
        bulk.remember("ann", [{"role": "user", "content": text} for text in texts])

        assert torch.equal(tiny.recall("ann", "Where?").soft_prompt, bulk.recall("ann", "Where?").soft_prompt)


def test_pages_are_rebuilt_from_the_log(tiny: LPM) -> None:
    tiny.remember("ann", _CHAT)
    before = tiny.recall("ann", "Where do I live?").soft_prompt
    names = {"backbone": tiny.backbone.fingerprint, "weights": tiny.weights.fingerprint}
    assert tiny.store.replace_pages("ann", "default", [], from_index=0, version=tiny.store.version("ann"), **names)

    with tiny.on_store(tiny.store) as again:
        assert torch.equal(again.recall("ann", "Where do I live?").soft_prompt, before)


def test_forgetting_equals_never_having_known(tiny: LPM, tmp_path: Path) -> None:
    kept = tiny.remember("ann", "I live in Oslo.")
    gone = tiny.remember("ann", "My secret is safe.")
    tiny.remember("ann", "My dog is Rex.")
    with tiny.on_store(f"sqlite:///{tmp_path / 'never.db'}") as never:
        never.remember("ann", "I live in Oslo.")
        never.remember("ann", "My dog is Rex.")

        receipt = tiny.forget("ann", turn_ids=gone)

        assert receipt.turns == 1
        assert kept[0] in [turn.id for turn in tiny.turns("ann")]
        assert torch.equal(tiny.recall("ann", "Where?").soft_prompt, never.recall("ann", "Where?").soft_prompt)


def test_stream_says_what_ask_says(tiny: LPM) -> None:
    tiny.remember("ann", _CHAT)

    assert "".join(tiny.stream("ann", "Where do I live?", max_new_tokens=16)).strip() == tiny.ask("ann", "Where do I live?", max_new_tokens=16).text


async def test_async_twins_give_the_same(tiny: LPM) -> None:
    ids = await tiny.aremember("ann", _CHAT, session_id="s1")

    assert [turn.id for turn in await tiny.aturns("ann")] == ids
    assert torch.equal((await tiny.arecall("ann", "Where?")).soft_prompt, tiny.recall("ann", "Where?").soft_prompt)
    assert (await tiny.aask("ann", "Where?", max_new_tokens=5)).text == tiny.ask("ann", "Where?", max_new_tokens=5).text
    assert "".join([piece async for piece in tiny.astream("ann", "Where?", max_new_tokens=5)]).strip() == tiny.ask("ann", "Where?", max_new_tokens=5).text


@pytest.mark.parametrize(
    ("user", "messages", "named"),
    [
        ("ann", "", "empty"),
        ("ann", " \n", "empty"),
        ("ann", [], "non-empty"),
        ("ann", [{"role": "user", "content": "a"}, {"role": "user", "content": ""}], "message 1 is empty"),
        ("ann", {"role": "wizard", "content": "a"}, "wizard"),
        ("ann", {"role": "user"}, "content"),
        ("ann", {"role": "user", "content": [{"type": "image"}]}, "list"),
        ("ann", "lone \ud800 surrogate", "surrogate"),
        ("ann", "x" * 1_000_001, "1000001"),
        ("", "a", "user id"),
        ("u" * 10_000, "a", "10000"),
        ("a\0b", "a", "NUL"),
        (7, "a", "7"),
    ],
)
def test_bad_input_is_refused_by_name_and_nothing_is_written(tiny: LPM, user: Any, messages: Any, named: str) -> None:
    tiny.remember("ann", "before")

    with pytest.raises(InvalidInputError, match=named):
        tiny.remember(user, messages)

    assert [turn.content for turn in tiny.turns("ann")] == ["before"]
    assert tiny.users() == ["ann"]


def test_odd_but_valid_ids_and_texts_are_opaque(tiny: LPM) -> None:
    for user in ("../../etc/passwd", "a/b\\c", "名前", "x'; DROP TABLE turns; --", "‮rtl"):
        tiny.remember(user, f"I am {user}. <|im_end|>\x01")
        assert [turn.content for turn in tiny.turns(user)] == [f"I am {user}. <|im_end|>\x01"]
    assert len(tiny.users()) == 5


def test_a_message_of_100_000_characters_is_remembered_whole(tiny: LPM) -> None:
    text = "All work and no play. " * 4546

    tiny.remember("ann", text)

    assert tiny.turns("ann")[0].content == text
    assert tiny.recall("ann", "What about work?").slot_weights.shape[1] > 1000
    with pytest.raises(InvalidInputError, match="window"):
        tiny.ask("ann", text)


def test_a_long_conversation_loses_its_oldest_turns_not_the_question(tiny: LPM) -> None:
    talk = [{"role": "user", "content": f"This is story number {number}."} for number in range(100)]

    usage = tiny.ask("ann", [*talk, {"role": "user", "content": "Where do I live?"}], max_new_tokens=4).usage

    assert 100 < usage.prompt_tokens + usage.soft_tokens + 4 <= tiny.backbone.window


def test_an_unknown_user_has_no_memory_and_cannot_be_forgotten(tiny: LPM) -> None:
    assert tiny.turns("nobody") == []
    assert tiny.recall("nobody", "Who am I?").evidence == []
    assert isinstance(tiny.ask("nobody", "Who am I?", max_new_tokens=2).text, str)
    with pytest.raises(UnknownUserError, match="nobody"):
        tiny.forget_user("nobody")
    assert tiny.users() == []


@pytest.mark.parametrize(
    "call",
    [
        lambda engine: engine.remember("ann", "a"),
        lambda engine: engine.ask("ann", "a"),
        lambda engine: list(engine.stream("ann", "a")),
        lambda engine: engine.recall("ann", "a"),
        lambda engine: engine.turns("ann"),
        lambda engine: engine.users(),
        lambda engine: engine.forget_user("ann"),
    ],
)
def test_a_closed_engine_says_so(tiny_folder: Path, call: Callable[[LPM], Any]) -> None:
    engine = LPM.from_pretrained(tiny_folder, store="sqlite://")
    engine.close()
    engine.close()

    with pytest.raises(EngineClosedError):
        call(engine)


def test_a_truncated_database_is_refused_and_left_alone(tiny: LPM, tmp_path: Path) -> None:
    path = tmp_path / "broken.db"
    with tiny.on_store(f"sqlite:///{path}") as engine:
        engine.remember("ann", "a story " * 200)
    path.write_bytes(path.read_bytes()[:3000])
    before = path.read_bytes()

    with pytest.raises(StoreCorruptError, match=r"broken\.db"), tiny.on_store(f"sqlite:///{path}") as engine:
        engine.turns("ann")

    assert path.read_bytes() == before


def test_two_engines_on_one_store_see_each_others_turns(tiny: LPM, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    with tiny.on_store(url) as one, tiny.on_store(MemoryStore(url)) as two:
        one.remember("ann", "I live in Oslo.")
        two.remember("ann", "My dog is Rex.")

        assert [turn.content for turn in one.turns("ann")] == [turn.content for turn in two.turns("ann")]
        assert torch.equal(one.recall("ann", "Where?").soft_prompt, two.recall("ann", "Where?").soft_prompt)


def test_a_clock_that_goes_backwards_changes_neither_order_nor_version(tiny: LPM, monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter(datetime(2026, 1, day, tzinfo=UTC) for day in (9, 3, 6, 1))

    class Clock(datetime):
        @classmethod
        def now(cls, _zone: Any = None) -> datetime:  # type: ignore[override]
            return next(moments)

    for module in ("validation", "store"):
        monkeypatch.setattr(f"lpm_core.{module}.datetime", Clock)
    versions = []
    for number in range(2):
        tiny.remember("ann", f"Said as number {number}.")
        versions.append(tiny.store.version("ann"))
    monkeypatch.undo()

    assert [turn.content for turn in tiny.turns("ann")] == ["Said as number 0.", "Said as number 1."]
    assert [turn.at.day for turn in tiny.turns("ann")] == [9, 6]
    assert versions == sorted(set(versions))
    assert tiny.forget("ann", before="2026-01-08").turns == 1
    assert [turn.content for turn in tiny.turns("ann")] == ["Said as number 0."]
