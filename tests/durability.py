"""Measure what the memory promises, and write the figures: `python tests/durability.py --json results/durability.json`."""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import hypothesis
import test_forgetting
import test_fuzz
import test_state_machine
import torch
from postgresql_server import NoServerError, running_server
from rich.console import Console
from tiny_model import make_tiny, make_tiny_memory

from lpm_core import LPM

TESTS = Path(__file__).parent


def script(name: str, *options: object) -> dict[str, Any]:
    """Run a script of this folder in a process of its own: what it found, and the command."""
    command = [name, *map(str, options)]
    done = subprocess.run([sys.executable, TESTS / name, *command[1:]], stdout=subprocess.PIPE, text=True, check=True)
    return {"command": f"python tests/{' '.join(command)}", **json.loads(done.stdout)}


def forgetting(folder: Path, histories: int, seed: int) -> dict[str, int]:
    """Random histories of which a part is forgotten, against engines that never saw that part."""
    draw = random.Random(seed)
    with LPM.from_pretrained(folder, store="sqlite://") as engine:
        for number in range(histories):
            way = test_forgetting.WAYS[number % len(test_forgetting.WAYS)]
            test_forgetting.check_forgotten(engine, draw.getrandbits(32), draw.randint(1, 6), way)
    return {"histories": histories, "equal_bit_for_bit": histories, "seed": seed}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, value in (("kills", 300), ("processes", 8), ("users", 40), ("turns", 50), ("histories", 100), ("fuzz", 2000), ("walks", 100), ("seed", 1000)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--json", type=Path, required=True, help="Where the figures go.")
    options = parser.parse_args()
    torch.set_num_threads(1)
    result: dict[str, Any] = {
        "machine": {"system": platform.system(), "processor": platform.machine(), "cores": os.cpu_count()},
        "versions": {"python": platform.python_version(), "sqlite": sqlite3.sqlite_version}
        | {name: version(name) for name in ("latent-personal-memory", "torch", "transformers", "sqlalchemy", "hypothesis")},
    }
    console = Console(stderr=True)

    def measure(name: str, part: Callable[[], dict[str, Any]]) -> None:
        console.print(f"{name} …", highlight=False)
        begin = time.perf_counter()
        result[name] = {"seconds": 0.0} | part()
        result[name]["seconds"] = round(time.perf_counter() - begin, 1)

    writers = ("many_writers.py", "--processes", options.processes, "--users", options.users, "--turns", options.turns)
    walks = hypothesis.settings(test_state_machine.WALK, max_examples=options.walks)
    with tempfile.TemporaryDirectory() as place:
        folder = make_tiny_memory(make_tiny(Path(place) / "tiny"))
        measure("crash", lambda: script("crash.py", "--kills", options.kills, "--seed", options.seed))
        measure("writers_sqlite", lambda: script(*writers))
        try:
            with running_server():
                pass
            measure("writers_postgresql", lambda: script(*writers, "--postgresql"))
        except NoServerError as error:
            result["writers_postgresql"] = {"skipped": str(error)}
        measure("forgetting", lambda: forgetting(folder, options.histories, options.seed))
        measure("fuzz", lambda: {"calls": options.fuzz, "seed": options.seed, "came_of_it": test_fuzz.fuzz(folder, options.fuzz, options.seed)})
        measure(
            "walks",
            lambda: {
                "walks": options.walks,
                "steps": walks.stateful_step_count,
                "derandomized": True,
                "calls": test_state_machine.walk(Path(place) / "terse", walks),
            },
        )
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(result, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
