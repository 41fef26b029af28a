"""New weights write pages anew in the background: answers stay what they are, and what is interrupted goes on."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from store_kit import sql
from tiny_model import tiny_weights
from typer.testing import CliRunner

from lpm_core import LPM, EngineClosedError, InvalidInputError, UnknownUserError
from lpm_core.backbone import Backbone
from lpm_core.cli import app
from lpm_core.memory import Page
from lpm_core.paging import SessionPages
from lpm_core.store import MemoryStore

USERS = ("ann", "bob")
QUESTION = "Where do I live?"


@pytest.fixture
def old(tiny_backbone: Backbone, url: str) -> Iterator[LPM]:
    """An engine that knows two users, with a dozen pages each."""
    with LPM(tiny_backbone, tiny_weights(tiny_backbone), MemoryStore(url)) as engine:
        for user in USERS:
            for session in ("s1", "s2"):
                engine.remember(user, [{"role": "user", "content": f"{user} has story {number}. " * 9} for number in range(3)], session_id=session)
        yield engine


@pytest.fixture
def new(old: LPM, url: str) -> Iterator[LPM]:
    """Other memory weights on the same store, in a connection of their own."""
    with LPM(old.backbone, tiny_weights(old.backbone, seed=1), MemoryStore(url)) as engine:
        yield engine


def pages(engine: LPM, user: str) -> list[Page]:
    return engine.store.pages(user, backbone=engine.backbone.fingerprint, weights=engine.weights.fingerprint)


def soft(engine: LPM, user: str) -> torch.Tensor:
    return engine.recall(user, QUESTION).soft_prompt


def never_rebuilt(engine: LPM, user: str) -> torch.Tensor:
    """What these weights say of the same log in a store of its own."""
    with engine.on_store("sqlite://") as fresh:
        fresh.store.import_turns(user, engine.turns(user))
        return soft(fresh, user)


def test_answers_while_pages_are_rebuilt_are_those_before_and_after(old: LPM, new: LPM) -> None:
    of_old, of_new = ({user: soft(old, user) for user in USERS}, {user: never_rebuilt(new, user) for user in USERS})
    reached, go_on = threading.Event(), threading.Event()

    def pause(done: float, _total: int) -> None:
        if done > 1.3:  # in the middle of the second user
            reached.set()
            assert go_on.wait(60)

    background = threading.Thread(target=new.rebuild, kwargs={"on_progress": pause})
    background.start()
    assert reached.wait(60)
    assert 0 < len(pages(new, "bob")) < len(pages(new, "ann"))
    with old.on_store(old.store) as uncached:
        for user in USERS:
            assert torch.equal(soft(old, user), of_old[user])
            assert torch.equal(soft(new, user), of_new[user])
            assert torch.equal(soft(uncached, user), of_old[user])
    go_on.set()
    background.join()

    for user in USERS:
        assert torch.equal(soft(new, user), of_new[user])
        assert torch.equal(soft(new.on_store(new.store), user), of_new[user])


def test_what_is_interrupted_goes_on_from_there(new: LPM, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []

    def page(self: LPM, session: SessionPages, index: int, compute: object = LPM._page) -> Page:
        written.append(f"{session.id} {index}")
        return compute(self, session, index)  # type: ignore[operator, no-any-return]

    def interrupt(done: float, _total: int) -> None:
        if done > 0.5:
            raise KeyboardInterrupt

    monkeypatch.setattr(LPM, "_page", page)
    with pytest.raises(KeyboardInterrupt):
        new.rebuild("ann", on_progress=interrupt)
    first = list(written)
    assert [f"{page.session_id} {page.index}" for page in pages(new, "ann")] == first

    progress: list[float] = []
    rest = new.rebuild("ann", on_progress=lambda done, total: progress.append(done / total))

    assert len(written) == len(set(written)) == len(first) + rest == len(pages(new, "ann"))
    assert progress == sorted(progress)
    assert progress[-1] == 1
    assert new.rebuild("ann") == 0


def test_what_is_said_and_forgotten_meanwhile_counts(new: LPM) -> None:
    gone = [new.turns("ann")[0].id]
    meanwhile = [lambda: new.remember("ann", "And a cat.", session_id="s2"), lambda: new.forget("ann", turn_ids=gone)]

    new.rebuild("ann", on_progress=lambda *_: meanwhile and meanwhile.pop()() and None)

    assert gone[0] not in {turn for page in pages(new, "ann") for turn in page.turn_ids}
    assert torch.equal(soft(new.on_store(new.store), "ann"), never_rebuilt(new, "ann"))


def test_pages_that_were_refined_meanwhile_stay(new: LPM) -> None:
    def refine(done: float, _total: int) -> None:
        if not refined:
            new.store.put_pages("ann", [replace(page, slots=page.slots + 1) for page in in_store], version=2, **new._fingerprints)
            refined.append(done)

    new.rebuild("ann")
    in_store, refined = pages(new, "ann"), list[float]()
    for session in ("s1", "s2"):
        new.store.replace_pages("ann", session, [], from_index=0, version=2, **new._fingerprints)
    new._drop_cache()

    new.rebuild("ann", on_progress=refine)

    assert refined
    assert all(torch.equal(now.slots, before.slots + 1) for now, before in zip(pages(new, "ann"), in_store, strict=True))


def test_closing_the_engine_ends_a_rebuild_and_leaves_everything_readable(old: LPM, new: LPM, url: str) -> None:
    with pytest.raises(EngineClosedError):
        new.rebuild(on_progress=lambda *_: new.close())

    with new.on_store(MemoryStore(url)) as again:
        assert len(pages(again, "ann")) == 1
        for user in USERS:
            assert torch.equal(soft(again, user), never_rebuilt(again, user))


async def test_the_async_twin_does_the_same(new: LPM) -> None:
    assert await new.arebuild() == sum(len(pages(new, user)) for user in USERS) > 10


def test_a_user_who_was_never_seen_is_unknown(new: LPM) -> None:
    with pytest.raises(UnknownUserError, match="nobody"):
        new.rebuild("nobody")


def test_a_long_turn_that_lost_its_last_page_gets_it_back(tiny: LPM, tmp_path: Path) -> None:
    tiny.remember("ann", "I live in a long story about Oslo and the sea. " * 20)
    before, whole = soft(tiny, "ann"), len(pages(tiny, "ann"))
    assert whole > 2
    sql(tmp_path / "tiny.db", "UPDATE pages SET checksum = 'damaged' WHERE page_index = ?", whole - 1)

    with tiny.on_store(tiny.store) as again:
        assert torch.equal(soft(again, "ann"), before)
        assert len(pages(again, "ann")) == whole


def test_the_command_rebuilds_one_user_or_all(tiny: LPM, new: LPM, url: str, tiny_folder: Path) -> None:
    def run(*arguments: str) -> str:
        result = CliRunner().invoke(app, ["rebuild", *arguments, "--store", url, "--model", str(tiny_folder)])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.stdout

    new.rebuild()
    count = len(pages(new, "ann"))
    assert run("ann") == f"wrote {count} pages\n"
    assert run("--all") == f"wrote {count} pages\n"
    for arguments in ([], ["ann", "--all"]):
        with pytest.raises(InvalidInputError, match="--all"):
            run(*arguments)
