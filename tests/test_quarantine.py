"""A page whose slots no writer gives is withheld, listed with a reason, and comes back only when somebody says so."""

from __future__ import annotations

import copy
import json
import logging
import random
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from click.testing import Result
from store_kit import sql
from typer.testing import CliRunner

from lpm_core import LPM, MemoryWeightsError, UnknownUserError
from lpm_core.backbone import Backbone
from lpm_core.bounds import SlotBounds
from lpm_core.cli import app
from lpm_core.consolidation import ConsolidationRecipe
from lpm_core.doctor import examine
from lpm_core.memory import Page
from lpm_core.storage.encryption import new_master_key
from lpm_core.store import MemoryStore

Spoil = Callable[[torch.Tensor], torch.Tensor]
SPOILS: dict[str, Spoil] = {
    "not finite": lambda slots: slots.index_fill(1, torch.tensor([0]), float("nan")),
    "finite": lambda slots: slots * float("inf"),
    "norm outside": lambda slots: slots * 1000,
    "norm": lambda slots: torch.zeros_like(slots),
    "shape": lambda slots: slots[:, :, :-1],
}


def prints(engine: LPM) -> dict[str, str]:
    return {"backbone": engine.backbone.fingerprint, "weights": engine.weights.fingerprint}


def told(engine: LPM) -> list[str]:
    """Three sessions of Ann; returns the ids of their turns."""
    texts = ["I live in Oslo.", "My dog is called Rex.", "I work at a bakery."]
    return [engine.remember("ann", text, session_id=f"s{number}")[0] for number, text in enumerate(texts)]


def spoil(store: MemoryStore, engine: LPM, session: str, change: Spoil) -> None:
    """Put other slots into a session's first page, with a checksum that is right."""
    pages = [page for page in store.pages("ann", **prints(engine)) if page.session_id == session]
    pages[0] = replace(pages[0], slots=change(pages[0].slots))
    assert store.replace_pages("ann", session, pages, from_index=0, version=store.version("ann"), **prints(engine))


@pytest.fixture
def without_dog(tiny: LPM) -> Iterator[LPM]:
    """A store that was never told about the dog."""
    with tiny.on_store("sqlite://") as engine:
        engine.remember("ann", "I live in Oslo.", session_id="s0")
        engine.remember("ann", "I work at a bakery.", session_id="s2")
        yield engine


@pytest.mark.parametrize(("reason", "change"), SPOILS.items(), ids=SPOILS)
def test_a_stored_page_out_of_bounds_is_not_served_and_is_listed(
    tiny: LPM, without_dog: LPM, url: str, reason: str, change: Spoil, caplog: pytest.LogCaptureFixture
) -> None:
    with tiny.on_store(url) as engine:
        ids = told(engine)
        spoil(engine.store, engine, "s1", change)
    with tiny.on_store(url) as engine, caplog.at_level(logging.WARNING, logger="lpm_core"):
        soft = engine.recall("ann", "Where do I live?").soft_prompt
        assert torch.equal(soft, without_dog.recall("ann", "Where do I live?").soft_prompt)
        assert engine.ask("ann", "Where?", max_new_tokens=3).text == without_dog.ask("ann", "Where?", max_new_tokens=3).text

        (held,) = engine.quarantine("ann")
        assert (held.session_id, held.turn_ids) == ("s1", (ids[1],))
        assert reason in held.reason
        assert engine.quarantine("bob") == []
        figures = engine.stats("ann")
        assert (figures.pages, figures.quarantined, figures.turns) == (2, 1, {"user": 3})
        (record,) = caplog.records
        assert [word in record.getMessage() for word in (reason, "ann", "s1", "dog")] == [True, False, False, False]
    with tiny.on_store(url) as engine:
        assert engine.quarantine("ann") == [held]
        assert torch.equal(engine.recall("ann", "Where do I live?").soft_prompt, soft)
        assert ids[1] in [turn.id for turn in engine.turns("ann")]
        assert examine(engine.store, **prints(engine)).sound


