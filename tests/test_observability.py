"""Spans, counters and log records tell figures of the work, and never a word or a name of anybody."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from store_kit import sql

from lpm_core import LPM, InvalidInputError, LPMError, StoreCorruptError, StoreUnavailableError, UnknownUserError, telemetry
from lpm_core.consolidation import ConsolidationRecipe
from lpm_core.store import MemoryStore

MARKER = "swordfish"
USER = "ann-dolphin"
SESSION = "session-octopus"
SECRETS = (MARKER, USER, SESSION)
RECIPE = ConsolidationRecipe(steps=1, questions=1)


class Heard:
    """What an application hears that has set providers."""

    def __init__(self) -> None:
        self.exporter, self.reader = InMemorySpanExporter(), InMemoryMetricReader()
        provider = trace.get_tracer_provider()
        if not isinstance(provider, TracerProvider):  # another package of this process may have set one
            provider = TracerProvider()
            trace.set_tracer_provider(provider)
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        metrics.set_meter_provider(MeterProvider(metric_readers=[self.reader]))

    def spans(self) -> list[ReadableSpan]:
        return [span for span in self.exporter.get_finished_spans() if span.name.startswith("lpm.")]

    def points(self) -> dict[tuple[str, str], Any]:
        """The data points by figure and operation."""
        data: Any = self.reader.get_metrics_data()
        found = [
            (metric.name, point)
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            for point in metric.data.data_points
        ]
        return {(name, point.attributes["lpm.operation"]): point for name, point in found if name.startswith("lpm.")}

    def everything(self) -> str:
        return "".join(span.to_json() for span in self.spans()) + self.reader.get_metrics_data().to_json()


@pytest.fixture(scope="session")
def providers() -> Heard:
    return Heard()


@pytest.fixture
def heard(providers: Heard) -> Heard:
    providers.exporter.clear()
    return providers


def test_every_operation_is_a_span_with_counts_alone(tiny: LPM, heard: Heard) -> None:
    ids = tiny.remember(USER, [{"role": "user", "content": "I live in Oslo."}, {"role": "assistant", "content": "Nice!"}])
    answer = tiny.ask(USER, "Where?", max_new_tokens=3)
    stream = tiny.stream(USER, "Where?", max_new_tokens=3)
    list(stream)
    tiny.recall(USER, "Where?")
    tiny.consolidate(USER, RECIPE)
    tiny.forget(USER, turn_ids=ids[:1])
    tiny.expire(ttl=timedelta(days=1))
    tiny.forget_user(USER)

    spans = {span.name: span for span in heard.spans()}
    assert set(spans) == {
        f"lpm.{name}" for name in ("remember", "rebuild", "page", "recall", "ask", "stream", "consolidate", "forget", "expire", "forget_user")
    }
    assert all(type(value) is int for span in heard.spans() for value in (span.attributes or {}).values())
    usage = answer.usage
    wanted = {"lpm.prompt_tokens": usage.prompt_tokens, "lpm.soft_tokens": 4, "lpm.output_tokens": usage.output_tokens}
    assert dict(spans["lpm.ask"].attributes or {}) == wanted
    assert dict(spans["lpm.stream"].attributes or {})["lpm.output_tokens"] == stream.usage.output_tokens
    assert dict(spans["lpm.remember"].attributes or {}) == {"lpm.turns": 2}
    assert dict(spans["lpm.forget"].attributes or {}) == {"lpm.turns": 1, "lpm.pages": 1, "lpm.sessions": 0}


def test_what_an_operation_calls_is_inside_its_span(tiny: LPM, heard: Heard) -> None:
    tiny.remember(USER, "I live in Oslo.")

    remember, rebuild, page = (next(span for span in heard.spans() if span.name == f"lpm.{name}") for name in ("remember", "rebuild", "page"))

    assert [span.parent and span.parent.span_id for span in (rebuild, page)] == [span.get_span_context().span_id for span in (remember, rebuild)]
    assert dict(page.attributes or {})["lpm.pages"] == 1


def test_counters_add_up_by_operation(tiny: LPM, heard: Heard) -> None:
    def counted(name: str, operation: str) -> int:
        point = heard.points().get((name, operation))
        return 0 if point is None else point.value

    before = counted("lpm.turns", "remember"), counted("lpm.turns", "forget_user"), counted("lpm.pages", "page")
    for text in ("One.", "Two.", "Three."):
        tiny.remember(USER, text, session_id=text)
    tiny.forget_user(USER)

    after = counted("lpm.turns", "remember"), counted("lpm.turns", "forget_user"), counted("lpm.pages", "page")
    assert [new - old for new, old in zip(after, before, strict=True)] == [3, 3, 3]
    assert heard.points()["lpm.duration", "remember"].sum > 0


def test_a_failure_is_told_by_the_name_of_its_class(tiny: LPM, heard: Heard, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="lpm_core"), pytest.raises(UnknownUserError, match=USER):
        tiny.forget(USER, session_id=SESSION)

    (span,) = heard.spans()
    assert (span.status.status_code, span.status.description, span.events) == (trace.StatusCode.ERROR, "UnknownUserError", ())
    assert caplog.records[-1].lpm["error"] == "UnknownUserError"  # type: ignore[attr-defined]
    assert "error.type" in heard.reader.get_metrics_data().to_json()  # type: ignore[union-attr]


def test_a_stream_that_nobody_hears_to_its_end_is_told_too(tiny: LPM, heard: Heard) -> None:
    tiny.remember(USER, "I live in Oslo.")
    stream = tiny.stream(USER, "Where?", max_new_tokens=30)
    next(stream)
    assert "lpm.stream" not in [span.name for span in heard.spans()]

    del stream

    (span,) = [span for span in heard.spans() if span.name == "lpm.stream"]
    assert span.status.is_unset


async def test_async_calls_are_children_of_what_awaits_them(tiny: LPM, heard: Heard) -> None:
    with trace.get_tracer("test").start_as_current_span("outside") as outside:
        await asyncio.gather(tiny.aremember(USER, "One."), tiny.aremember("bob", "Two."))

    spans = [span for span in heard.spans() if span.name == "lpm.remember"]
    assert [span.parent and span.parent.span_id for span in spans] == [outside.get_span_context().span_id] * 2


def test_without_the_package_the_log_records_are_all_there_is(tiny: LPM, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    monkeypatch.setattr(telemetry, "_instruments", telemetry._instruments.__wrapped__)

    tiny.remember(USER, "I live in Oslo.")
    assert caplog.records == []
    with caplog.at_level(logging.DEBUG, logger="lpm_core.telemetry"):
        list(tiny.stream(USER, "Where?", max_new_tokens=3))

    records = {record.lpm["operation"]: record for record in caplog.records}  # type: ignore[attr-defined]
    assert set(records) == {"recall", "stream"}
    figures = records["stream"].lpm  # type: ignore[attr-defined]
    assert (figures["soft_tokens"], figures["error"]) == (4, "")
    assert figures["seconds"] > 0
    assert "soft_tokens 4" in records["stream"].getMessage()


# Nothing personal is in what is told


def _everything(engine: LPM, path: Path, folder: Path) -> list[LPMError]:
    """All that the engine does, what goes well and what fails, on turns with a marker in them; returns the errors of the store."""
    errors: list[LPMError] = []
    text = f"The {MARKER} is safe."
    ids = engine.remember(USER, [{"role": "user", "content": text}, {"role": "tool", "content": text}], session_id=SESSION)
    engine.remember(USER, text, session_id=SESSION)
    engine.ask(USER, f"Where is the {MARKER}?", max_new_tokens=3)
    list(engine.stream(USER, f"Where is the {MARKER}?", max_new_tokens=3))
    engine.recall(USER, MARKER)
    engine.consolidate(USER, RECIPE)
    engine.stats(USER)
    engine.export(USER, folder / "export.lpm")
    names = {"backbone": engine.backbone.fingerprint, "weights": engine.weights.fingerprint}
    pages = [replace(page, slots=page.slots * 1000) for page in engine.store.pages(USER, **names)]
    engine.store.replace_pages(USER, SESSION, pages, from_index=0, version=engine.store.version(USER), **names)
    engine._drop_cache()
    engine.recall(USER, MARKER)
    engine.release(USER)
    for wrong in ({"role": "nobody", "content": text}, {"role": "user", "content": ""}):
        with pytest.raises(InvalidInputError):
            engine.remember(USER, wrong, session_id=SESSION)
    with pytest.raises(UnknownUserError):
        engine.consolidate(f"{USER}-2")
    sql(path, "UPDATE pages SET tokens = tokens + 1")
    engine._drop_cache()
    engine.recall(USER, MARKER)
    sql(path, f"UPDATE turns SET content = '{text}' WHERE position = 1")
    engine._drop_cache()
    for call in (engine.recall, engine.ask):
        with pytest.raises(StoreCorruptError) as caught:
            call(USER, MARKER)
        errors.append(caught.value)
    engine.doctor(repair=True, drop_damaged=True)
    engine.forget(USER, turn_ids=ids)
    engine.restore(folder / "export.lpm")
    (folder / "export.lpm").write_bytes((folder / "export.lpm").read_bytes()[:-70] + bytes(70))
    with pytest.raises(StoreCorruptError) as caught:
        engine.restore(folder / "export.lpm")
    errors.append(caught.value)
    with MemoryStore(engine.store.database.engine.url.render_as_string()) as other, other.database.begin(write=True):
        with pytest.raises(StoreUnavailableError) as locked:
            engine.remember(USER, text, session_id=SESSION)
    errors.append(locked.value)
    engine.forget_user(USER)
    return errors


@pytest.mark.parametrize("level", [logging.DEBUG, logging.WARNING])
def test_no_text_and_no_name_is_in_a_record_a_span_a_counter_or_an_error_of_the_store(
    tiny: LPM, path: Path, url: str, tmp_path: Path, heard: Heard, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, level: int
) -> None:
    monkeypatch.setattr("lpm_core.storage.database._BUSY_MS", 50)
    with caplog.at_level(level, logger="lpm_core"), tiny.on_store(url) as engine:
        errors = _everything(engine, path, tmp_path)

    records = [record for record in caplog.records if record.name.startswith("lpm_core")]
    told = [json.dumps(vars(record), default=str) + record.getMessage() for record in records]
    assert {record.levelno for record in records} >= {logging.WARNING}
    assert ("lpm_core.telemetry" in {record.name for record in records}) == (level == logging.DEBUG)
    assert len(heard.spans()) > 20
    for words in (*told, heard.everything(), *map(str, errors)):
        assert [secret for secret in SECRETS if secret in words] == []
