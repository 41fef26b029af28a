"""Data sets are fetched whole or not at all, go on after an interruption, and are refused if they are not what was pinned."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from typer.testing import CliRunner

from lpm_core.exceptions import DatasetError, InvalidInputError
from lpm_integrations.bench.cli import app
from lpm_integrations.bench.fetch import SOURCES, Published, fetch

_CONTENT = bytes(range(256)) * 1000
_FILE = Published("data set.json", len(_CONTENT), hashlib.sha256(_CONTENT).hexdigest())

pytestmark = pytest.mark.enable_socket


class _Server(BaseHTTPRequestHandler):
    """Serves one content; `stop_after` bytes of it break off once, `ranges` says whether it can go on in the middle."""

    content = _CONTENT
    ranges = True
    stop_after: int | None = None
    asked: list[str | None]

    def do_GET(self) -> None:
        kind = type(self)
        wanted = self.headers.get("Range")
        kind.asked.append(wanted)
        start = int(re.findall(r"\d+", wanted)[0]) if wanted and kind.ranges else 0
        if self.path != "/data%20set.json":
            self.send_error(404)
            return
        if start >= len(kind.content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(kind.content) - start))
        self.end_headers()
        sent = kind.content[start:]
        if kind.stop_after is not None:
            sent, kind.stop_after = sent[: kind.stop_after], None
        self.wfile.write(sent)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def serve() -> Iterator[Callable[..., tuple[str, type[_Server]]]]:
    servers: list[ThreadingHTTPServer] = []

    def start(**options: object) -> tuple[str, type[_Server]]:
        kind = type("Server", (_Server,), {"asked": [], **options})
        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), kind))
        Thread(target=partial(servers[-1].serve_forever, poll_interval=0.01), daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}/", kind

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_file_is_fetched_once(serve: Callable[..., tuple[str, type[_Server]]], tmp_path: Path) -> None:
    base, server = serve()
    seen: list[int] = []

    assert fetch(_FILE, base, tmp_path / "new", seen.append)
    assert not fetch(_FILE, base, tmp_path / "new")

    assert (tmp_path / "new" / _FILE.name).read_bytes() == _CONTENT
    assert [path.name for path in (tmp_path / "new").iterdir()] == [_FILE.name]
    assert seen == sorted({*seen, len(_CONTENT)})
    assert server.asked == [None]


@pytest.mark.parametrize("ranges", [True, False])
def test_an_interrupted_fetch_goes_on(serve: Callable[..., tuple[str, type[_Server]]], tmp_path: Path, ranges: bool) -> None:
    base, server = serve(stop_after=70_000, ranges=ranges)
    with pytest.raises(DatasetError, match="run the command again"):
        fetch(_FILE, base, tmp_path)
    assert not (tmp_path / _FILE.name).exists()

    assert fetch(_FILE, base, tmp_path)

    assert (tmp_path / _FILE.name).read_bytes() == _CONTENT
    assert server.asked[0] is None
    assert server.asked[1] is not None


def test_a_part_that_is_whole_already_is_taken(serve: Callable[..., tuple[str, type[_Server]]], tmp_path: Path) -> None:
    base, _ = serve()
    (tmp_path / f"{_FILE.name}.part").write_bytes(_CONTENT)

    assert fetch(_FILE, base, tmp_path)

    assert (tmp_path / _FILE.name).read_bytes() == _CONTENT


def test_another_file_is_refused_and_not_kept(serve: Callable[..., tuple[str, type[_Server]]], tmp_path: Path) -> None:
    base, _ = serve(content=b"<html>moved</html>")

    with pytest.raises(DatasetError, match=_FILE.sha256):
        fetch(_FILE, base, tmp_path)

    assert not list(tmp_path.iterdir())


def test_a_file_of_the_same_name_is_never_overwritten(serve: Callable[..., tuple[str, type[_Server]]], tmp_path: Path) -> None:
    base, _ = serve()
    (tmp_path / _FILE.name).write_text("mine")

    with pytest.raises(DatasetError, match="move it away"):
        fetch(_FILE, base, tmp_path)

    assert (tmp_path / _FILE.name).read_text() == "mine"


def test_a_place_that_does_not_answer_is_named(serve: Callable[..., tuple[str, type[_Server]]], tmp_path: Path) -> None:
    base, _ = serve()
    with pytest.raises(DatasetError, match="404"):
        fetch(_FILE, f"{base}elsewhere", tmp_path)
    with pytest.raises(DatasetError, match="run the command again"):
        fetch(_FILE, "http://127.0.0.1:9/", tmp_path)
    with pytest.raises(InvalidInputError, match="https"):
        fetch(_FILE, "file:///etc", tmp_path)


def test_the_command_prints_the_licence_and_refuses_what_is_not_the_data_set(serve: Callable[..., tuple[str, type[_Server]]], tmp_path: Path) -> None:
    base, _ = serve()

    result = CliRunner().invoke(app, ["fetch", "locomo", "--to", str(tmp_path), "--base", base])
    unknown = CliRunner().invoke(app, ["fetch", "mnist", "--to", str(tmp_path)])

    assert "CC BY-NC 4.0" in result.output
    assert isinstance(result.exception, DatasetError)
    assert isinstance(unknown.exception, InvalidInputError)
    assert "locomo, personamem" in str(unknown.exception)


@pytest.mark.parametrize(
    ("name", "file"), [(name, file) for name, source in SOURCES.items() for file in source.files], ids=lambda value: getattr(value, "name", value)
)
def test_the_pinned_files_are_those_that_the_project_reads(name: str, file: Published) -> None:
    path = Path(__file__).resolve().parents[2] / "shared/data" / name / file.name
    if not path.exists():
        pytest.skip(f"{file.name} is not here")

    assert (path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest()) == (file.size, file.sha256)
