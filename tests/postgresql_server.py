"""A PostgreSQL server of the tests' own, in a temporary folder, reached through a Unix socket."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_FOLDERS = [None, *sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True)]


class NoServerError(Exception):
    """Why no server could be started."""


def _tool(name: str) -> str:
    for folder in _FOLDERS:
        if found := shutil.which(name, path=folder):
            return found
    raise NoServerError(f"there is no {name} on this machine")


def _owner() -> str | None:
    """Whom to run the server as: it refuses root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    raise NoServerError("the tests run as root and there is no other user to run a server as")


@contextmanager
def running_server() -> Iterator[str]:
    """Start a server and yield its URL. Raises NoServerError with the reason where that is not possible."""
    try:
        import psycopg  # noqa: F401
    except ImportError:
        raise NoServerError("the package psycopg is not installed") from None
    initdb, postgres, pg_ctl = _tool("initdb"), _tool("postgres"), _tool("pg_ctl")
    owner = _owner()
    with tempfile.TemporaryDirectory(prefix="lpm-pg-", ignore_cleanup_errors=True) as folder:
        if owner:
            shutil.chown(folder, owner)
        data = str(Path(folder) / "data")
        options = f"-k {folder} -c listen_addresses= -c fsync=off -c max_connections=60 -c shared_buffers=16MB"
        commands = [
            [initdb, "-D", data, "-U", "lpm", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"],
            [pg_ctl, "-D", data, "-o", options, "-l", str(Path(folder) / "log"), "-p", postgres, "-w", "-t", "60", "start"],
        ]
        for command in commands:
            try:
                done = subprocess.run(command, user=owner, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
            except (OSError, subprocess.TimeoutExpired) as error:
                raise NoServerError(f"{command[0]} does not run here: {type(error).__name__}") from None
            if done.returncode:
                raise NoServerError(f"{command[0]} failed: {(done.stderr or done.stdout).strip().splitlines()[-1:]}")
        try:
            yield f"postgresql+psycopg://lpm@/postgres?host={folder}"
        finally:
            subprocess.run([pg_ctl, "-D", data, "-m", "immediate", "stop"], user=owner, cwd=folder, capture_output=True, timeout=60)
