"""`lpm bench`: comparisons anyone can run again."""

from __future__ import annotations

import os
import random
import re
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from lpm_core.exceptions import InvalidInputError
from lpm_core.training.corpus import UNKNOWN
from lpm_integrations.bench.cli_agents import agents
from lpm_integrations.bench.cli_preferences import preferences
from lpm_integrations.bench.cli_results import compare, report, table
from lpm_integrations.bench.cli_run import (
    Arms,
    ChatModel,
    Facts,
    Jobs,
    JudgeModel,
    KeepAnswers,
    Memory,
    Model,
    Out,
    People,
    Resume,
    Split,
    open_engine,
    run_arms,
)
from lpm_integrations.bench.cli_starts import starts

if TYPE_CHECKING:
    from lpm_integrations.bench.cases import Case, TestQuestion
    from lpm_integrations.bench.datasets.personamem import PersonaQuestion

__all__ = ["app"]

app = typer.Typer(help="Compare LPM with no memory, full context and RAG.", no_args_is_help=True)


@app.callback()
def _in_utc() -> None:
    """Relative times get the same dates on every machine."""
    os.environ["TZ"] = "UTC"
    if hasattr(time, "tzset"):
        time.tzset()


class Mode(StrEnum):
    """How a question with options is answered."""

    likelihood = "likelihood"
    generate = "generate"


class Backend(StrEnum):
    """What is behind the Mem0-style client."""

    lpm = "lpm"
    rag = "rag"


_ABSTAINS = "No information available"


def _drawn(cases: Iterable[Case], questions: int | None, seed: int) -> list[Case]:
    """The cases with at most `questions` questions each, drawn by the seed."""
    chosen = []
    for case in cases:
        if questions is not None and questions < len(case.questions):
            picked = sorted(random.Random(f"{seed}/{case.user_id}").sample(range(len(case.questions)), questions))
            case = replace(case, questions=tuple(case.questions[index] for index in picked))
        chosen.append(case)
    return chosen


def _told(answer: str, question: TestQuestion, abstention: int) -> float:
    """LoCoMo's metric for questions with one short answer; of the category `abstention`, right is to say that nothing is known."""
    return _official(answer, question.gold or "", 5 if question.category == abstention else 4)


def _official(answer: str, gold: str, category: int) -> float:
    """LoCoMo's metric, with the backbone's "I don't know." taken for the data set's own words."""
    from lpm_integrations.bench.metrics import locomo_f1

    return locomo_f1(_ABSTAINS if exact(answer, UNKNOWN) else answer, gold, category)


def exact(answer: str, gold: str) -> float:
    """1 if answer and gold are the same words, whatever case and punctuation."""

    def words(text: str) -> list[str]:
        return re.findall(r"[\w']+", text.lower())

    return float(words(answer) == words(gold))


def _as_told(answer: str, question: TestQuestion) -> float:
    return exact(answer, question.gold or "")


def _parts(text: str) -> tuple[str, ...]:
    """What a comma-separated list names, each once."""
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def _numbers(lengths: str) -> tuple[int, ...]:
    """Lengths from a comma-separated list. Raises InvalidInputError."""
    try:
        numbers = tuple(map(int, _parts(lengths)))
    except ValueError as error:
        raise InvalidInputError(f"--lengths {lengths!r}: numbers of tokens with commas between them, as in 256,4096") from error
    if not numbers or min(numbers) < 1:
        raise InvalidInputError(f"--lengths {lengths!r}: at least one number of tokens, none below 1")
    return numbers


def _print_lengths(document: Mapping[str, Any]) -> None:
    """What was answered right, and the time of a question, by length of history."""
    from lpm_integrations.bench.progress import narrow_table

    names = document["arms"]
    shown = narrow_table("by tokens of history", ("tokens", *names, *(f"{name} ms" for name in names)))
    for row in document["lengths"].values():
        found = [row["arms"][name] for name in names]
        shown.add_row(f"{row['tokens']:,}", *(f"{arm['overall']:.3f}" for arm in found), *(f"{arm['cost']['total_ms']:.0f}" for arm in found))
    Console().print(shown)


