"""Refine a user's slots by context distillation, and look at what they say. Offline, on the embedded default."""

from __future__ import annotations

import tempfile
from pathlib import Path

from lpm_core import LPM

TOLD = {
    "monday": ["My name is Annika.", "I live in Bergen.", "I work as a nurse."],
    "tuesday": ["My dog is called Pixel.", "I'm allergic to peanuts.", "My sister's name is Clara."],
}
QUESTION = "What is my sister called?"


def main() -> None:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, LPM.from_pretrained(store=f"sqlite:///{Path(folder) / 'memory.db'}") as lpm:
        for session, texts in TOLD.items():
            lpm.remember("ann", [{"role": "user", "content": text} for text in texts], session_id=session)
        print("Written in one pass")
        print(lpm.explain("ann", QUESTION))
        print(f"answer    {lpm.ask('ann', QUESTION).text}")

        print("\nConsolidating: the model asks itself about each turn, and the slots alone learn the answers", flush=True)
        report = lpm.consolidate("ann")
        print(f"{report.questions} questions of its own; held-out ones right: {report.before:.2f} before, {report.after:.2f} after ({report.seconds:.0f} s)")
        print("the new slots are in use" if report.promoted else "no better, so the old slots stay in use")

        print()
        print(lpm.explain("ann", QUESTION))
        print(f"answer    {lpm.ask('ann', QUESTION).text}")


if __name__ == "__main__":
    main()
