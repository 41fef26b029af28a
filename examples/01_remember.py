"""Remember across processes: one process is told, another one answers. Offline, on the embedded default."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from lpm_core import LPM

TOLD = ["Hi, my name is Annika.", "I live in Bergen.", "My dog is called Pixel."]
ASKED = ["Where do I live?", "What is my dog called?", "What is my favorite movie?"]


def answer(store: str) -> None:
    """The second process: nothing but the store tells it who Ann is."""
    with LPM.from_pretrained(store=store) as lpm:
        for question in ASKED:
            answered = lpm.ask("ann", question)
            print(f"  you: {question}\n  model: {answered.text}   ({answered.usage.prompt_tokens} prompt + {answered.usage.soft_tokens} soft tokens)")


def main() -> None:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        store = f"sqlite:///{Path(folder) / 'memory.db'}"
        with LPM.from_pretrained(store=store) as lpm:
            for text in TOLD:
                lpm.remember("ann", text)
                print(f"  you: {text}")
        print("… a new process …", flush=True)
        subprocess.run([sys.executable, __file__, store], check=True)


if __name__ == "__main__":
    answer(sys.argv[1]) if len(sys.argv) > 1 else main()
