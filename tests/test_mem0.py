"""Mem0's client API over both backends: calls of the current and of the older style, scopes, restarts, deletion for good."""

from __future__ import annotations

import inspect
import sqlite3
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import lpm_integrations.mem0
from lpm_core import LPM
from lpm_core.exceptions import EngineClosedError, InvalidInputError, StoreCorruptError, StoreUnavailableError, StoreVersionError
from lpm_integrations.mem0 import AsyncMemory, Memory

Open = Callable[[], Memory]


class WordsEmbedding:
    """Texts with the same words are alike."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        vector = [0.01] * 64
        for word in text.lower().split():
            vector[zlib.crc32(word.encode()) % 64] += 1.0
        return vector


@pytest.fixture(params=["lpm", "rag"])
def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Opens the client on one folder, again and again, as separate processes would."""
    opened: list[Memory] = []
    folder = request.getfixturevalue("tiny_folder") if request.param == "lpm" else None

    def _open() -> Memory:
        memory = Memory(request.param, tmp_path / "mem0", model=str(folder) if folder else None, embedding=WordsEmbedding())
        opened.append(memory)
        return memory

    yield _open
    for memory in opened:
        memory.close()


@pytest.fixture
def memory(reopen: Open) -> Memory:
    return reopen()


def said(found: dict[str, Any]) -> list[str]:
    return [item["memory"] for item in found["results"]]


def test_what_is_added_has_the_documented_shape(memory: Memory) -> None:
    added = memory.add(
        [{"role": "user", "content": "I live in Oslo."}, {"role": "assistant", "content": "Oslo is nice."}], user_id="ann", metadata={"topic": "home"}
    )

    assert [set(item) for item in added["results"]] == [{"id", "memory", "event", "role"}] * 2
    assert [(item["memory"], item["event"]) for item in added["results"]] == [("I live in Oslo.", "ADD"), ("Oslo is nice.", "ADD")]
    [first, second] = memory.get_all(user_id="ann")["results"]
    assert [first["id"], second["id"]] == [item["id"] for item in added["results"]]
    assert first["metadata"] == {"topic": "home"}
    assert (first["user_id"], first["role"], first["updated_at"]) == ("ann", "user", None)
    assert first["created_at"].endswith("+00:00")
    found = memory.search("Where do I live?", filters={"user_id": "ann"}, top_k=1)["results"]
    assert len(found) == 1
    assert set(found[0]) == {*first, "score"}
    assert 0 <= found[0]["score"] <= 1


@pytest.mark.parametrize(
    "messages", ["I live in Oslo.", {"role": "user", "content": "I live in Oslo."}, ["I live in Oslo."], [{"role": "user", "content": "I live in Oslo."}]]
)
def test_messages_may_be_a_string_a_mapping_or_a_list(memory: Memory, messages: Any) -> None:
    memory.add(messages, user_id="ann", infer=False)

    assert said(memory.get_all(user_id="ann")) == ["I live in Oslo."]


def test_system_messages_are_left_out_and_text_parts_count(memory: Memory) -> None:
    parts = [{"type": "text", "text": "Look at my cat."}, {"type": "image_url", "image_url": {"url": "x"}}]
    memory.add([{"role": "system", "content": "Be kind."}, {"role": "user", "name": "Ann", "content": parts}], user_id="ann")
    memory.add([{"role": "system", "content": "Be kind."}], user_id="ann")

    [only] = memory.get_all(user_id="ann")["results"]
    assert (only["memory"], only["actor_id"]) == ("Look at my cat.", "Ann")


def test_old_call_styles_are_taken(memory: Memory) -> None:
    memory.update_project(custom_instructions="Extract facts.")
    memory.add("I live in Oslo.", user_id="ann", timestamp=1683554160, version="v2", enable_graph=False, output_format="v1.1", async_mode=False)
    memory.add("I have a cat.", "ann")

    assert said(memory.get_all("ann")) == ["I live in Oslo.", "I have a cat."]
    assert memory.get_all("ann")["results"][0]["created_at"] == "2023-05-08T13:56:00+00:00"
    assert len(memory.search("cat", user_id="ann", limit=1)["results"]) == 1
    assert len(memory.search("cat", "ann", limit=5, filter_memories=False, output_format="v1.1")["results"]) == 2
    assert isinstance(memory.search("cat", user_id="ann", output_format="v1.0"), list)
    identity = memory.get_all("ann")["results"][1]["id"]
    memory.update(identity, data="I have two cats.")
    memory.update(memory_id=identity, text="I have three cats.")
    assert memory.get(identity)["memory"] == "I have three cats."


