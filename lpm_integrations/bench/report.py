"""Result documents as one HTML page that needs nothing from outside: no script, no font, no network."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from lpm_core.exceptions import DatasetError, InvalidInputError
from lpm_integrations.bench.cost import notes, tables
from lpm_integrations.bench.files import read_json
from lpm_integrations.bench.plots import bars, curves, points
from lpm_integrations.bench.runner import category_names, rows
from lpm_integrations.bench.significance import compare, mean_interval

__all__ = ["page", "read_result"]

_DRAWN = 10  # examples of each kind

_STYLE = """
:root{color-scheme:light dark;--line:#8885;--soft:#777;--mark:#2a6fb0}
*{box-sizing:border-box}
body{font:16px/1.5 system-ui,sans-serif;margin:0 auto;max-width:70rem;padding:1rem;overflow-wrap:anywhere}
h1{font-size:1.6rem}h2{margin-top:2.5rem;border-top:2px solid var(--line);padding-top:1rem}
.wide{overflow-x:auto;margin:.5rem 0 1.5rem}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;overflow-wrap:normal}
caption{text-align:left;font-weight:600;padding:.3rem 0}
th,td{padding:.3rem .7rem;border-bottom:1px solid var(--line);text-align:right;white-space:nowrap}
th:first-child,td:first-child{text-align:left}
td small{color:var(--soft);display:block}
dl{display:grid;grid-template-columns:minmax(6rem,max-content) 1fr;gap:.1rem 1rem}dt{color:var(--soft)}dd{margin:0}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,22rem),1fr));gap:1rem}
figure{margin:0}figcaption{font-weight:600}svg{width:100%;height:auto}
.example{border-left:3px solid var(--line);margin:1rem 0;padding-left:.8rem}.example ul{margin:0;padding-left:1.1rem}
.example dl{grid-template-columns:minmax(4rem,auto) 1fr}summary{cursor:pointer;padding:.3rem 0}
svg text{font:14px system-ui,sans-serif;fill:currentColor}svg circle,svg rect{fill:var(--mark)}svg line{stroke:currentColor}svg polyline{fill:none;stroke:var(--mark);stroke-width:2}
"""


def read_result(path: Path, *, any_kind: bool = False) -> dict[str, Any]:
    """A result document with arms; with `any_kind` also the summary of a Mem0 run, and costs. Raises DatasetError for anything else."""
    found = read_json(path)
    if isinstance(found, dict) and isinstance(found.get("benchmark"), str):
        if isinstance(found.get("arms"), dict) and found["arms"]:
            return found
        if any_kind and found.get({"mem0": "overall", "cost": "shapes"}.get(found["benchmark"], "")):
            return found
    raise DatasetError(f"{path} is no result document: name a file that `lpm bench … --json` wrote")


def page(documents: Sequence[Mapping[str, Any]]) -> str:
    """The page. Raises InvalidInputError for no document."""
    if not documents:
        raise InvalidInputError("a report needs at least one result document")
    kinds = {"mem0": _mem0, "cost": _cost}
    body = "".join(kinds.get(document["benchmark"], _arms)(document) for document in documents)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>Benchmarks of memory</title><style>{_STYLE}</style></head><body><h1>Benchmarks of memory</h1>"
        "<p>Small print in a cell is the 95 % bootstrap interval of the mean over questions. Scores go from 0 to 1. Each table comes from one "
        f"result document, run on one machine with one backbone.</p>{body}</body></html>\n"
    )


def _arms(document: Mapping[str, Any]) -> str:
    benchmark, arms = document["benchmark"], document["arms"]
    asked = next(iter(arms.values()))["n"]
    parts = [f"<h2>{escape(benchmark)}</h2>", _config(document), _scores(document, f"Scores on {asked} questions")]
    parts += [_comparisons(document), _examples(document), _costs(document), _plots(arms), _failures(arms)]
    return "".join(parts)


def _scores(document: Mapping[str, Any], title: str) -> str:
    arms, names = document["arms"], category_names(document["benchmark"])
    keys = list(next(iter(arms.values()))["categories"])
    counts = next(iter(arms.values()))["counts"]
    tags = list(next(iter(arms.values())).get("tags", {}))
    headings = ["arm", "overall", *(f"{names.get(key, key)} (n={counts.get(key, '?')})" for key in (*keys, *tags))]
    searched = any("retrieval" in row for row in arms.values())
    lines = []
    for arm, row in arms.items():
        scores: Mapping[str, Mapping[str, float]] = row.get("scores", {})
        every = [value for chosen in scores.values() for value in chosen.values()]
        cells = [escape(arm), _score(row["overall"], every)]
        cells += [_score(row["categories"].get(key), list(scores.get(key, {}).values())) for key in keys]
        cells += [_score(row["tags"].get(tag), ()) for tag in tags]
        found = row.get("retrieval")
        cells += [f"{found['recall']:.3f}<small>{found['retrieved']:g} turns</small>" if found else "–"] if searched else []
        cells.append("–" if row["gold_nll"] is None else f"{row['gold_nll']:.3f}")
        lines.append(cells)
    return _table(title, [*headings, *(["evidence recall"] if searched else []), "gold NLL"], lines)


def _score(value: float | None, each: Sequence[float]) -> str:
    if value is None:
        return "–"
    if not each:
        return f"{value:.3f}"
    low, high = mean_interval(each)
    return f"{value:.3f}<small>{low:.3f} to {high:.3f}</small>"


def _comparisons(document: Mapping[str, Any]) -> str:
    lines = []
    for base, arm in _pairs(document["arms"], "scores"):
        row = compare(document, base, arm)["overall"]
        likely = all("gold_nlls" in document["arms"][name] for name in (base, arm))
        nll = _difference(compare(document, base, arm, measure="gold_nlls")["overall"]) if likely else "–"
        cells = [str(row["n"]), _difference(row), str(row["wins"]), str(row["losses"]), f"{row['p']:.3g}", nll]
        lines.append([f"{escape(base)} - {escape(arm)}", *cells])
    headings = ["arms", "n", "difference", "won", "lost", "sign test p", "gold NLL"]
    return _table("Paired comparison, question by question", headings, lines) if lines else ""


def _difference(row: Mapping[str, Any]) -> str:
    low, high = row["interval"]
    return f"{row['difference']:+.3f}<small>{low:+.3f} to {high:+.3f}</small>"


def _pairs(arms: Mapping[str, Mapping[str, Any]], key: str) -> list[tuple[str, str]]:
    """LPM, or the first arm, with every other arm: those that have the key."""
    having = [arm for arm, row in arms.items() if row.get(key)]
    base = "lpm" if "lpm" in having else next(iter(having), "")
    return [(base, arm) for arm in having if arm != base]


def _examples(document: Mapping[str, Any]) -> str:
    """Questions that one arm answered better than another, drawn at random, with what each of them was shown."""
    asked: Mapping[str, Any] = document.get("questions", {})
    pairs = _pairs(document["arms"], "answers")
    if not asked:
        return "<p>Examples that arms won and lost are shown for results of runs with <code>--keep-answers</code>.</p>"
    answers = {arm: {row["id"]: row for row in document["arms"][arm]["answers"]} for arm in {arm for pair in pairs for arm in pair}}
    parts = ["<h3>Examples</h3>"] if pairs else []
    for base, arm in pairs:
        ours, theirs = answers[base], answers[arm]
        for word, sign in (("won against", 1), ("lost to", -1)):
            found = [name for name in asked if name in ours and name in theirs and (ours[name]["score"] - theirs[name]["score"]) * sign > 0]
            drawn = [found[place] for place in sorted(random.Random(0).sample(range(len(found)), min(_DRAWN, len(found))))]
            cards = "".join(_example(asked[name], {base: ours[name], arm: theirs[name]}) for name in drawn)
            parts.append(f"<details><summary>{escape(base)} {word} {escape(arm)}: {len(drawn)} of {len(found)} questions</summary>{cards}</details>")
    return "".join(parts)


def _example(asked: Mapping[str, Any], answers: Mapping[str, Mapping[str, Any]]) -> str:
    turns: Mapping[str, str] = asked["turns"]
    entries = [("question", escape(asked["question"])), *([("options", _list(asked["options"]))] if asked.get("options") else [])]
    entries.append(("right", "–" if asked["gold"] is None else escape(asked["gold"])))
    for arm, row in answers.items():
        entries.append((arm, f"{escape(row['answer']) or '–'} <small>(score {row['score']:.3g})</small>"))
        shown = [turns[key] for key in row.get("turns", ()) if key in turns]
        entries += [(f"{arm} was shown", _list(shown))] if shown else []
    evidence = [turns[key] for key in asked["evidence"] if key in turns]
    entries += [("answer told in", _list(evidence))] if evidence else []
    return f'<article class="example"><dl>{"".join(f"<dt>{escape(name)}</dt><dd>{value}</dd>" for name, value in entries)}</dl></article>'


def _list(texts: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(text)}</li>' for text in texts)}</ul>"


def _cost(document: Mapping[str, Any]) -> str:
    """What a question costs, from `lpm bench cost`."""
    said = "".join(f"<p>{escape(note)}</p>" for note in notes(document))
    shown = (_table(title, headings, [[escape(cell) for cell in line] for line in lines]) for title, headings, lines in tables(document))
    plots = "".join(_scaling(name, found["lengths"]) for name, found in document["shapes"].items())
    return f"<h2>cost</h2>{_config(document)}{said}{plots}{''.join(shown)}"


def _scaling(shape: str, lengths: Mapping[str, Mapping[str, Any]]) -> str:
    """Time to the first token and KV cache against the length of the history."""
    measured = [(int(length), arm, row) for length, found in lengths.items() for arm, row in found["arms"].items() if "skipped" not in row]

    def series(value: Callable[[Mapping[str, Any]], float]) -> dict[str, list[tuple[float, float]]]:
        arms = dict.fromkeys(arm for _, arm, _ in measured)
        return {arm: [(length, value(row)) for length, name, row in measured if name == arm] for arm in arms}

    first = curves(f"{shape}: first token", "tokens of history", "ms", series(lambda row: row["first_token_ms"]["p50"]))
    return f'<div class="plots">{first}{curves(f"{shape}: KV cache", "tokens of history", "KiB", series(lambda row: row["kv_bytes"] / 1024))}</div>'


def _costs(document: Mapping[str, Any]) -> str:
    headings, *lines = rows(document)
    first = headings.index("gold NLL") + 1
    return _table("Cost of a question", ["arm", *headings[first:]], [[escape(line[0]), *map(escape, line[first:])] for line in lines])


def _plots(arms: Mapping[str, Any]) -> str:
    known = {arm: row for arm, row in arms.items() if row["cost"]["total_ms"] is not None}
    tokens = [(arm, row["cost"]["prompt_tokens"] + row["cost"]["soft_tokens"], row["overall"]) for arm, row in known.items()]
    plots = [
        points("Score against tokens in front of the answer", "prompt and soft tokens", "score", tokens),
        bars("Time of a question, median", "ms", [(arm, row["cost"]["total_ms"]) for arm, row in known.items()]),
        bars("KV cache of a question", "KiB", [(arm, row["cost"]["kv_bytes"] / 1024) for arm, row in known.items()]),
    ]
    return f'<div class="plots">{"".join(plots)}</div>'


def _failures(arms: Mapping[str, Any]) -> str:
    lines = [[escape(arm), escape(str(item["id"])), escape(str(item["error"]))] for arm, row in arms.items() for item in row.get("failures", ())]
    return _table("Questions that failed (score 0)", ["arm", "question", "error"], lines) if lines else ""


def _mem0(document: Mapping[str, Any]) -> str:
    rows_ = {"overall": document["overall"], **document["categories"]}
    lines = [[escape(name), *("–" if row[key] is None else f"{row[key]:g}" for key in ("n", "f1", "bleu1", "j"))] for name, row in rows_.items()]
    times = [[name, *("–" if document[key][share] is None else f"{document[key][share]:.3f}" for share in ("p50", "p95"))]
             for name, key in (("search", "search_seconds"), ("total", "total_seconds"))]  # fmt: skip
    note = "" if document["overall"]["j"] is not None else "<p>J is absent: no judge was named.</p>"
    return (
        f"<h2>mem0 protocol</h2>{_config(document)}{note}<p>{document['add_calls']} add calls in {document['add_seconds']} s; category 5 is not scored.</p>"
        + _table("Scores by the Mem0 protocol", ["category", "n", "F1", "BLEU-1", "J"], lines)
        + _table("Seconds of a question", ["", "p50", "p95"], times)
    )


def _config(document: Mapping[str, Any]) -> str:
    entries = {**document.get("config", {}), **{f"machine: {key}": value for key, value in document.get("environment", {}).items()}}
    shown = "".join(f"<dt>{escape(str(key))}</dt><dd>{escape(_plain(value))}</dd>" for key, value in entries.items())
    return f"<details><summary>What was run</summary><dl>{shown}</dl></details>"


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _table(title: str, headings: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table of cells that are HTML already; headings are plain text."""
    head = "".join(f'<th scope="col">{escape(heading)}</th>' for heading in headings)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in line)}</tr>" for line in lines)
    return f'<div class="wide"><table><caption>{escape(title)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