@app.command()
def probes(
    arms: Arms = "none,shuffled,full,rag,lpm",
    people: People = 200,
    facts: Facts = 8,
    questions: Annotated[int, typer.Option(help="Questions about each of them.")] = 8,
    updates: Annotated[float, typer.Option(help="Share of the facts that change later.", min=0, max=1)] = 0.0,
    joins: Annotated[int, typer.Option(help="People told of by their names, and asked about by who they are, at most.", min=0)] = 0,
    stories: Annotated[int, typer.Option(help="Stories told beside the facts, at most.", min=0)] = 0,
    dates: Annotated[int, typer.Option(help="Events told with times like 'yesterday', and asked for their dates.", min=0, max=10)] = 0,
    split: Split = "test",
    seed: int = 0,
    keep_answers: KeepAnswers = False,
    out: Out = None,
    resume: Resume = False,
    jobs: Jobs = 1,
    model: Model = None,
    memory: Memory = None,
    answerer: ChatModel = None,
    judge: JudgeModel = None,
) -> None:
    """Held-out people: unseen users, wordings and values. Score: exact match."""
    from lpm_integrations.bench.arms import arm_names
    from lpm_integrations.bench.cases import probe_cases

    names = arm_names(arms)
    told = {"updates": updates, "joins": joins, "stories": stories, "dates": dates}
    config = {"people": people, "facts": facts, "questions": questions, **told, "seed": seed, "split": split, "score": "exact match of words"}
    cases = list(probe_cases(people, seed, facts, questions, split, **told))
    options = {"resume": resume, "jobs": jobs, "model": model, "memory": memory, "answerer": answerer, "judge": judge, "keep_answers": keep_answers}
    run_arms("probes", cases, names, _as_told, config, out, **options)


@app.command()
def scaling(
    arms: Arms = "full,rag,lpm",
    lengths: Annotated[
        str, typer.Option(help="Tokens of history, comma-separated. Eight facts take some 500 of themselves; fewer facts make shorter ones.")
    ] = "512,1024,2048,4096,8192,16384",
    people: People = 8,
    facts: Facts = 8,
    questions: Annotated[int, typer.Option(help="Questions about each of them.")] = 8,
    dialogues: Annotated[list[Path] | None, typer.Option(help="Human dialogues (JSON lines) for the small talk between facts.", exists=True)] = None,
    seed: int = 0,
    out: Out = None,
    model: Model = None,
    memory: Memory = None,
) -> None:
    """Accuracy and cost against the length of the history: the same people and questions with more and more small talk between the facts."""
    from lpm_core.training.corpus import Corpus
    from lpm_core.training.dialogues import read_dialogues
    from lpm_integrations.bench.arms import arm_names
    from lpm_integrations.bench.cases import lengthened, probe_cases
    from lpm_integrations.bench.files import write_json
    from lpm_integrations.bench.runner import run

    names, corpus = arm_names(arms), Corpus("test", read_dialogues(dialogues or []))
    config = {"people": people, "facts": facts, "questions": questions, "seed": seed, "split": "test", "score": "exact match of words"}
    document: dict[str, Any] = {"benchmark": "scaling", "lengths": {}, "arms": names}
    with open_engine(model, memory) as engine:
        for tokens in _numbers(lengths):
            cases = [
                lengthened(case, tokens, engine.backbone.chat, corpus, random.Random(f"{seed}/{case.user_id}"))
                for case in probe_cases(people, seed, facts, questions)
            ]
            result = run(f"scaling {tokens}", cases, names, _as_told, engine=engine, config=config, console=Console(stderr=True))
            rows = {arm: {key: row[key] for key in ("overall", "categories", "counts", "cost")} for arm, row in result["arms"].items()}
            document |= {"config": result["config"], "environment": result["environment"]}
            chat = engine.backbone.chat
            long = statistics.fmean(sum(len(chat.turn(turn.role, chat.content(turn.dated))[0]) for turn in case.turns) for case in cases)
            document["lengths"][str(tokens)] = {"tokens": round(long), "arms": rows}
            if out:
                write_json(document, out)
    _print_lengths(document)


