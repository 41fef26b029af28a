"""What a question costs: every arm measured in one run, beside full context, the bare question and the floor."""

from __future__ import annotations

import json
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from test_bench_runner import WordsEmbedding
from typer.testing import CliRunner

from lpm_core import LPM
from lpm_core.exceptions import InvalidInputError
from lpm_core.shapes import SHAPES, Shape
from lpm_integrations.bench import cost
from lpm_integrations.bench.cli import app
from lpm_integrations.bench.cost import CostPlan, history, measure_cost, notes, tables
from lpm_integrations.bench.report import page, read_result

TINY = Shape(32, 2, 8, 64)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lpm_integrations.chroma.retrieval.MiniLMEmbedding", WordsEmbedding)
    monkeypatch.setitem(SHAPES, "tiny", TINY)


def measure(plan: CostPlan, earlier: Any = None) -> Iterator[dict[str, Any]]:
    return measure_cost(plan, Console(file=StringIO()), earlier)


def last(plan: CostPlan, earlier: Any = None) -> dict[str, Any]:
    return list(measure(plan, earlier))[-1]


@pytest.fixture
def plan(tiny_folder: Path) -> CostPlan:
    """The tiny backbone has a window of 256 tokens."""
    return CostPlan(lengths=(128, 512), arms=("none", "full", "rag@2", "lpm"), repeats=2, new_tokens=3, model=str(tiny_folder))


def test_arms_of_the_engine_cost_what_their_prompts_are_long(plan: CostPlan) -> None:
    document = last(plan)

    short, long = (document["shapes"]["embedded"]["lengths"][length]["arms"] for length in ("128", "512"))
    assert list(short) == ["none", "full", "rag@2", "lpm", "floor"]
    for row in (*short.values(), *(row for row in long.values() if "skipped" not in row)):
        assert row["kv_bytes"] == row["kv_bytes_formula"] == (row["prompt_tokens"] + row["soft_tokens"]) * 2 * 2 * 16 * 4
        assert all(row[name]["p95"] >= row[name]["p50"] > 0 for name in ("first_token_ms", "total_ms", "tokens_per_second"))
        assert row["total_ms"]["p50"] > row["first_token_ms"]["p50"]
    assert long["full"]["skipped"].startswith("past the window: ")
    assert short["lpm"]["soft_tokens"] == long["lpm"]["soft_tokens"] == short["floor"]["soft_tokens"] == 4
    assert short["lpm"]["prompt_tokens"] == short["none"]["prompt_tokens"] < short["rag@2"]["prompt_tokens"] < short["full"]["prompt_tokens"]
    assert 0 < short["full"]["prompt_tokens"] - short["none"]["prompt_tokens"] <= 128
    assert {name for name, row in short.items() if row["write_ms"]} == {name for name, row in short.items() if row["bytes_per_user"]} == {"rag@2", "lpm"}
    assert {name for name, row in short.items() if row["remember_ms"]} == {"lpm"}
    assert long["lpm"]["bytes_per_user"] > short["lpm"]["bytes_per_user"]
    assert short["lpm"]["ratios"]["floor"]["kv_bytes"] == 1
    assert short["lpm"]["ratios"]["full"]["kv_bytes"] < 1 < short["lpm"]["ratios"]["none"]["kv_bytes"]
    history = short["full"]["prompt_tokens"] - short["none"]["prompt_tokens"]
    assert short["lpm"]["history_kv"] == pytest.approx(history / 4, abs=1)
    assert short["none"]["history_kv"] is long["lpm"]["history_kv"] is None
    assert set(long["lpm"]["ratios"]) == {"none", "floor"}
    assert document["complete"]


def test_a_shape_is_measured_with_random_numbers_and_says_so() -> None:
    document = last(CostPlan(shapes=("tiny",), lengths=(64,), repeats=1, new_tokens=2, soft_tokens=5))

    subject = document["shapes"]["tiny"]
    arms = subject["lengths"]["64"]["arms"]
    assert subject["dtype"] == "bfloat16"
    assert "random weights" in subject["weights"]
    assert any("random weights" in note for note in notes(document))
    assert arms["lpm"]["soft_tokens"] == arms["floor"]["soft_tokens"] == 5
    assert arms["lpm"]["kv_bytes"] == arms["lpm"]["kv_bytes_formula"] == (arms["lpm"]["prompt_tokens"] + 5) * 2 * 2 * 8 * 128 * 2
    assert arms["none"]["prompt_tokens"] == arms["lpm"]["prompt_tokens"] < arms["rag"]["prompt_tokens"] <= arms["full"]["prompt_tokens"]
    assert {name for name, row in arms.items() if row["write_ms"]} == {name for name, row in arms.items() if row["bytes_per_user"]} == {"rag", "lpm"}
    assert all((row["search_ms"] is None) == (name == "floor") for name, row in arms.items())


def test_shapes_are_those_of_the_family() -> None:
    from transformers import AutoModelForCausalLM

    billions = {}
    for name in ("0.6b", "1.7b", "4b", "8b"):
        with torch.device("meta"):
            billions[name] = AutoModelForCausalLM.from_config(SHAPES[name].config()).num_parameters() / 1e9

    assert billions == pytest.approx({"0.6b": 0.596, "1.7b": 1.721, "4b": 4.022, "8b": 8.191}, abs=0.001)


