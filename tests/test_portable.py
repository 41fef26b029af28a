"""An export holds all of one user and nothing of another; restoring it is idempotent, and a damaged or newer one is refused."""

from __future__ import annotations

import hashlib
import io
import json
import random
import stat
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import torch

from lpm_core import LPM, InvalidInputError, StoreCorruptError, StoreUnavailableError, StoreVersionError, UnknownUserError
from lpm_core.portable import FORMAT, read_export

ANN = "ann/名前"


@pytest.fixture
def told(tiny: LPM) -> LPM:
    """An engine that knows two users."""
    at = datetime(2024, 5, 1, 12, 0, 0, 123456, tzinfo=UTC)
    tiny.remember(ANN, [{"role": "user", "content": "I live in Oslo. \u2028\n"}, {"role": "assistant", "content": "Nice!"}], session_id="s1", at=at)
    tiny.remember(ANN, "My dog is Rex. " * 20, session_id="s2")
    tiny.remember("bob", "I am Bob the swordfish.")
    return tiny


def rewrite(path: Path, **changes: Any) -> None:
    """The same archive with another manifest and a right checksum."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["manifest.json"] = json.dumps(json.loads(members["manifest.json"]) | changes).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
        archive.comment = bytes(64)
    body = buffer.getvalue()[:-64]
    path.write_bytes(body + hashlib.sha256(body).hexdigest().encode())


def test_a_user_moves_to_another_store_whole_and_twice_is_once(told: LPM, tmp_path: Path) -> None:
    told.export(ANN, tmp_path / "ann.lpm")
    with told.on_store("sqlite://") as other:
        first, second = other.restore(tmp_path / "ann.lpm"), other.restore(tmp_path / "ann.lpm")

        assert [(receipt.user_id, receipt.turns, receipt.present) for receipt in (first, second)] == [(ANN, 3, 0), (ANN, 0, 3)]
        assert other.turns(ANN) == told.turns(ANN)
        assert other.users() == [ANN]
        assert other.store.version(ANN) == 1
        assert torch.equal(other.recall(ANN, "Where?").soft_prompt, told.recall(ANN, "Where?").soft_prompt)


def test_an_export_is_one_private_file_of_one_user_and_always_the_same(told: LPM, tmp_path: Path) -> None:
    for name in ("one.lpm", "two.lpm", "two.lpm"):
        told.export(ANN, tmp_path / name)
    data = (tmp_path / "one.lpm").read_bytes()

    assert data == (tmp_path / "two.lpm").read_bytes()
    assert [word in data for word in (b"My dog is Rex.", b"swordfish", b"bob")] == [True, False, False]
    assert sorted(file.name for file in tmp_path.glob("*.lpm*")) == ["one.lpm", "two.lpm"]
    assert not list(tmp_path.glob(".*"))
    assert stat.S_IMODE((tmp_path / "one.lpm").stat().st_mode) == 0o600
    with zipfile.ZipFile(tmp_path / "one.lpm") as archive:
        assert archive.testzip() is None


def test_restoring_adds_only_what_is_missing(told: LPM, tmp_path: Path) -> None:
    told.export(ANN, tmp_path / "ann.lpm")
    everything = told.turns(ANN)
    told.forget(ANN, session_id="s2")
    told.remember(ANN, "And since then?", session_id="s1")

    assert told.restore(tmp_path / "ann.lpm").turns == 1
    assert {turn.id for turn in told.turns(ANN)} >= {turn.id for turn in everything}
    assert len(told.turns(ANN)) == 4
    assert [turn.content for turn in told.turns("bob")] == ["I am Bob the swordfish."]


def test_pages_of_the_same_weights_are_taken_over_and_others_are_rebuilt(told: LPM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told.export(ANN, tmp_path / "same.lpm")
    told.export(ANN, tmp_path / "other.lpm")
    rewrite(tmp_path / "other.lpm", weights="0" * 16)
    written: list[str] = []
    monkeypatch.setattr(LPM, "_page", lambda self, session, index, page=LPM._page: (written.append(session.id), page(self, session, index))[1])

    for name, rebuilt in (("same.lpm", set()), ("other.lpm", {"s1", "s2"})):
        with told.on_store("sqlite://") as other:
            other.restore(tmp_path / name)
            assert set(written) == rebuilt
            assert torch.equal(other.recall(ANN, "Where?").soft_prompt, told.recall(ANN, "Where?").soft_prompt)


def test_a_flipped_byte_anywhere_is_refused_and_nothing_restored(told: LPM, tmp_path: Path) -> None:
    path = tmp_path / "ann.lpm"
    told.export(ANN, path)
    data = path.read_bytes()
    with told.on_store("sqlite://") as other:
        for place in random.Random(0).sample(range(len(data)), 200):
            path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
            with pytest.raises(StoreCorruptError, match=r"ann\.lpm.*nothing was restored"):
                other.restore(path)
        for part in (data[:-1], data[: len(data) // 2], b"", b"text" * 100, data + b"x"):
            path.write_bytes(part)
            with pytest.raises(StoreCorruptError):
                other.restore(path)
        assert other.users() == []


@pytest.mark.parametrize("changes", [{"turns": 7}, {"user_id": "bob"}, {"pages": [{}]}, {"format": "1"}, {"pages": None}])
def test_a_manifest_that_does_not_fit_is_refused(told: LPM, tmp_path: Path, changes: dict[str, Any]) -> None:
    told.export(ANN, tmp_path / "ann.lpm")
    rewrite(tmp_path / "ann.lpm", **changes)
    with pytest.raises(StoreCorruptError):
        read_export(tmp_path / "ann.lpm")


def test_a_newer_format_is_refused_with_the_way_out(told: LPM, tmp_path: Path) -> None:
    told.export(ANN, tmp_path / "ann.lpm")
    rewrite(tmp_path / "ann.lpm", format=FORMAT + 1)
    with pytest.raises(StoreVersionError, match="Upgrade"):
        told.restore(tmp_path / "ann.lpm")


def test_what_cannot_be_read_or_written_is_a_typed_error(told: LPM, tmp_path: Path) -> None:
    with pytest.raises(UnknownUserError):
        told.export("nobody", tmp_path / "x.lpm")
    with pytest.raises(StoreUnavailableError, match="none"):
        told.export(ANN, tmp_path / "none" / "x.lpm")
    for path in (tmp_path / "missing.lpm", tmp_path, "a\0b"):
        with pytest.raises(InvalidInputError):
            told.restore(path)
    assert not list(tmp_path.glob("*.lpm"))


def test_turns_that_another_user_has_are_not_taken(told: LPM, tmp_path: Path) -> None:
    told.export("bob", tmp_path / "bob.lpm")
    turns = told.turns("bob")
    with told.on_store("sqlite://") as other:
        other.store.import_turns("eve", turns)
        with pytest.raises(InvalidInputError, match="another user"):
            other.restore(tmp_path / "bob.lpm")
        assert other.users() == ["eve"]