@app.command()
def handwritten(
    arms: Arms = "none,shuffled,full,rag,lpm",
    keep_answers: KeepAnswers = False,
    out: Out = None,
    resume: Resume = False,
    jobs: Jobs = 1,
    model: Model = None,
    memory: Memory = None,
    answerer: ChatModel = None,
    judge: JudgeModel = None,
) -> None:
    """People written by hand, who talk the way people talk: outside every template of the training. Score: exact match."""
    from lpm_integrations.bench.arms import arm_names
    from lpm_integrations.bench.datasets.own import HANDWRITTEN, load_own

    names = arm_names(arms)
    cases = load_own(HANDWRITTEN)
    config = {"data": HANDWRITTEN.name, "people": len(cases), "score": "exact match of words", "abstention": UNKNOWN}
    options = {"resume": resume, "jobs": jobs, "model": model, "memory": memory, "answerer": answerer, "judge": judge, "keep_answers": keep_answers}
    run_arms("handwritten", cases, names, lambda answer, question: exact(answer, question.gold or UNKNOWN), config, out, **options)


@app.command()
def locomo(
    data: Annotated[Path, typer.Option(help="locomo10.json, or a file of the same format.")],
    arms: Arms = "none,full,rag,lpm",
    conversations: Annotated[int | None, typer.Option(help="How many conversations, from the first on. Default: all.")] = None,
    questions: Annotated[int | None, typer.Option(help="Questions drawn from each conversation. Default: all.")] = None,
    audit: Annotated[Path | None, typer.Option(help="locomo_audit_errors.json: adds the score without the questions whose gold is wrong.")] = None,
    seed: int = 0,
    keep_answers: KeepAnswers = False,
    out: Out = None,
    resume: Resume = False,
    jobs: Jobs = 1,
    model: Model = None,
    memory: Memory = None,
    answerer: ChatModel = None,
    judge: JudgeModel = None,
) -> None:
    """LoCoMo by its official metric, per category id, with the likelihood of the gold answers and the recall of its evidence."""
    from lpm_integrations.bench.arms import arm_names
    from lpm_integrations.bench.cases import locomo_case
    from lpm_integrations.bench.datasets.locomo import load_audit, load_locomo

    names = arm_names(arms)
    chosen = load_locomo(data)[:conversations]
    flagged = load_audit(audit) if audit else None
    cases = _drawn((locomo_case(conversation, flagged) for conversation in chosen), questions, seed)
    golds = {question.id: question.answer for conversation in chosen for question in conversation.questions}

    def score(answer: str, question: TestQuestion) -> float:
        return _official(answer, golds[question.id], question.category)

    config = {
        "data": data.name,
        "conversations": len(chosen),
        "questions_per_conversation": questions,
        "seed": seed,
        "score": "official LoCoMo metric",
        "abstention": f"the answer {UNKNOWN!r} is scored as {_ABSTAINS!r}, in every arm",
        "dropped_evidence": sum(conversation.dropped_evidence for conversation in chosen),
        **({"audit": audit.name} if audit else {}),
        "always_not_mentioned": round(
            sum(score(UNKNOWN, question) for case in cases for question in case.questions) / max(1, sum(len(case.questions) for case in cases)), 4
        ),
    }
    options = {"resume": resume, "jobs": jobs, "model": model, "memory": memory, "answerer": answerer, "judge": judge, "keep_answers": keep_answers}
    run_arms("locomo", cases, names, score, config, out, **options)
    Console().print(f"always answering 'not mentioned' scores {config['always_not_mentioned']:.3f} on these questions", highlight=False)