def test_a_misspelt_option_is_refused(memory: Memory) -> None:
    with pytest.raises(InvalidInputError, match="userid"):
        memory.search("cat", user_id="ann", userid="bo")


def test_ids_and_everything_else_outlive_the_process(reopen: Open) -> None:
    first = reopen()
    [added] = first.add("I live in Oslo.", user_id="ann", metadata={"topic": "home"})["results"]
    first.update(added["id"], "I live in Bergen.")
    before, history = first.get(added["id"]), first.history(added["id"])
    first.close()

    again = reopen()

    assert again.get(added["id"]) == before
    assert before is not None
    assert before["memory"] == "I live in Bergen."
    assert again.history(added["id"]) == history
    assert said(again.search("Where do I live?", user_id="ann")) == ["I live in Bergen."]


def test_scopes_keep_memories_apart(memory: Memory) -> None:
    memory.add("I live in Oslo.", user_id="ann")
    memory.add("I live in Rome.", user_id="bo")
    memory.add("My cook is slow.", user_id="ann", agent_id="chef", run_id="r1")
    memory.add("Salt is low.", agent_id="chef")

    assert said(memory.get_all(user_id="ann")) == ["I live in Oslo.", "My cook is slow."]
    assert said(memory.get_all(user_id="ann", agent_id="chef")) == ["My cook is slow."]
    assert said(memory.get_all(agent_id="chef")) == ["My cook is slow.", "Salt is low."]
    assert said(memory.get_all(run_id="r1")) == ["My cook is slow."]
    assert said(memory.search("Where do I live?", user_id="bo")) == ["I live in Rome."]
    assert said(memory.search("cook", user_id="ann", run_id="r1")) == ["My cook is slow."]
    assert set(said(memory.search("cook", filters={"OR": [{"user_id": "bo"}, {"agent_id": "chef"}]}))) == {
        "I live in Rome.",
        "My cook is slow.",
        "Salt is low.",
    }
    assert said(memory.get_all(user_id="cy")) == []


def test_filters_on_metadata(memory: Memory) -> None:
    for number, topic in enumerate(["home", "food", "food", "work"]):
        memory.add(f"note {number}", user_id="ann", metadata={"topic": topic, "number": number})

    def notes(**filters: Any) -> list[str]:
        return said(memory.get_all(filters={"user_id": "ann", **filters}))

    assert notes(topic="food") == ["note 1", "note 2"]
    assert notes(number={"gte": 2}) == ["note 2", "note 3"]
    assert notes(topic={"in": ["home", "work"]}, number={"lt": 3}) == ["note 0"]
    assert notes(NOT=[{"topic": "food"}]) == ["note 0", "note 3"]
    assert notes(OR=[{"number": 0}, {"topic": {"icontains": "WOR"}}]) == ["note 0", "note 3"]
    assert notes(missing="*") == []
    assert said(memory.search("note", filters={"AND": [{"user_id": "ann"}, {"topic": "work"}]}, top_k=1)) == ["note 3"]
    with pytest.raises(InvalidInputError, match="near"):
        notes(topic={"near": "food"})


def test_every_call_is_scoped(memory: Memory) -> None:
    memory.add("I live in Oslo.", user_id="ann")

    for call in (
        lambda: memory.add("I live in Rome."),
        lambda: memory.search("Where?"),
        lambda: memory.search("Where?", filters={"topic": "home"}),
        lambda: memory.search("Where?", filters={"NOT": [{"user_id": "ann"}]}),
        lambda: memory.search("Where?", filters={"OR": [{"user_id": "ann"}, {"topic": "home"}]}),
        lambda: memory.search("Where?", filters={"user_id": "*"}),
        lambda: memory.get_all(),
        lambda: memory.delete_all(),
    ):
        with pytest.raises(InvalidInputError, match="user_id"):
            call()
    assert said(memory.get_all(user_id="ann")) == ["I live in Oslo."]


