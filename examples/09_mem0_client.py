"""Mem0's client API over latent memory: offline, on the embedded default.

Run it with `python examples/09_mem0_client.py`, or with `rag` behind it for the same calls over a Chroma RAG memory.
"""

from __future__ import annotations

import sys
import tempfile

from lpm_integrations.mem0 import Memory


def main(backend: str = "lpm") -> None:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        with Memory(backend, path=folder) as memory:
            memory.add("I live in Lisbon.", user_id="ann", metadata={"topic": "home"})
            [pet] = memory.add([{"role": "user", "content": "My dog is called Rex."}], user_id="ann")["results"]
            memory.add("I live in Rome.", user_id="bo")
            memory.update(pet["id"], "My dog is called Max.")

        with Memory(backend, path=folder) as memory:  # as another process would: ids hold
            print(f"Backend: {backend}\n\nWhat is my dog called?")
            for item in memory.search("What is my dog called?", filters={"user_id": "ann"}, top_k=2)["results"]:
                print(f"  {item['score']:.2f}  {item['memory']}")
            print("\nHistory of that memory")
            for event in memory.history(pet["id"]):
                print(f"  {event['event']:6} {event['old_memory']} -> {event['new_memory']}")
            memory.delete_all(user_id="ann")
            print(f"\nLeft of ann: {len(memory.get_all(user_id='ann')['results'])}, of bo: {len(memory.get_all(user_id='bo')['results'])}")


if __name__ == "__main__":
    main(*sys.argv[1:2])