@app.command()
def personamem(
    data: Annotated[Path, typer.Option(help="questions_32k.csv, or the folder it is in.")],
    contexts: Annotated[Path | None, typer.Option(help="shared_contexts_32k.jsonl. Default: the one beside the questions.")] = None,
    arms: Arms = "none,full,rag,lpm",
    mode: Annotated[
        Mode, typer.Option(help="likelihood: the option with the best log-likelihood per token. generate: parse <final_answer>.")
    ] = Mode.likelihood,
    questions: Annotated[int | None, typer.Option(help="Questions drawn from each part of a context. Default: all.")] = None,
    seed: int = 0,
    keep_answers: KeepAnswers = False,
    out: Out = None,
    resume: Resume = False,
    model: Model = None,
    memory: Memory = None,
    answerer: ChatModel = None,
    judge: JudgeModel = None,
) -> None:
    """PersonaMem v1, per question type. The arm `none` is the blind run; the longest option is the baseline that reads nothing."""
    from lpm_integrations.bench.arms import arm_names
    from lpm_integrations.bench.cases import personamem_cases
    from lpm_integrations.bench.datasets.personamem import find_personamem, load_personamem, longest_option, parse_choice

    names = arm_names(f"none,{arms}")
    if answerer and mode is Mode.likelihood:
        raise InvalidInputError(f"--answerer {answerer}: a chat model writes its choice and gives no likelihoods; add --mode generate")
    loaded = load_personamem(*find_personamem(data, contexts))
    generate = mode is Mode.generate
    cases = _drawn(personamem_cases(loaded, generate=generate), questions, seed)
    asked = {question.id for case in cases for question in case.questions}

    def longest(chosen: Sequence[PersonaQuestion]) -> float:
        return round(sum(longest_option(question.options) == question.gold for question in chosen) / max(1, len(chosen)), 4)

    def score(answer: str, question: TestQuestion) -> float:
        return float(parse_choice(answer, question.gold or "") if generate else answer == question.gold)

    config = {
        "data": data.name,
        "questions": len(asked),
        "skipped_without_context": loaded.skipped,
        "questions_per_part": questions,
        "seed": seed,
        "score": "share of right choices",
        "mode": mode.value,
        "system_messages": "told as turns of the user, in every arm",
        "longest_option": longest([question for question in loaded.questions if question.id in asked]),
        "longest_option_all_questions": longest(loaded.all_questions),
    }
    tokens = {"max_new_tokens": 256} if generate else {}
    run_arms(
        "personamem",
        cases,
        names,
        score,
        config,
        out,
        resume=resume,
        model=model,
        memory=memory,
        answerer=answerer,
        judge=judge,
        keep_answers=keep_answers,
        choose=not generate,
        **tokens,
    )
    Console().print(
        f"always choosing the longest option scores {config['longest_option']:.3f} on these questions, {config['longest_option_all_questions']:.3f} on all "
        f"{len(loaded.all_questions)}; {loaded.skipped} questions were skipped, their context is not in the file",
        highlight=False,
    )


@app.command()
def longmemeval(
    data: Annotated[Path, typer.Option(help="longmemeval_s.json, longmemeval_oracle.json, or a file of the same format.")],
    arms: Arms = "none,full,rag,lpm",
    first: Annotated[int | None, typer.Option(help="How many questions, from the first on. Default: all.")] = None,
    keep_answers: KeepAnswers = False,
    out: Out = None,
    resume: Resume = False,
    jobs: Jobs = 1,
    model: Model = None,
    memory: Memory = None,
    answerer: ChatModel = None,
    judge: JudgeModel = None,
) -> None:
    """LongMemEval's questions by the F1 of stemmed words (its own score needs a judge), and the recall of its evidence."""
    from lpm_integrations.bench.arms import arm_names
    from lpm_integrations.bench.datasets.longmemeval import ABSTENTION, load_longmemeval

    names = arm_names(arms)
    cases = load_longmemeval(data)[:first]
    config = {"data": data.name, "questions": len(cases), "score": "F1 of stemmed words; abstention: 1 for a refusal"}
    options = {"resume": resume, "jobs": jobs, "model": model, "memory": memory, "answerer": answerer, "judge": judge, "keep_answers": keep_answers}
    run_arms("longmemeval", cases, names, lambda answer, question: _told(answer, question, ABSTENTION), config, out, **options)