def test_delete_all_takes_one_scope_and_reset_takes_all(memory: Memory) -> None:
    memory.add("I live in Oslo.", user_id="ann")
    memory.add("My cook is slow.", user_id="ann", run_id="r1")
    memory.add("I live in Rome.", user_id="bo")

    memory.delete_all(user_id="ann", run_id="r1")
    assert said(memory.get_all(user_id="ann")) == ["I live in Oslo."]
    memory.delete_all(user_id="ann")
    assert said(memory.get_all(user_id="ann")) == []
    assert said(memory.search("Where?", user_id="ann")) == []
    assert said(memory.get_all(user_id="bo")) == ["I live in Rome."]
    memory.reset()
    assert said(memory.get_all(user_id="bo")) == []


def test_the_history_tells_what_happened_and_a_deletion_takes_the_texts(memory: Memory, tmp_path: Path) -> None:
    [added] = memory.add("My PIN is fourtwo.", user_id="ann")["results"]
    memory.update(added["id"], "My PIN is sevennine.")

    rows = memory.history(added["id"])
    assert [(row["event"], row["old_memory"], row["new_memory"]) for row in rows] == [
        ("ADD", None, "My PIN is fourtwo."),
        ("UPDATE", "My PIN is fourtwo.", "My PIN is sevennine."),
    ]
    memory.delete(added["id"])

    rows = memory.history(added["id"])
    assert [(row["event"], row["old_memory"], row["new_memory"], row["is_deleted"]) for row in rows] == [
        ("ADD", None, None, False),
        ("UPDATE", None, None, False),
        ("DELETE", None, None, True),
    ]
    assert memory.get(added["id"]) is None
    assert memory.history("no such id") == []


def test_an_updated_text_is_found_and_the_old_one_is_not(memory: Memory) -> None:
    [added] = memory.add("my cat is grey", user_id="ann", metadata={"topic": "pets"})["results"]
    memory.add("the oven is hot", user_id="ann")

    memory.update(added["id"], "my dog is brown")

    found = {item["id"]: item for item in memory.search("my dog is brown", user_id="ann")["results"]}
    assert found[added["id"]]["memory"] == "my dog is brown"
    assert found[added["id"]]["metadata"] == {"topic": "pets"}
    assert found[added["id"]]["updated_at"] is not None
    assert "my cat is grey" not in said(memory.get_all(user_id="ann"))
    memory.update(added["id"], metadata={"topic": "dogs"})
    assert memory.get(added["id"])["metadata"] == {"topic": "dogs"}


def test_the_threshold_drops_what_scores_less(memory: Memory) -> None:
    memory.add(["my cat is grey", "the oven is hot"], user_id="ann")

    scores = [item["score"] for item in memory.search("my cat", user_id="ann")["results"]]

    assert scores == sorted(scores, reverse=True)
    assert len(scores) == 2
    assert len(memory.search("my cat", user_id="ann", threshold=scores[0] - 1e-6)["results"]) == 1


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda memory: memory.add("", user_id="ann"), "empty"),
        (lambda memory: memory.add([], user_id="ann"), "messages"),
        (lambda memory: memory.add(7, user_id="ann"), "7"),
        (lambda memory: memory.add("Hi", user_id=7), "user_id"),
        (lambda memory: memory.add("Hi", user_id=" "), "user_id"),
        (lambda memory: memory.add("Hi", user_id="mem0/agent_id/x"), "mem0/"),
        (lambda memory: memory.add("Hi", user_id="ann", metadata=["x"]), "metadata"),
        (lambda memory: memory.add("Hi", user_id="ann", metadata={"x": object()}), "JSON"),
        (lambda memory: memory.add("Hi", user_id="ann", timestamp="soon"), "soon"),
        (lambda memory: memory.search("", user_id="ann"), "query"),
        (lambda memory: memory.search("Hi", user_id="ann", top_k=0), "top_k"),
        (lambda memory: memory.search("Hi", user_id="ann", threshold=3), "threshold"),
        (lambda memory: memory.search("Hi", user_id="ann", filters="x"), "filters"),
        (lambda memory: memory.update("no such id", "Hi"), "no such id"),
        (lambda memory: memory.update("no such id"), "neither"),
        (lambda memory: memory.delete("no such id"), "no such id"),
    ],
)
def test_bad_input_is_named_and_nothing_is_written(memory: Memory, call: Callable[[Memory], Any], named: str) -> None:
    with pytest.raises(InvalidInputError, match=named):
        call(memory)
    assert said(memory.get_all(user_id="ann")) == []