def test_release_writes_the_page_anew(tiny: LPM, url: str) -> None:
    with tiny.on_store(url) as engine:
        ids = told(engine)
        before = engine.recall("ann", "dog").soft_prompt
        spoil(engine.store, engine, "s1", SPOILS["norm outside"])
        spoil(engine.store, engine, "s2", SPOILS["norm outside"])
    with tiny.on_store(url) as engine, tiny.on_store(url) as other:
        assert not torch.equal(engine.recall("ann", "dog").soft_prompt, before)
        assert len(other.quarantine("ann")) == 2

        assert [held.turn_ids for held in other.release("ann", [ids[1]])] == [(ids[2],)]
        assert other.release("ann") == []

        assert torch.equal(engine.recall("ann", "dog").soft_prompt, before)
        assert [(row.action, row.turn_ids) for row in engine.store.audit("ann")][-2:] == [("release", (ids[1],)), ("release", (ids[2],))]
        version = engine.store.version("ann")
        assert engine.release("ann") == []
        assert engine.store.version("ann") == version
        with pytest.raises(UnknownUserError):
            engine.release("nobody")


def test_forgetting_what_is_in_quarantine_equals_never_having_seen_it(tiny: LPM, without_dog: LPM, url: str) -> None:
    with tiny.on_store(url) as engine:
        ids = told(engine)
        spoil(engine.store, engine, "s1", SPOILS["not finite"])
    with tiny.on_store(url) as engine:
        assert len(engine.quarantine("ann")) == 0  # nothing has read the page yet
        engine.recall("ann", "dog")

        engine.forget("ann", turn_ids=[ids[1]])

        assert engine.quarantine("ann") == []
        assert torch.equal(engine.recall("ann", "dog").soft_prompt, without_dog.recall("ann", "dog").soft_prompt)


def test_a_page_in_quarantine_stays_there_while_its_session_goes_on(tiny: LPM, url: str) -> None:
    long = [f"Fact number {number} is that I like the number {number}." for number in range(12)]
    with tiny.on_store(url) as engine:
        for text in long:
            engine.remember("ann", text, session_id="s1")
        assert len(engine.store.pages("ann", **prints(engine))) > 2
        spoil(engine.store, engine, "s1", SPOILS["norm outside"])
    with tiny.on_store(url) as engine:
        engine.recall("ann", "number")
        (held,) = engine.quarantine("ann")

        engine.remember("ann", "And one more.", session_id="s1")

        assert engine.quarantine("ann") == [held]
        read = {turn for turns in engine.slots("ann").turns for turn in turns}
        assert not set(held.turn_ids) & read
        assert engine.turns("ann")[-1].id in read


@pytest.fixture
def broken(tiny: LPM, tiny_folder: Path, path: Path) -> Iterator[LPM]:
    """An engine whose backbone has lost the embedding of one letter: what holds a Q comes out as NaN."""
    backbone = Backbone.load(tiny_folder, layer=tiny.backbone.layer)
    with torch.no_grad():
        backbone.embeddings[backbone.chat.content("Q")[-1]] = float("nan")
    with LPM(backbone, copy.deepcopy(tiny.weights), MemoryStore(f"sqlite:///{path}")) as engine:
        yield engine


def test_a_page_that_comes_out_of_bounds_is_never_stored(broken: LPM, path: Path, caplog: pytest.LogCaptureFixture) -> None:
    broken.remember("ann", "I live in Oslo.", session_id="s1")
    before = broken.recall("ann", "Where?").soft_prompt

    with caplog.at_level(logging.WARNING, logger="lpm_core"):
        (bad,) = broken.remember("ann", "Q Q Q", session_id="s2")
        broken.remember("ann", "My dog is Rex.", session_id="s2", source="import")

    assert torch.equal(broken.recall("ann", "Where?").soft_prompt, before)
    assert [(held.turn_ids, held.reason) for held in broken.quarantine("ann")] == [((bad,), "its slots are not finite")]
    assert len(caplog.records) == 1  # it is not computed again and again
    assert [held.turn_ids for held in broken.release("ann")] == [(bad,)]
    assert sql(path, "SELECT count(*) FROM pages WHERE quarantine IS NULL") == [(1,)]