@app.command()
def own(
    data: Annotated[Path, typer.Option(help="Your own history and questions, as JSON lines (see lpm_integrations/bench/datasets/own.py).")],
    arms: Arms = "none,full,rag,lpm",
    keep_answers: KeepAnswers = False,
    out: Out = None,
    resume: Resume = False,
    jobs: Jobs = 1,
    model: Model = None,
    memory: Memory = None,
    answerer: ChatModel = None,
    judge: JudgeModel = None,
) -> None:
    """Your own history and questions, by LoCoMo's metric."""
    from lpm_integrations.bench.arms import arm_names
    from lpm_integrations.bench.cases import NEVER_TOLD
    from lpm_integrations.bench.datasets.own import load_own

    def score(answer: str, question: TestQuestion) -> float:
        return _official(answer, question.gold or "", question.category)

    names = arm_names(arms)
    cases = load_own(data)
    config = {"data": data.name, "people": len(cases), "score": "LoCoMo metric", "never_told": f"category {NEVER_TOLD}"}
    options = {"resume": resume, "jobs": jobs, "model": model, "memory": memory, "answerer": answerer, "judge": judge, "keep_answers": keep_answers}
    run_arms("own", cases, names, score, config, out, **options)


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="locomo or personamem.")],
    to: Annotated[Path, typer.Option(help="Folder for the files.")] = Path("data"),
    base: Annotated[str | None, typer.Option(help="Web address of a mirror, in place of the authors' own.")] = None,
) -> None:
    """Download a data set from where its authors publish it. Each file is checked against its SHA-256; an interrupted fetch goes on."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

    from lpm_integrations.bench.fetch import SOURCES
    from lpm_integrations.bench.fetch import fetch as bring

    if name not in SOURCES:
        raise InvalidInputError(f"no data set {name!r} can be fetched; there are {', '.join(SOURCES)}")
    source = SOURCES[name]
    console = Console(stderr=True)
    console.print(f"licence: {source.licence}", highlight=False)
    with Progress(TextColumn("{task.description}"), BarColumn(), DownloadColumn(), console=console, disable=not console.is_terminal) as progress:
        for file in source.files:
            task = progress.add_task(file.name, total=file.size)
            fetched = bring(file, base or source.base, to, lambda done, task=task: progress.update(task, completed=done))  # type: ignore[misc]
            progress.update(task, completed=file.size)
            console.print(f"{to / file.name}{'' if fetched else ' is here already'}", highlight=False)


@app.command()
def cost(
    shape: Annotated[
        str, typer.Option(help="Comma-separated: embedded (the engine), and 0.6b, 1.7b, 4b, 8b: a Qwen3 of that shape with random weights.")
    ] = "embedded",
    lengths: Annotated[str, typer.Option(help="Tokens of history, comma-separated.")] = "256,512,896,4096",
    arms: Annotated[str, typer.Option(help="Comma-separated: none, full, rag, lpm; rag@10 for that many turns of text.")] = "none,full,rag,lpm",
    repeats: Annotated[int, typer.Option(help="Rounds; in each of them every arm answers once.")] = 10,
    tokens: Annotated[int, typer.Option(help="Tokens of an answer.")] = 16,
    soft_tokens: Annotated[int, typer.Option(help="Soft tokens of shapes; the engine has its own.")] = 64,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto: a GPU if there is one.")] = "cpu",
    dtype: Annotated[str | None, typer.Option(help="Default: float32 for the engine, bfloat16 for shapes.")] = None,
    seed: int = 0,
    out: Out = None,
    resume: Resume = False,
    model: Model = None,
    memory: Memory = None,
) -> None:
    """What a question costs at each length of history: tokens, KV cache, time, memory; as ratios to full context, the bare question and the floor."""
    from lpm_integrations.bench.cost import CostPlan, measure_cost, notes, tables
    from lpm_integrations.bench.files import read_json, write_json
    from lpm_integrations.bench.progress import narrow_table

    if resume and out is None:
        raise InvalidInputError("--resume needs --json: what was measured so far is in that file")
    plan = CostPlan(_parts(shape.lower()), _numbers(lengths), _parts(arms), repeats, tokens, soft_tokens, device, dtype, seed, model, memory)
    document: dict[str, Any] = {"shapes": {}}
    try:
        for document in measure_cost(plan, Console(stderr=True), read_json(out) if resume and out and out.exists() else None):
            if out:
                write_json(document, out)
    finally:  # what was measured before an interruption is shown too
        for title, headings, lines in tables(document):
            shown = narrow_table(title, headings, names=1)
            for line in lines:
                shown.add_row(*line)
            Console().print(shown)
        for note in notes(document):
            Console().print(note, highlight=False, markup=False)


@app.command("write")
def written(
    shape: Annotated[str, typer.Option(help="Comma-separated: embedded, and 0.6b, 1.7b, 4b, 8b with random weights.")] = "embedded,0.6b",
    repeats: Annotated[int, typer.Option(help="Rounds.", min=1)] = 7,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto.")] = "cpu",
    dtype: Annotated[str | None, typer.Option(help="Default: float32 for the engine, bfloat16 for shapes.")] = None,
    seed: int = 0,
    out: Out = None,
    model: Model = None,
    memory: Memory = None,
) -> None:
    """What writing a page of 512 tokens costs beside one forward pass of the backbone over them."""
    from lpm_integrations.bench.cost import CostPlan, measure_write
    from lpm_integrations.bench.files import write_json
    from lpm_integrations.bench.progress import narrow_table

    plan = CostPlan(_parts(shape.lower()), repeats=repeats, device=device, dtype=dtype, seed=seed, model=model, memory=memory)
    document = measure_write(plan)
    shown = narrow_table(f"a page of {document['tokens']} tokens", ("shape", "one pass ms", "forward ms", "ratio"))
    for name, row in document["shapes"].items():
        figures = [row["skipped"]] if "skipped" in row else [f"{row[key]:.1f}" for key in ("one_pass_ms", "forward_ms")] + [f"{row['ratio']:.2f}"]
        shown.add_row(name, *figures)
    Console().print(shown)
    if out:
        write_json(document, out)


@app.command()
def wrappers(
    turns: Annotated[int, typer.Option(help="Turns of a conversation, in each toolkit.")] = 50, out: Out = None, model: Model = None, memory: Memory = None
) -> None:
    """What the LangChain and LlamaIndex wrappers cost a turn, beside the engine's own calls."""
    from rich.table import Table

    from lpm_core.training.embedded import environment
    from lpm_integrations.bench.files import write_json
    from lpm_integrations.bench.overhead import measure_wrappers

    with open_engine(model, memory) as engine:
        figures = measure_wrappers(engine, turns)
    shown = Table("toolkit", "turn p50 ms", "of it wrapper p50 ms", "wrapper p95 ms")
    for name, row in figures.items():
        shown.add_row(name, *(f"{row[key]:.2f}" for key in ("turn_ms_p50", "wrapper_ms_p50", "wrapper_ms_p95")))
    Console().print(shown)
    if out:
        write_json({"benchmark": "wrappers", "config": {"turns": turns}, "toolkits": figures, "environment": environment()}, out)