def test_a_failure_between_the_two_files_leaves_nothing_behind(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    memory.add("my cat is grey", user_id="ann")

    def fail(*_: object) -> None:
        raise StoreUnavailableError("disk full")

    monkeypatch.setattr(memory._catalogue, "add", fail)
    with pytest.raises(StoreUnavailableError):
        memory.add("my dog is brown", user_id="ann")

    assert memory._backend.count("ann") == 1


def test_after_close_calls_say_so(memory: Memory) -> None:
    memory.close()
    memory.close()

    with pytest.raises(EngineClosedError):
        memory.get_all(user_id="ann")


def test_an_unknown_backend_and_config_key_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="faiss"):
        Memory(backend="faiss")  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="vectorstore"):
        Memory.from_config({"vectorstore": {}})


def test_from_config_takes_this_projects_keys_and_those_of_mem0(tmp_path: Path) -> None:
    config = {"backend": "rag", "vector_store": {"provider": "chroma", "config": {"path": str(tmp_path / "there")}}, "llm": {"provider": "openai"}}

    with Memory.from_config(config):
        assert (tmp_path / "there" / "mem0-rag.db").exists()


@pytest.mark.parametrize(("content", "error"), [(b"not a database, but long enough to be read as one" * 50, StoreCorruptError), (None, StoreVersionError)])
def test_a_catalogue_that_cannot_be_read_is_refused(tmp_path: Path, content: bytes | None, error: type[Exception]) -> None:
    path = tmp_path / "mem0-rag.db"
    if content is None:
        with sqlite3.connect(path) as connection:
            connection.execute("PRAGMA user_version = 99")
        connection.close()
    else:
        path.write_bytes(content)

    with pytest.raises(error, match=r"mem0-rag\.db"):
        Memory("rag", tmp_path)


def test_memories_are_turns_of_the_engine_which_answers_from_them(tiny: LPM, tmp_path: Path) -> None:
    with Memory(path=tmp_path / "mem0", engine=tiny) as memory:
        memory.add([{"role": "user", "content": "I live in Oslo."}], user_id="ann", metadata={"timestamp": "1:56 pm on 8 May, 2023"})
        tiny.remember("ann", "Told elsewhere.")

        [turn, _] = tiny.turns("ann")
        assert (turn.content, turn.at.isoformat(), turn.session_id) == ("I live in Oslo.", "2023-05-08T13:56:00+00:00", "1:56 pm on 8 May, 2023")
        assert said(memory.search("Where do I live?", user_id="ann")) == ["I live in Oslo."]
        memory.delete_all(user_id="ann")
        assert [left.content for left in tiny.turns("ann")] == ["Told elsewhere."]
    assert not tiny.closed


async def test_the_async_twin_has_every_call_and_gives_the_same(tmp_path: Path) -> None:
    calls = {name for name, value in vars(Memory).items() if not name.startswith("_") and callable(getattr(Memory, name)) and value is not None}
    assert calls == {name for name in vars(AsyncMemory) if not name.startswith("_")}
    assert all(inspect.iscoroutinefunction(getattr(AsyncMemory, name)) for name in calls)

    async with AsyncMemory("rag", tmp_path, embedding=WordsEmbedding()) as memory:
        [added] = (await memory.add("my cat is grey", user_id="ann"))["results"]
        await memory.update(added["id"], "my cat is black")
        assert said(await memory.search("cat", user_id="ann")) == ["my cat is black"]
        assert said(await memory.get_all("ann")) == ["my cat is black"]
        assert (await memory.get(added["id"]))["id"] == added["id"]
        assert len(await memory.history(added["id"])) == 2
        with pytest.raises(InvalidInputError):
            await memory.delete_all()
        await memory.delete(added["id"])
        await memory.reset()
        await memory.update_project(custom_instructions="x")


def test_public_names() -> None:
    assert set(lpm_integrations.mem0.__all__) == {"AsyncMemory", "Memory"}