def test_what_is_too_large_is_said_and_not_tried(plan: CostPlan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "_free", lambda device: 1000.0)

    document = last(CostPlan(shapes=("tiny",), lengths=(64, 128), repeats=1))

    said = list(notes(document))
    assert sum("too large: the weights need" in note for note in said) == 2
    assert not list(tables(document))


def test_an_arm_without_memory_left_is_given_up_and_the_others_go_on(plan: CostPlan, monkeypatch: pytest.MonkeyPatch) -> None:
    real = cost._round

    def scarce(subject: Any, arm: Any, *rest: Any, **options: Any) -> Any:
        if type(arm).__name__ == "_Full":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried")
        return real(subject, arm, *rest, **options)

    monkeypatch.setattr(cost, "_round", scarce)

    arms = next(measure(plan))["shapes"]["embedded"]["lengths"]["128"]["arms"]

    assert arms["full"]["skipped"] == "out of memory: CUDA out of memory. Tried"
    assert set(arms["lpm"]["ratios"]) == {"none", "floor"}


@pytest.mark.parametrize("length", [64, 200, 1500])
def test_a_history_has_the_length_asked_for(lpm: LPM, length: int) -> None:
    chat = lpm.backbone.chat
    case, used = history(length, "a", chat)

    question = [{"role": "user", "content": case.questions[0].text}]
    messages = [{"role": turn.role, "content": turn.content} for turn in case.turns]
    assert len(chat.render([*messages, *question])) - len(chat.render(question)) == used
    assert length - 80 < used <= length
    assert history(length, "a", chat) == (case, used)
    assert history(length, "b", chat) != (case, used)
    assert (len({turn.session_id for turn in case.turns}) > 1) == (length > 1000)


def test_an_interrupted_run_keeps_its_lengths_and_goes_on(plan: CostPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, out = cost._length, tmp_path / "cost.json"
    done: list[int] = []

    def interrupted(subject: Any, length: int, *rest: Any) -> Any:
        if len(done) == 1:
            raise KeyboardInterrupt
        done.append(length)
        return real(subject, length, *rest)

    arguments = ["cost", "--lengths", "64,128", "--arms", "none,lpm", "--repeats", "1", "--tokens", "2", "--model", plan.model, "--json", str(out)]
    monkeypatch.setattr(cost, "_length", interrupted)
    stopped = CliRunner().invoke(app, arguments)
    assert stopped.exit_code == 130
    assert "embedded: tokens and memory" in stopped.output
    assert "interrupted" in stopped.output
    assert list(json.loads(out.read_text())["shapes"]["embedded"]["lengths"]) == ["64"]

    done.clear()
    with pytest.raises(InvalidInputError, match="--resume"):
        CliRunner().invoke(app, [*arguments, "--resume", "--seed", "1"], catch_exceptions=False)
    with pytest.raises(InvalidInputError, match="--resume"):
        last(plan, [])
    result = CliRunner().invoke(app, [*arguments, "--resume"], catch_exceptions=False)

    assert result.exit_code == 0, result.output
    assert done == [128]
    document = read_result(out, any_kind=True)
    assert document["complete"]
    html = page([document])
    assert html.count("<table>") == len(list(tables(document)))
    assert "<td>floor</td>" in html
    assert html.count("<polyline") == 2 * 3  # none, lpm and the floor: first token and KV cache
    table = CliRunner().invoke(app, ["table", str(out)], catch_exceptions=False).output
    assert table.count("| --- |") == len(list(tables(document)))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"shapes": ("9b",)}, "'9b'"),
        ({"shapes": ()}, "''"),
        ({"lengths": ()}, r"\[\]"),
        ({"lengths": (256, 8)}, "8"),
        ({"arms": ("shuffled",)}, "'shuffled'"),
        ({"arms": ("magic",)}, "'magic'"),
        ({"repeats": 0}, "repeats 0"),
        ({"new_tokens": 1}, "new tokens 1"),
        ({"soft_tokens": 0}, "soft tokens 0"),
        ({"dtype": "int4"}, "'int4'"),
        ({"device": "toaster"}, "'toaster'"),
    ],
)
def test_plans_that_cannot_be_measured_are_refused(options: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidInputError, match=named):
        CostPlan(**options)


@pytest.mark.parametrize(("arguments", "named"), [(("--lengths", "256,many"), "256,many"), (("--resume",), "--json")])
def test_bad_options_are_refused(arguments: tuple[str, ...], named: str) -> None:
    with pytest.raises(InvalidInputError, match=named):
        CliRunner().invoke(app, ["cost", *arguments], catch_exceptions=False)


def test_writing_a_page_is_measured_beside_a_forward_pass(tmp_path: Path) -> None:
    out = tmp_path / "write.json"

    result = CliRunner().invoke(app, ["write", "--shape", "tiny", "--repeats", "2", "--json", str(out)], catch_exceptions=False)

    row = json.loads(out.read_text())["shapes"]["tiny"]
    assert row["ratio"] == pytest.approx(row["one_pass_ms"] / row["forward_ms"], rel=0.02)
    assert "tiny" in result.output
