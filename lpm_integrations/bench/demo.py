"""`lpm demo`: memory across processes, then the comparison on a small sample. Nothing is downloaded."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from importlib import resources
from pathlib import Path

import typer
from rich.console import Console

__all__ = ["app"]

app = typer.Typer(help="Show the memory at work: two processes and a small comparison.", invoke_without_command=True)

_USER = "ann"
_TOLD = (
    "Hi! My name is Annika.",
    "I moved to Bergen last month. I love it here.",
    "My dog is called Pixel.",
    "I'm allergic to hazelnuts.",
    "I work at Nordlys Systems.",
    "The weather has been awful all week.",
)
_ASKED = (
    ("Where do I live?", "Bergen"),
    ("What is my dog's name?", "Pixel"),
    ("What am I allergic to?", "hazelnuts"),
    ("Where do I work?", "Nordlys Systems"),
    ("What is my favorite movie?", "I don't know."),
)


def _lpm(arguments: list[str], home: Path) -> str:
    """Run `lpm` in a process of its own and give back what it printed."""
    environment = {**os.environ, "LPM_HOME": str(home)}
    return subprocess.run([sys.executable, "-m", "lpm_core", *arguments], env=environment, check=True, text=True, stdout=subprocess.PIPE).stdout  # noqa: S603


@app.callback(invoke_without_command=True)
def demo() -> None:
    """Tell the memory about a person in one process, ask in another, then compare with RAG and full context."""
    import json

    console = Console(highlight=False)
    right = 0
    with tempfile.TemporaryDirectory(prefix="lpm-demo-") as name:
        home = Path(name)
        console.rule("one process is told about a person")
        for line in _TOLD:
            console.print(f"  {_USER}: {line}", markup=False)
        console.print(_lpm(["remember", _USER, *_TOLD], home).strip(), style="dim", markup=False)
        console.rule("a new process answers")
        console.print("prompt + soft tokens; no history text is in the prompt", style="dim")
        for question, expected in _ASKED:
            answer = json.loads(_lpm(["ask", _USER, question, "--json"], home))
            usage = answer["usage"]
            right += answer["text"] == expected
            mark = "✓" if answer["text"] == expected else f"✗ (expected {expected})"
            cost = f"{usage['prompt_tokens']}+{usage['soft_tokens']} tokens, {usage['total_ms']:.0f} ms"
            console.print(f"  {question:31} {answer['text']:16} {mark}  {cost}", markup=False)
    console.rule("no memory, full context, RAG and LPM")
    console.print("a small made-up sample in LoCoMo's format, official metric", style="dim")
    sample = resources.files("lpm_integrations.bench.datasets") / "sample_locomo.json"
    with resources.as_file(sample) as path:
        subprocess.run([sys.executable, "-m", "lpm_core", "bench", "locomo", "--data", str(path), "--arms", "none,full,rag,lpm"], check=True)  # noqa: S603
    console.print("The embedded backbone is tiny and reads little real English: expect low scores here, and see the README for held-out people.", style="dim")
    if right < len(_ASKED):
        console.print(f"{right} of {len(_ASKED)} answers were right", style="red")
        raise typer.Exit(1)
