"""MODEL_CARD.md of the embedded default, written from the record of its training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["model_card"]

_CREDITS = {
    "self_dialogue.jsonl.gz": "The Self-dialogue Corpus (Fainberg et al. 2018), BSD-3-Clause",
    "sgd.jsonl.gz": "Schema-Guided Dialogue, train and dev (Rastogi et al. 2020), CC BY-SA 4.0",
}

_CARD = """\
# The embedded default

A Qwen3 of {backbone_parameters:,} parameters and its memory weights ({memory_parameters:,} parameters), made by this project from nothing with
`make train-embedded`, so that memory can be seen at work without a download, a GPU or a key. It is a demonstration model: it answers short
questions about what a person said, and little else. Apache-2.0.

## Data

- Synthetic people (`lpm_core/training/`): {facts} kinds of facts, {says} ways to tell and {asks} ways to ask for them, several sessions, small talk in between;
  {stories} stories in free wording with blanks and questions of their own; facts that change, facts that two turns tell together, and events told with a time.
  Values are known words, invented words that no tokenizer knows, numbers and dates; {tools} tools that need a remembered fact. Every split has its own users, wordings and values.
{dialogues}
- No benchmark data of any kind.

## Recipe

| part | steps | batch | learning rate | notes |
|---|---|---|---|---|
| backbone | {b[steps]} | about {b[batch_tokens]} tokens | {b[learning_rate]} | {b[layers]} layers, width {b[hidden_size]}, window {b[window]} tokens; answers weigh 1, other tokens {b[context_weight]}; contexts grow from 1 to {b[max_facts]} facts |
| memory | {m[steps]} | {m[users]} users, {m[questions]} questions each | {m[learning_rate]} | H = {m[heads]} soft tokens; before that {m[retrieval_steps]} steps of the attention alone; then cross-entropy of the answer through the frozen backbone, and in part of the attention on the turn that holds it |

Muon for the matrices of the backbone's layers, AdamW (0.9, 0.95) for all else, warm-up, cosine, gradient norm at most 1, bfloat16 autocast, seed {b[seed]}. Python {e[python]}, torch {e[torch]}, transformers {e[transformers]}, {e[machine]}, {e[threads]} threads.
`training.json` beside this file holds every setting and the SHA-256 of each dialogue file.
{history}
## Measured on held-out people (other users, wordings and values), {people} people of {told} facts

| answers from | known words | invented values, numbers, dates | never told: says so |
|---|---|---|---|
| the dialogue in context | {full[known]:.3f} | {full[open]:.3f} | {full[untold]:.3f} |
| memory, written in one pass | {lpm[known]:.3f} | {lpm[open]:.3f} | {lpm[untold]:.3f} |

Share of answers whose every token is the likeliest one. `lpm bench probes` compares with RAG and the controls.

## Limits

- It knows English of the kind above and no world. It cannot reason, translate or write code, and calls only tools like those it was trained on; on real conversations it mostly guesses.
- It answers from two remembered segments at a time, a sentence each; of two contradicting statements either may win. When something happened is known only if it was told with a relative time.
- Slots hold personal data: treat them as plain text.
"""


def model_card(record: Mapping[str, Any], counts: Mapping[str, int], history: str = "") -> str:
    """The card: settings and figures from training.json, how much the corpus has, and how the weights came about if not in one run."""
    files = record["dialogues"]
    lines = [f"- Human dialogue as language-model text and small talk: {_CREDITS.get(name, name)}, sha256 `{digest}`." for name, digest in files.items()]
    return _CARD.format(
        dialogues="\n".join(lines) or "- No human dialogue was mixed in.",
        history=f"\n{history.strip()}\n" if history else "",
        b=record["recipes"]["backbone"],
        m=record["recipes"]["memory"],
        e=record["environment"],
        **record["measured"],
        **record["parameters"],
        **counts,
    )