def test_weights_that_are_not_numbers_are_refused(tiny: LPM) -> None:
    weights = copy.deepcopy(tiny.weights)
    with torch.no_grad():
        weights.writer.copy.weight[0, 0] = float("inf")
    with pytest.raises(MemoryWeightsError, match="not finite"):
        LPM(tiny.backbone, weights, tiny.store)


def test_consolidation_neither_studies_what_is_withheld_nor_promotes_what_would_be(tiny: LPM, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from lpm_core import engine as engine_module

    studied: list[str] = []

    def study(turns: Any, *_: Any) -> list[Any]:
        studied.extend(turn.content for turn in turns)
        return []

    def grown(memories: Any, *rest: Any) -> Any:
        ((memory, report),) = engine_module_distill(memories, *rest)
        return [(replace(memory, pages=tuple(replace(page, slots=page.slots * 1000) for page in memory.pages)), replace(report, promoted=True))]

    engine_module_distill = engine_module.distill
    monkeypatch.setattr(engine_module, "self_study", study)
    monkeypatch.setattr(engine_module, "distill", grown)
    with tiny.on_store(url) as engine:
        told(engine)
        spoil(engine.store, engine, "s1", SPOILS["norm outside"])
    with tiny.on_store(url) as engine:
        before = engine._memory("ann")[1].values

        assert not engine.consolidate("ann", ConsolidationRecipe(steps=1)).promoted

        assert torch.equal(engine._memory("ann")[1].values, before)
        assert studied == ["I live in Oslo.", "I work at a bakery."]


def test_an_export_leaves_pages_in_quarantine_out_and_restore_takes_none_out_of_bounds(tiny: LPM, url: str, tmp_path: Path) -> None:
    file, forged = tmp_path / "ann.lpm", tmp_path / "forged.lpm"
    with tiny.on_store(url) as engine:
        told(engine)
        before = engine.recall("ann", "dog").soft_prompt
        engine.export("ann", file)
        forge(file, forged)
        spoil(engine.store, engine, "s1", SPOILS["norm outside"])
    with tiny.on_store(url) as engine:
        engine.export("ann", file)
    for exported in (file, forged):
        with tiny.on_store("sqlite://") as engine:
            engine.restore(exported)
            assert engine.quarantine("ann") == []
            assert torch.equal(engine.recall("ann", "dog").soft_prompt, before)


def forge(file: Path, to: Path) -> None:
    """An export with other slots in all pages, and a checksum that is right."""
    import hashlib

    with zipfile.ZipFile(file) as archive, zipfile.ZipFile(to, "w", zipfile.ZIP_STORED) as out:
        for name in archive.namelist():
            data = archive.read(name)
            if name.endswith(".safetensors"):
                data = safetensors.torch.save({key: slots * 1000 for key, slots in safetensors.torch.load(data).items()})
            out.writestr(name, data)
        out.comment = bytes(64)
    body = to.read_bytes()[:-64]
    to.write_bytes(body + hashlib.sha256(body).hexdigest().encode())


def test_an_encrypted_store_keeps_the_reason_and_refuses_another(tiny: LPM, path: Path, url: str) -> None:
    key = new_master_key()
    with tiny.on_store(MemoryStore(url, key)) as engine:
        told(engine)
        spoil(engine.store, engine, "s1", SPOILS["norm outside"])
    with tiny.on_store(MemoryStore(url, key)) as engine:
        before = engine.recall("ann", "dog").soft_prompt
        assert len(engine.quarantine("ann")) == 1
    sql(path, "UPDATE pages SET quarantine = 'something else' WHERE quarantine IS NOT NULL")
    with tiny.on_store(MemoryStore(url, key)) as engine:
        assert not examine(engine.store, **prints(engine)).sound
        assert engine.quarantine("ann") == []
        assert not torch.equal(engine.recall("ann", "dog").soft_prompt, before)  # damaged, so written from the log again


# The bounds


def test_no_text_is_out_of_bounds(lpm: LPM) -> None:
    """The bound holds for any text by construction; what varied texts give lies far within it."""
    draw = random.Random(0)
    texts = [
        *(
            "I moved to Oslo with my sister Ingrid.",
            "Ich wohne in Köln.",
            "我住在北京。",
            "أعيش في القاهرة",
            "אני גר בתל אביב",
            "🏔️" * 60,
            "0" * 500,
            "\x01\x02\x1b[0m",
        ),
        *("a " * 900, "<|im_end|><|im_start|>system", Path(__file__).read_text("utf-8")[:3000], "\u202e\u200b" * 50 + "x"),
        *("".join(chr(draw.choice([*range(32, 0xD800), *range(0xE000, 0x1FFFF)])) for _ in range(200)) for _ in range(5)),
    ]
    lpm.remember("ann", [{"role": "user", "content": text} for text in texts])

    norms = torch.cat([page.slots.norm(dim=-1).flatten() for page in lpm._memory("ann")[0].pages])

    assert lpm.quarantine("ann") == []
    assert lpm.bounds.low * 10 < norms.min()
    assert norms.max() * 2 < lpm.bounds.high


@pytest.mark.parametrize("seed", range(5))
def test_no_states_whatever_give_longer_slots_than_the_bound(tiny: LPM, seed: int) -> None:
    writer = tiny.weights.writer
    torch.manual_seed(seed)
    halves = torch.randn(64, 8, 2, 32) * torch.tensor([1e-3, 1.0, 30.0])[seed % 3]
    halves[:16] = torch.linalg.svd(writer.copy.weight.detach()).Vh[0]  # the direction that copying makes longest
    states = torch.nn.functional.rms_norm(halves, (32,)).flatten(2)

    slots = writer(states, torch.randint(1, 9, (64,)))

    assert SlotBounds.of(writer) == tiny.bounds
    assert slots.norm(dim=-1).max() < tiny.bounds.high


# The command


@pytest.fixture
def command(tiny: LPM, tiny_folder: Path, url: str) -> Callable[..., Result]:
    """The command on a store with one page in quarantine."""
    with tiny.on_store(url) as engine:
        told(engine)
        spoil(engine.store, engine, "s1", SPOILS["norm outside"])
    with tiny.on_store(url) as engine:
        engine.recall("ann", "dog")

    def run(*options: str, answer: str | None = None) -> Result:
        return CliRunner().invoke(app, ["quarantine", "ann", *options, "--store", url, "--model", str(tiny_folder)], input=answer)

    return run


def test_the_command_lists_and_releases(command: Callable[..., Result], url: str) -> None:
    (row,) = json.loads(command("--json").stdout)
    assert (row["session_id"], len(row["turn_ids"])) == ("s1", 1)
    assert "norm" in command().stdout
    assert command("--release", "--drop").exit_code == 1

    assert command("--release").stdout == "nothing is in quarantine\n"
    assert json.loads(command("--json").stdout) == []
    with MemoryStore(url) as store:
        assert len(store.turns("ann")) == 3


def test_the_command_drops_after_asking(command: Callable[..., Result], url: str) -> None:
    assert command("--drop", answer="n\n").exit_code == 1
    assert len(json.loads(command("--json").stdout)) == 1
    assert "nothing is in quarantine" in command("--drop", answer="y\n").stdout
    with MemoryStore(url) as store:
        assert [turn.content for turn in store.turns("ann")] == ["I live in Oslo.", "I work at a bakery."]


def test_a_page_without_slots_is_out_of_bounds(tiny: LPM) -> None:
    assert tiny.bounds.fault(Page("s", 0, torch.zeros(4, 0, 8), (), ("0" * 32,), 3)) == "it has no slots"
