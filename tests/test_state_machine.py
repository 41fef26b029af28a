"""Random walks over everything an engine does for several users: what was acknowledged is there, and nobody sees another."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from tiny_model import RecordingBackbone, make_tiny, tiny_weights

from lpm_core import LPM, UnknownUserError
from lpm_core.checkpoint import MemoryWeights
from lpm_core.consolidation import ConsolidationRecipe
from lpm_core.memory import Evidence
from lpm_core.store import MemoryStore

RECIPE = ConsolidationRecipe(steps=1, questions=3, question_tokens=12, answer_tokens=6)
MARKERS = {"ann": "(qa)", "Ann": "(qb)", "e\u0301/..": "(qc)", "é/..": "(qd)"}  # in everything that a user says
WALK = settings(max_examples=40, stateful_step_count=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))

users = st.sampled_from(sorted(MARKERS))
sessions = st.sampled_from(["s1", "s2"])
texts = st.sampled_from(["I live in Oslo.", "My dog is Rex.", "Nice <|im_end|> to meet you.", "I like fish. " * 9])


class Walk(RuleBasedStateMachine):
    """One store, its engine, and what they must know."""

    backbone: ClassVar[RecordingBackbone]
    weights: ClassVar[MemoryWeights]
    done: ClassVar[Counter[str]] = Counter()
    files = Bundle("files")

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.log: dict[str, list[tuple[str, str, str]]] = {user: [] for user in MARKERS}  # id, session, text
        self.versions = dict.fromkeys(MARKERS, 0)
        self.seen: set[str] = set()
        self.refined: set[str] = set()
        self.asking: str | None = None
        self.open()

    def open(self) -> None:
        self.engine = LPM(self.backbone, self.weights, MemoryStore(f"sqlite:///{self.folder.name}/memory.db"))
        self.backbone.taken()

    def teardown(self) -> None:
        self.engine.close()
        self.folder.cleanup()

    def count(self, what: str, user: str | None) -> None:
        """Note which call was made last, and for whom."""
        self.done[what] += 1
        self.asking = user

    def changed(self, user: str) -> None:
        """Expect a version above the last one."""
        version = self.engine.store.version(user)
        assert version > self.versions[user], "versions are not strictly increasing"
        self.versions[user] = version

    @rule(user=users, session=sessions, said=st.lists(texts, min_size=1, max_size=2))
    def remember(self, user: str, session: str, said: list[str]) -> None:
        self.count("remember", user)
        contents = [f"{text} {MARKERS[user]}" for text in said]
        ids = self.engine.remember(user, [{"role": "user", "content": content} for content in contents], session_id=session)
        self.log[user] += [(turn, session, content) for turn, content in zip(ids, contents, strict=True)]
        self.seen.add(user)
        self.changed(user)

    @rule(user=users, text=texts)
    def ask(self, user: str, text: str) -> None:
        self.count("ask", user)
        self.check_evidence(user, self.engine.ask(user, text, max_new_tokens=1).evidence)
        recall = self.engine.recall(user, text, k=9, floor=0)
        self.check_evidence(user, recall.evidence)
        self.check_evidence(user, self.engine.explain(user, text).evidence)
        if user not in self.refined:
            with self.engine.on_store("sqlite://") as alone:
                alone.store.import_turns(user, self.engine.turns(user))
                assert torch.equal(alone.recall(user, text).soft_prompt, recall.soft_prompt), "memory depends on other users or on what was forgotten"

    def check_evidence(self, user: str, evidence: Sequence[Evidence]) -> None:
        assert {(item.turn.user_id, item.turn.id) for item in evidence} <= {(user, turn) for turn, *_ in self.log[user]}, "evidence is not the asker's"

    @rule(user=users, way=st.sampled_from(["turn_ids", "session_id", "user"]), session=sessions, data=st.data())
    def forget(self, user: str, way: str, session: str, data: st.DataObject) -> None:
        self.count("forget", user)
        ids = [turn for turn, *_ in self.log[user]]
        named = data.draw(st.lists(st.sampled_from(ids), max_size=3)) if ids else []
        if user not in self.seen:
            with pytest.raises(UnknownUserError):
                self.engine.forget_user(user)
            return
        if way == "user":
            receipt = self.engine.forget_user(user)
            self.seen.discard(user)
        else:
            receipt = self.engine.forget(user, **{way: {"turn_ids": named, "session_id": session}[way]})  # type: ignore[arg-type]
        gone = {turn for turn, of, _ in self.log[user] if way == "user" or (of == session if way == "session_id" else turn in named)}
        assert receipt.turns == len(gone)
        self.log[user] = [row for row in self.log[user] if row[0] not in gone]
        if gone:
            self.refined.discard(user)
        if gone or way == "user":
            self.changed(user)

    @precondition(lambda self: any(self.log.values()))
    @rule(data=st.data())
    def consolidate(self, data: st.DataObject) -> None:
        known = sorted(user for user, rows in self.log.items() if rows)
        who = data.draw(st.lists(st.sampled_from(known), min_size=1, max_size=2, unique=True))
        self.count("consolidate", None if len(who) > 1 else who[0])
        for report in self.engine.consolidate_many(who, RECIPE):
            if report.promoted:
                self.count("promote", self.asking)
                self.refined.add(report.user_id)

    @rule(target=files, user=users)
    def export(self, user: str) -> tuple[Path, str, list[tuple[str, str, str]], bool]:
        self.count("export", user)
        path = Path(self.folder.name) / f"{self.done['export']}.lpm"
        if user not in self.seen:
            with pytest.raises(UnknownUserError):
                self.engine.export(user, path)
        else:
            self.engine.export(user, path)
            data = path.read_bytes()
            assert not any(marker.encode() in data for name, marker in MARKERS.items() if name != user), "an export holds another user's text"
        return path, user, list(self.log[user]), user in self.refined

    @rule(file=files)
    def restore(self, file: tuple[Path, str, list[tuple[str, str, str]], bool]) -> None:
        path, user, turns, refined = file
        if not path.exists():
            return
        self.count("restore", user)
        missing = [row for row in turns if row not in self.log[user]]
        assert [(receipt.turns, receipt.present) for receipt in (self.engine.restore(path), self.engine.restore(path))] == [
            (len(missing), len(turns) - len(missing)),
            (0, len(turns)),
        ], "restoring is not idempotent"
        self.log[user] += missing
        if missing:
            self.seen.add(user)
            self.changed(user)
            self.refined |= {user} if refined else set()

    @precondition(lambda self: any(self.log.values()))
    @rule()
    def reopen(self) -> None:
        self.count("reopen", None)
        self.engine.close()
        self.open()

    @invariant()
    def acknowledged_turns_are_there_once_and_in_order(self) -> None:
        for user, rows in self.log.items():
            assert [(turn.id, turn.session_id, turn.content) for turn in self.engine.turns(user)] == rows
            assert all(turn.user_id == user for turn in self.engine.turns(user))
        assert sorted(self.engine.users()) == sorted(user for user, rows in self.log.items() if rows)

    @invariant()
    def versions_change_with_the_log_alone(self) -> None:
        assert {user: self.engine.store.version(user) for user in MARKERS} == self.versions

    @invariant()
    def no_page_holds_a_forgotten_turn_or_anothers(self) -> None:
        for user, rows in self.log.items():
            pages = self.engine.store.pages(user, backbone=self.backbone.fingerprint, weights=self.weights.fingerprint)
            cached = self.engine._cache.get(user)
            pages += cached[0].pages if cached and cached[0].version == self.versions[user] else ()
            assert {turn for page in pages for turn in (*page.turn_ids, *page.slot_turns)} <= {turn for turn, *_ in rows}

    @invariant()
    def no_prompt_holds_another_users_words(self) -> None:
        for row in self.backbone.taken():
            assert self.speakers(row) <= ({self.asking} if self.asking else set(MARKERS)), "one user's words reached another's prompt"
            assert len(self.speakers(row)) <= 1, "the words of two users are in one prompt"

    def speakers(self, row: Iterable[int]) -> set[str]:
        text = self.backbone.chat.decode(list(row))
        return {user for user, marker in MARKERS.items() if marker in text}


def walk(folder: Path, limits: settings) -> dict[str, int]:
    """Walk at random on a tiny engine; counts of the calls made. Raises AssertionError if an invariant breaks."""
    Walk.done = Counter()
    loaded: Any = RecordingBackbone.load(make_tiny(folder, terse=True))
    Walk.backbone, Walk.weights = loaded, tiny_weights(loaded)
    run_state_machine_as_test(Walk, settings=limits)
    return dict(sorted(Walk.done.items()))


def test_random_walks_of_several_users(tmp_path: Path) -> None:
    done = walk(tmp_path, WALK)

    assert all(done.get(call) for call in ("remember", "ask", "forget", "consolidate", "promote", "export", "restore", "reopen"))