@app.command()
def mem0(
    data: Annotated[Path, typer.Option(help="locomo10.json, or a file of the same format.")],
    output: Annotated[Path, typer.Option(help="Folder for results.json, scores.json and summary.json. The same command again goes on there.")],
    backend: Annotated[Backend, typer.Option(help="What is behind the Mem0-style client.")] = Backend.lpm,
    conversations: Annotated[int | None, typer.Option(help="How many conversations, from the first on. Default: all.")] = None,
    prompt: Annotated[Path | None, typer.Option(help="Another answer prompt, with Mem0's {{placeholders}}.")] = None,
    answerer: Annotated[str | None, typer.Option(help="LangChain chat model that answers, as module:factory. Default: the backbone.")] = None,
    judge: Annotated[str | None, typer.Option(help="LangChain chat model that gives J, as module:factory. Default: J is absent.")] = None,
    model: Model = None,
    memory: Memory = None,
) -> None:
    """The Mem0 protocol on LoCoMo: its add calls, searches, prompts and scores, in its file format."""
    import json

    from lpm_integrations.bench.datasets.locomo import load_locomo
    from lpm_integrations.bench.mem0_protocol import ANSWER_PROMPT, TOP_K
    from lpm_integrations.bench.mem0_run import run_mem0
    from lpm_integrations.bench.models import BackboneAnswerer, ChatAnswerer, Judge
    from lpm_integrations.bench.progress import Bar
    from lpm_integrations.engines import shared_engine
    from lpm_integrations.mem0 import Memory as Client

    try:
        text = ANSWER_PROMPT if prompt is None else prompt.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"cannot read the prompt {str(prompt)!r} ({error}): name a text file") from error
    chosen = load_locomo(data)[:conversations]
    config = {"data": data.name, "conversations": len(chosen), "backend": backend.value, "top_k": TOP_K, "model": model, "memory": memory}
    judged = Judge(ChatAnswerer(judge)) if judge else None
    answers = ChatAnswerer(answerer) if answerer else BackboneAnswerer(shared_engine(model, memory, "sqlite://"))
    with Client(backend.value, output / "store", model=model, memory=memory) as client, Bar("mem0", Console(stderr=True)) as bar:
        document = run_mem0(chosen, client, answers, judged, output, prompt=text, config=config, bar=bar)
    Console().print_json(json.dumps({name: value for name, value in document.items() if name != "failures"}))
    Console().print("J is absent: no judge was named" if judged is None else f"J by {judged.name}", highlight=False, markup=False)


for _command in (agents, preferences, starts, compare, report, table):
    app.command()(_command)
