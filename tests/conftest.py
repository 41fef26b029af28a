"""Fixtures: engines on the embedded default and on a tiny random Qwen3, each test with a store of its own."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_model import make_tiny, make_tiny_memory

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("ANONYMIZED_TELEMETRY", "False")
os.environ["TZ"] = "UTC"

from lpm_core import LPM
from lpm_core.backbone import Backbone
from lpm_core.store import MemoryStore

time.tzset()


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test touches the user's data folder or another test's."""
    monkeypatch.setenv("LPM_HOME", str(tmp_path / "home"))


@pytest.fixture(scope="session")
def embedded() -> Iterator[LPM]:
    """The embedded default, loaded once."""
    with LPM.from_pretrained(store="sqlite://") as engine:
        yield engine


@pytest.fixture
def lpm(embedded: LPM, tmp_path: Path) -> Iterator[LPM]:
    """The embedded default on an empty store file."""
    with embedded.on_store(f"sqlite:///{tmp_path / 'memory.db'}") as engine:
        yield engine


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random Qwen3 with untrained memory weights beside it."""
    return make_tiny_memory(make_tiny(tmp_path_factory.mktemp("tiny")))


@pytest.fixture(scope="session")
def tiny_backbone(tiny_folder: Path) -> Backbone:
    """The tiny Qwen3."""
    return Backbone.load(tiny_folder)


@pytest.fixture
def tiny(tiny_folder: Path, tmp_path: Path) -> Iterator[LPM]:
    """An engine on the tiny Qwen3: for everything that does not depend on answers being right."""
    with LPM.from_pretrained(tiny_folder, store=f"sqlite:///{tmp_path / 'tiny.db'}") as engine:
        yield engine


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """URL of a PostgreSQL server of the tests' own; skips where none can be started."""
    from postgresql_server import NoServerError, running_server

    server = running_server()
    try:
        url = server.__enter__()
    except NoServerError as error:
        pytest.skip(f"no PostgreSQL: {error}")
    yield url
    server.__exit__(None, None, None)


@pytest.fixture
def empty_postgresql(postgresql: str) -> str:
    """The same server with nothing in its database."""
    from sqlalchemy import NullPool, create_engine

    with create_engine(postgresql, poolclass=NullPool).begin() as connection:
        connection.exec_driver_sql("DROP SCHEMA public CASCADE")
        connection.exec_driver_sql("CREATE SCHEMA public")
    return postgresql


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a store file may be made."""
    return tmp_path / "folder" / "memory.db"


@pytest.fixture
def url(path: Path) -> str:
    """A store file, as a URL."""
    return f"sqlite:///{path.as_posix()}"


@pytest.fixture(params=["file", "memory", "postgresql"])
def store(request: pytest.FixtureRequest, url: str) -> Iterator[MemoryStore]:
    """An empty store of each kind."""
    urls = {"file": url, "memory": "sqlite://"}
    with MemoryStore(urls.get(request.param) or request.getfixturevalue("empty_postgresql")) as store:
        yield store
