"""Synthetic people: who they are, how they tell it over several sessions, and what they are asked.

Facts, values, small talk, stories and what is told of others by their names are plain data (facts.toml, values.toml, talk.toml, stories.txt, joins.toml). Every split draws its own users,
its own wordings and its own values: nothing that a probe says, asks or expects occurs in the training stream.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Literal

from lpm_core.training.dialogues import Message
from lpm_core.training.events import Event, days, new_events, telling_days
from lpm_core.training.gleaning import glean
from lpm_core.training.invented import fill, invented_word
from lpm_core.training.naming import as_transcript
from lpm_core.training.people import UNKNOWN, FactType, Person, Question, Tool
from lpm_core.training.preferences import preference, with_options
from lpm_core.training.splits import Split, bucket, data, real
from lpm_core.training.splits import talk as split_talk
from lpm_core.training.splits import wordings as split_wordings
from lpm_core.training.stories import Story, read_stories

__all__ = ["UNKNOWN", "Corpus", "FactType", "Person", "Question", "Tool", "corpus_counts"]

_MADE_UP_POOLS = ("person", "pet", "place", "company", "food", "title", "object", "project", "date", "number", "code", "job")
_NO_LOWERCASE = ("I ", "I'", "{v}", "Dr.")
_FUNCTION_WORDS = frozenset({"the", "and", "with", "of", "in", "a", "for", "on", "to"})
_SPEAKER = FactType("speaker", "person", (), (), ())
_TRANSCRIPTS = 0.1  # of the people in training are one of two speakers by name
_CHOOSING = 0.3  # of the requests in training that do not name the fact that matters show the replies to choose from
_TRIES = 48  # messages of human dialogue that are looked at for one question
_ASKING = frozenset(
    """what what's whats which who who's whos whose where where's when how why do does did is are was were am i my me mine we our you your it its the a an of in on at
    to for from with by and or that this these those there have has had be been can could would will should called name named again now go get got so not as about""".split()  # noqa: SIM905
)
"""Words that stand in any question."""


@dataclass(frozen=True)
class _Telling:
    """What a turn is to tell: a fact's value, in place of an earlier one, an event, or a text; with the keys of what these tell."""

    fact: FactType | None = None
    value: str = ""
    instead: str | None = None
    text: str = ""
    keys: tuple[str, ...] = ()
    event: Event | None = None


@cache
def _asked_about(question: str) -> frozenset[str]:
    """The words of a question that tell what it is about."""
    return frozenset(re.findall(r"[a-z']+", question.lower())) - _ASKING


def _alike(questions: Iterable[str], others: Iterable[str]) -> bool:
    """Whether a question might as well be one of the others: what one is about is mostly what the other is about."""
    about = [_asked_about(other) for other in others]
    return any(2 * len(words & other) >= min(len(words), len(other)) for words in map(_asked_about, questions) for other in about)


@cache
def _value_first(wordings: tuple[str, ...]) -> tuple[str, ...]:
    """Those that name the value before what it is: the harder ones for a model that reads from left to right."""
    return tuple(text for text in wordings if text.find("{v}") <= len(text) // 3) or wordings


def _tool(row: Mapping[str, Any], **more: Sequence[str]) -> Tool:
    """A tool from a row of data, its lists with `more` of each."""
    values: dict[str, Any] = {key: (*value, *more.get(key, ())) if isinstance(value, list) else value for key, value in row.items()}
    return Tool(**values)


def _tools(split: Split) -> tuple[Tool, ...]:
    """The tools of a split; in training more of them, with more ways to ask."""
    rows = [row | {"requests": [*split_wordings(row["requests"], split)]} for row in data("tools.toml")["tool"]]
    if split != "train":
        return tuple(map(_tool, rows))
    added = data("tools_more.toml")
    return (*(_tool(row, **added["more"].get(row["name"], {})) for row in rows), *map(_tool, added["tool"]))


def _led_into(text: str) -> str:
    """A sentence as it goes on after other words."""
    return text if text.startswith(_NO_LOWERCASE) else text[0].lower() + text[1:]


def _expand(text: str, rng: random.Random) -> str:
    """One of the sentences that a wording with alternatives, [a|b], stands for."""
    return re.sub(r"\[([^]]*)\]", lambda match: rng.choice(match[1].split("|")), text)


def corpus_counts() -> dict[str, int]:
    """How many kinds of facts and tools there are, how many stories, and how many wordings to tell and to ask, over all splits."""
    facts, more = data("facts.toml")["fact"], data("wordings.toml").values()
    return {"facts": len(facts), "tools": len(_tools("train")), "stories": len(read_stories())} | {
        kind: sum(len(row[kind]) for row in (*facts, *more)) for kind in ("says", "asks")
    }


@dataclass
class Corpus:
    """Generator of people of one split.

    `dialogues` (optional) are mixed in as small talk, and words of them stand in for values now and then, so that
    the backbone learns to copy whatever stands in a value's place rather than a list of values.
    """

    split: Split = "train"
    dialogues: Sequence[Sequence[Message]] = ()
    fact_types: tuple[FactType, ...] = field(init=False)
    stories: tuple[Story, ...] = field(init=False, repr=False)
    tools: tuple[Tool, ...] = field(init=False, repr=False)
    _lexicon: list[str] = field(init=False, repr=False)
    _names: list[str] = field(init=False, repr=False)
    _spans: list[str] = field(init=False, repr=False)
    _held_out: set[str] = field(init=False, repr=False)
    _held_words: set[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        more: dict[str, dict[str, list[str]]] = data("wordings.toml") if self.split == "train" else {}

        def wordings(row: dict[str, Any], kind: str) -> tuple[str, ...]:
            return (*split_wordings(row[kind], self.split), *more.get(row["key"], {}).get(kind, ()))

        self.fact_types = tuple(
            FactType(row["key"], row["pool"], wordings(row, "says"), wordings(row, "asks"), tuple(row["names"])) for row in data("facts.toml")["fact"]
        )
        self.tools = _tools(self.split)
        held_values = [value for pool in data("values.toml") for value in real(pool, "test")]
        held_values += [value for pool in data("values_more.toml") for value in real(pool, "validation")]
        self._held_words = held_out = {word.lower() for value in held_values for word in value.split()} - _FUNCTION_WORDS
        counts: dict[str, int] = {}
        self._spans, rng = [], random.Random("spans")
        for dialogue in self.dialogues[:: max(1, len(self.dialogues) // 8000)]:
            for _, text in dialogue:
                spoken = re.findall(r"[A-Za-z][a-z]*(?:'[a-z]+)?", text)
                start, length = rng.randrange(len(spoken) + 1), rng.choice((1, 2, 2, 3, 3, 4))
                span = " ".join(spoken[start : start + length]).lower()
                if len(span) > 3 and not held_out & set(span.split()):
                    self._spans.append(span)
                for word in re.findall(r"(?<=[a-z,] )[A-Za-z][a-z]{3,10}", text):
                    counts[word] = counts.get(word, 0) + 1
        self._held_out = {text.lower().rstrip(".?!") for row in data("facts.toml")["fact"] for key in ("says", "asks") for text in row[key][-3:]}
        self.stories = tuple(self._fitting(story, held_values) for story in read_stories() if bucket(story.turns[0]) == self.split)
        words = sorted(word for word, count in counts.items() if 2 <= count <= 90 and word.lower() not in held_out)
        self._lexicon = [word for word in words if word.islower()]
        self._names = [word for word in words if not word.islower()]

    @property
    def systems(self) -> Sequence[str]:
        """System prompts that agents use."""
        systems: Sequence[str] = data("talk.toml")["systems"]
        return systems

    @property
    def notes(self) -> Sequence[str]:
        """Blocks of text in which memories that give text put `{lines}` of what was said."""
        notes: Sequence[str] = data("talk.toml")["notes"]
        return notes

    # ---------------------------------------------------------------- values

    def value(self, pool: str, rng: random.Random) -> tuple[str, bool]:
        """A value of a pool, and whether it is open-vocabulary (invented, not a known word)."""
        known = real(pool, self.split)
        draw = rng.random()
        if known and draw < (0.35 if self.split == "train" else 0.5):
            return rng.choice(known), False
        if self._lexicon and known and self.split == "train" and draw < 0.57:
            names = known[0][0].isupper()
            if draw < 0.45:
                span = rng.choice(self._spans)
                return (" ".join(map(str.capitalize, span.split())) if names else span), True
            words = " ".join(rng.choice(self._names if names and self._names and rng.random() < 0.6 else self._lexicon) for _ in range(rng.choice((1, 1, 2))))
            return (words.title() if names else words), True
        while True:
            pattern = rng.choice(data("values.toml")[pool]["invented"])
            value = fill(pattern, self.split, rng)
            if "{w" in pattern.lower() or bucket(value) == self.split:
                return value, True

    # ---------------------------------------------------------------- talk

    def talk(self, rng: random.Random) -> list[Message]:
        """One exchange that tells no fact: from a human dialogue if there are any, else from talk.toml."""
        if self.dialogues and rng.random() < 0.6:
            dialogue = rng.choice(self.dialogues)
            start = 2 * rng.randrange(max(1, len(dialogue) // 2))
            pair = dialogue[start : start + 2]
            if len(pair) == 2 and pair[0][0] == "user" and all(0 < len(text) <= 180 for _, text in pair):
                return [("user", pair[0][1]), ("assistant", pair[1][1])]
        said, answer = rng.choice(split_talk("chat", self.split))
        return [("user", said), ("assistant", answer)]

    def _tell(self, sentences: Sequence[str], rng: random.Random) -> str:
        """The sentences of one turn, dressed as people talk."""
        text = " ".join(sentences)
        if rng.random() < 0.25:
            opener = rng.choice(split_talk("openers", self.split))
            text = f"{opener} {_led_into(text) if opener.endswith(',') else text}"
        if rng.random() < 0.2:
            text = f"{text} {rng.choice(split_talk('closers', self.split))}"
        elif rng.random() < 0.1:
            chatter = self.talk(rng)[0][1]
            text = f"{text} {chatter}" if rng.random() < 0.5 else f"{chatter} {text}"
        return text

    def _reply(self, rng: random.Random) -> str:
        """What is said to a fact; in training often what people said to something else, so that replies do not tell where facts are."""
        if self.split == "train" and self.dialogues and rng.random() < 0.5:
            said = [text for role, text in rng.choice(self.dialogues) if role == "assistant" and 0 < len(text) <= 160]
            if said:
                return rng.choice(said)
        reply: str = rng.choice(split_talk("acks", self.split))
        return reply

    def _made_up(self, rng: random.Random) -> FactType:
        """A kind of fact that does not exist ("my harvest", "my cousin's dog"): training learns to match names, not a list of them."""
        relative = rng.choice(data("talk.toml")["relatives"])
        known = rng.choice(self.fact_types)
        draw = rng.random()
        if draw < 0.35 and known.names:
            name, pool = f"{relative}'s {rng.choice([name for name in known.names if chr(39) not in name] or list(known.names))}", known.pool
        else:
            words = [rng.choice(self._lexicon) if self._lexicon else invented_word(self.split, rng) for _ in range(rng.choice((1, 1, 2)))]
            name, pool = " ".join(words if draw < 0.8 else [f"{relative}'s", *words]), rng.choice(_MADE_UP_POOLS)
        return FactType(name, pool, (), (), (name,))

    def _worded(self, fact: FactType, kind: Literal["says", "asks"], rng: random.Random) -> str:
        """One way to tell a fact, or to ask for it: of its own or, in training, by its name in a frame."""
        own: tuple[str, ...] = getattr(fact, kind)
        if self.split != "train":
            return _expand(rng.choice(own), rng)
        chosen = _value_first if kind == "says" and rng.random() < 0.25 else tuple
        frames: tuple[str, ...] = chosen(tuple(data("talk.toml")[kind]))
        framed = not own or rng.random() >= 0.75
        while True:
            text = rng.choice(frames).replace("{n}", rng.choice(fact.names)) if framed else _expand(rng.choice(chosen(own)), rng)
            if not any(wording in text.lower() for wording in self._held_out):
                return text

    def _blur(self, text: str, share: float, rng: random.Random) -> str:
        """In training, some words replaced by others: what is left must do to tell what is meant, as with wordings never seen."""
        if self.split != "train" or not self._lexicon or rng.random() < 0.8:
            return text
        return re.sub(r"(?<![{'\w])[a-z]+(?![}'\w])", lambda match: rng.choice(self._lexicon) if rng.random() < share else match[0], text)

    def _say(self, fact: FactType, value: str, rng: random.Random) -> str:
        text = self._blur(self._worded(fact, "says", rng), 0.15, rng)
        if self.split == "train" and text.endswith("{v}.") and rng.random() < 0.25:
            text = f"{text[:-1]}{rng.choice(data('talk.toml')['tails'])}."
        text = text.replace("{v}", value)
        return text[0].upper() + text[1:]

    def _ask(self, fact: FactType, rng: random.Random) -> str:
        return self._dressed(self._blur(self._worded(fact, "asks", rng), 0.2, rng), rng)

    def _unlike(self, fact: FactType, others: Iterable[tuple[str, bool]], rng: random.Random) -> tuple[str, bool]:
        """A value for a fact that is none of the others."""
        taken = {value for value, _ in others}
        while (value := self.value(fact.pool, rng))[0] in taken:
            pass
        return value

    def _change(self, text: str, old: str, rng: random.Random) -> str:
        """A sentence that tells a new value, as one says it when the old one no longer holds."""
        frame = rng.choice(split_wordings(data("talk.toml")["changes"], self.split))
        text = frame.replace("{o}", old).replace("{s}", _led_into(text) if re.search(r"\w \{s}", frame) else text)
        return text[0].upper() + text[1:]

    def _framed(self, kind: str, fact: FactType, rng: random.Random) -> str:
        """A question about the value of now, or the earlier one, by the fact's name."""
        return rng.choice(split_wordings(data("talk.toml")[kind], self.split)).replace("{n}", rng.choice(fact.names))

    # ---------------------------------------------------------------- stories

    def _fitting(self, story: Story, held_out: Sequence[str]) -> Story:
        """A story without what is held out: in training, choices that are values of other splits, and questions that are theirs."""
        if self.split != "train":
            return story
        taken = {value.lower() for value in held_out}
        blanks = {
            name: "=" + "/".join(choice for choice in pool[1:].split("/") if choice.lower() not in taken) if pool.startswith("=") else pool
            for name, pool in story.blanks.items()
        }
        asks = tuple((text, blank) for text, blank in story.asks if text.lower().rstrip(".?!") not in self._held_out)
        return Story(story.turns, blanks, asks, tuple(text for text in story.untold if text.lower().rstrip(".?!") not in self._held_out))

    def _pick_stories(self, count: int, rng: random.Random) -> list[Story]:
        """Stories of which none might answer what is asked about another."""
        picked: list[Story] = []
        for story in rng.sample(self.stories, min(len(self.stories), 4 * count)):
            if len(picked) < count and story.asks and not any(self._confused(story, other) for other in picked):
                picked.append(story)
        return picked

    def _confused(self, story: Story, other: Story | FactType) -> bool:
        """Whether a question of a story might be one about another story, or about a fact, of the same kind of value."""
        pools = other.asked_pools if isinstance(other, Story) else {other.pool}
        if not story.asked_pools & pools:
            return False
        asks = [text for text, _ in other.asks] if isinstance(other, Story) else other.asks[:24]
        return _alike((text for text, _ in story.asks), asks)

    def _fill_blanks(self, story: Story, rng: random.Random) -> tuple[list[_Telling], dict[str, tuple[str, bool]]]:
        """A story's messages, and the values of its blanks."""
        plain = all(turn.islower() for turn in story.turns)
        lower = self.split == "train" and rng.random() < (0.5 if plain else 0.08)
        values: dict[str, tuple[str, bool]] = {}
        for name, pool in story.blanks.items():
            taken = {value.lower() for value, _ in values.values()}
            choices = [choice for choice in pool[1:].split("/") if choice.lower() not in taken] if pool.startswith("=") else []
            while True:
                value, is_open = (rng.choice(choices), False) if choices else self.value(pool.removeprefix("="), rng)
                if value.lower() not in taken:
                    break
            values[name] = (value.lower() if lower else value, is_open)
        told = replace(story, turns=tuple(self._blur(turn, 0.12, rng) for turn in story.turns))  # so that stories told again and again are not known by heart
        parts = told.told(lambda name: values[name][0])
        return [_Telling(text=text.lower() if lower else text, keys=tuple(names)) for text, names in parts], values

    def _glean(self, rng: random.Random) -> tuple[str, str, str] | None:
        """A message of a human dialogue, a question about a part of it, and the part; None where a few dozen messages have no part that is fit."""
        for _ in range(_TRIES):
            text = rng.choice(rng.choice(self.dialogues))[1]
            found = glean(text, rng) if len(text) <= 240 else None
            if found and not self._held_words & set(found[1].lower().split()):
                return text, self._dressed(found[0], rng), found[1]
        return None

    def _dressed(self, text: str, rng: random.Random) -> str:
        """In training, a question as it may come: after a few words, without its mark, in small letters."""
        if self.split == "train":
            if rng.random() < 0.1:
                text = f"{rng.choice(('Quick question:', 'Tell me,', 'Hey,', 'Remind me:', 'One question.', 'I forgot.'))} {text}"
            if rng.random() < 0.1:
                text = text.rstrip("?.")
            if rng.random() < 0.1:
                text = text.lower()
        return text

    # ---------------------------------------------------------------- joins

    def _attributes(self, fact: FactType, taken: Iterable[FactType]) -> list[FactType]:
        """What may be told of somebody by name: facts about the relation `fact`, none of which is told or asked for by itself."""
        stem = fact.key.partition("_")[0]
        used = {other.pool for other in taken if other.key.partition("_")[0] == stem}
        names = tuple(data("joins.toml")["relations"].get(fact.key, ()))
        attributes = data("joins.toml")["attribute"] if names else []
        return [
            FactType(f"{fact.key}.{row['pool']}", row["pool"], split_wordings(row["says"], self.split), split_wordings(row["asks"], self.split), names)
            for row in attributes
            if row["pool"] not in used
        ]

    def _say_of(self, name: str, fact: FactType, value: str, rng: random.Random) -> str:
        text = rng.choice(fact.says).replace("{p}", name).replace("{v}", value)
        return text[0].upper() + text[1:]

    def _ask_of(self, fact: FactType, rng: random.Random) -> str:
        text = rng.choice(fact.asks).replace("{r}", rng.choice(fact.names))
        return self._dressed(text, rng)

    # ---------------------------------------------------------------- people

    def person(
        self,
        rng: random.Random,
        facts: int,
        *,
        talk: float = 1.0,
        questions: int = 6,
        unknown: float = 0.2,
        sessions: int = 2,
        tools: int = 0,
        updates: float = 0.0,
        stories: int = 0,
        joins: int = 0,
        gleaned: int = 0,
        preferences: int = 0,
        dates: int = 0,
    ) -> Person:
        """A person who tells `facts` facts with about `talk` exchanges of small talk after each, and a share `updates` of them later anew.

        `questions` are asked about them, a share `unknown` of these about facts that were never told; with `tools` at
        hand, a third of them are requests that need a tool. Up to `stories` stories are told too, each asked about as
        often as two facts; and of up to `joins` people whose names are facts, something by their names. `gleaned` messages
        of human dialogues are asked about in their own words, and `dates` events are asked for their dates. The last `preferences` questions, or as many as the facts allow, are requests that
        do not name the fact that matters; in training, some have their replies in them to choose from.
        """
        chosen = self._pick_stories(stories, rng)
        usable = [fact for fact in self.fact_types if not any(self._confused(story, fact) for story in chosen)]
        types = rng.sample(usable, min(len(usable), facts + 8))
        if self.split == "train":
            types = list({fact.key: fact for fact in (self._made_up(rng) if rng.random() < 0.2 else fact for fact in types)}.values())
            facts = min(facts, len(types) - 1)
        told, untold = types[:facts], types[facts:]
        values: dict[str, tuple[str, bool]] = {}
        for fact in told:
            values[fact.key] = self._unlike(fact, values.values(), rng)
        pending = [_Telling(fact, values[fact.key][0]) for fact in told]
        old: dict[str, tuple[str, bool]] = {}
        for fact in [fact for fact in told if updates and rng.random() < updates]:
            old[fact.key], values[fact.key] = values[fact.key], self._unlike(fact, [*values.values(), *old.values()], rng)
            first = next(place for place, telling in enumerate(pending) if telling.fact is fact)
            pending.insert(rng.randint(first + 1, len(pending)), _Telling(fact, values[fact.key][0], old[fact.key][0]))
        joined: list[FactType] = []
        for fact in rng.sample(told, len(told)) if joins else ():
            if len(joined) < joins and (attributes := self._attributes(fact, types)):
                attribute = rng.choice(attributes)
                joined.append(attribute)
                values[attribute.key] = self._unlike(attribute, values.values(), rng)
                tellings = [_Telling(text=self._say_of(values[fact.key][0], attribute, values[attribute.key][0], rng), keys=(attribute.key,))]
                if rng.random() < 0.5:  # of somebody else, too
                    somebody, something = (self._unlike(kind, values.values(), rng)[0] for kind in (fact, attribute))
                    tellings.append(_Telling(text=self._say_of(somebody, attribute, something, rng)))
                for telling in tellings:
                    pending.insert(rng.randint(0, len(pending)), telling)
        blanks: list[dict[str, tuple[str, bool]]] = []
        for number, story in enumerate(chosen):
            tellings, filled = self._fill_blanks(story, rng)
            blanks.append(filled)
            places = sorted(rng.randint(0, len(pending)) for _ in tellings)
            for offset, (place, telling) in enumerate(zip(places, tellings, strict=True)):
                pending.insert(place + offset, replace(telling, keys=tuple(f"{number}.{name}" for name in telling.keys)))
        heard = [found for _ in range(gleaned if self.dialogues else 0) if (found := self._glean(rng))]
        for number, (text, _, _) in enumerate(heard):
            pending.insert(rng.randint(0, len(pending)), _Telling(text=text, keys=(f"heard.{number}",)))
        times = telling_days(rng, sessions, self.split) if dates else ()
        events = new_events(self.split, 2 * dates, lambda pool: self.value(pool, rng)[0], rng)
        never = [event for event in events[dates:] if not _alike((event.asked,), [other.asked for other in events[:dates]])]
        for number, event in enumerate(events[:dates]):
            pending.insert(rng.randint(0, len(pending)), _Telling(keys=(f"event.{number}",), event=event))
        happened: dict[str, str] = {}
        turns: list[Message] = []
        marks: list[int] = []
        where: dict[str, int] = {}
        before: dict[str, int] = {}
        count = len(pending)
        while pending:
            batch, pending = (pending[:2], pending[2:]) if len(pending) > 1 and rng.random() < 0.12 else (pending[:1], pending[1:])
            session = (count - len(pending) - 1) * sessions // max(1, count)
            said = []
            for telling in batch:
                if telling.fact is None:
                    where |= dict.fromkeys(telling.keys, len(turns))
                    text = telling.text
                    if telling.event:
                        text, happened[telling.keys[0]] = telling.event.tell(times[session], rng)
                    said.append(text)
                    continue
                fact = telling.fact
                (before if fact.key in old and telling.instead is None else where)[fact.key] = len(turns)
                text = self._say(fact, telling.value, rng)
                said.append(text if telling.instead is None else self._change(text, telling.instead, rng))
            exchanges = [[("user", self._tell(said, rng)), ("assistant", self._reply(rng))]]
            exchanges += [self.talk(rng) for _ in range(int(talk + rng.random()))]
            for exchange in exchanges:
                turns.extend(exchange)
                marks.extend([session] * len(exchange))
        kit = self._kit(rng, tools, [fact.key for fact in told])
        apart = [Question(text, answer, "heard", where[f"heard.{number}"], True, "story") for number, (_, text, answer) in enumerate(heard)][:questions]
        for number in range(min(dates, questions - len(apart))):
            key = f"event.{number}"
            if never and rng.random() < unknown:
                apart.append(Question(self._dressed(rng.choice(never).ask(rng), rng), UNKNOWN, "event", None))
            else:
                apart.append(Question(self._dressed(events[number].ask(rng), rng), happened[key], key, where[key], True, "dated"))
        questions -= len(apart)
        asked: list[Question] = []
        for _ in range(round(questions * 2 * len(chosen) / (2 * len(chosen) + facts))):
            number = rng.randrange(len(chosen))
            if rng.random() < unknown:
                asked.append(self._about_nothing(chosen, told, rng))
                continue
            text, name = rng.choice(chosen[number].asks)
            answer, is_open = blanks[number][name]
            asked.append(Question(self._dressed(self._blur(text, 0.15, rng), rng), answer, f"story.{name}", where[f"{number}.{name}"], is_open, "story"))
        for _ in range(round((questions - len(asked)) * len(joined) / (len(joined) + facts)) if joined else 0):
            attribute = rng.choice(joined)
            answer, is_open = values[attribute.key]
            name = attribute.key.rpartition(".")[0]  # the fact that is the name
            through = where[name], values[name][0]
            asked.append(Question(self._ask_of(attribute, rng), answer, attribute.key, where[attribute.key], is_open, "joined", through=through))
        questions -= len(asked)
        rounds = [rng.sample(told, min(facts, questions - start)) for start in range(0, questions, facts)]  # each fact once before any again
        for fact in (fact for row in rounds for fact in row):
            if kit and rng.random() < 0.4:
                asked.append(self._request(rng.choice(kit), values, where, rng))
            elif rng.random() < unknown:
                other = rng.choice(untold)
                asked.append(Question(self._ask(other, rng), UNKNOWN, other.key, None))
            elif fact.key in old and rng.random() < 0.35:
                answer, is_open = old[fact.key]
                asked.append(Question(self._framed("earlier", fact, rng), answer, fact.key, before[fact.key], is_open, "earlier"))
            else:
                answer, is_open = values[fact.key]
                changed = fact.key in old
                text = self._framed("now", fact, rng) if changed and rng.random() < 0.4 else self._ask(fact, rng)
                asked.append(Question(text, answer, fact.key, where[fact.key], is_open, "update" if changed else "single"))
        asked += apart
        if chosen or joined or heard or dates:
            rng.shuffle(asked)
        if preferences:
            implicit = self._preferences(min(preferences, len(asked)), told, values, where, rng)
            asked[len(asked) - len(implicit) :] = implicit
        person = Person(tuple(turns), tuple(marks), tuple(asked), kit, times or days(rng, sessions))
        if self.split == "train" and not kit and not preferences and rng.random() < _TRANSCRIPTS:
            speaker, listener = (self._unlike(_SPEAKER, values.values(), rng)[0] for _ in range(2))
            return as_transcript(person, (speaker, listener), rng)
        return person

    def _preferences(
        self, count: int, told: Sequence[FactType], values: dict[str, tuple[str, bool]], where: dict[str, int], rng: random.Random
    ) -> list[Question]:
        """Requests for which one of the told facts matters, at most `count`."""
        fitting = [fact for fact in told if fact.key in data("preferences.toml")]
        found = []
        for fact in rng.sample(fitting, min(count, len(fitting))):
            value, is_open = values[fact.key]
            others: list[tuple[str, bool]] = []
            while len(others) < 2:
                others.append(self._unlike(fact, [*values.values(), *others], rng))
            choice = [value, *(other for other, _ in others)]
            question = preference(fact.key, choice, where[fact.key], self.split, rng, is_open=is_open)
            found.append(with_options(question) if self.split == "train" and rng.random() < _CHOOSING else question)
        return found

    def _about_nothing(self, chosen: Sequence[Story], told: Sequence[FactType], rng: random.Random) -> Question:
        """A question that a story sounds as if it answered; or one of another story, or about a fact, that was not told."""
        near = [text for story in chosen for text in story.untold]
        if near and rng.random() < 0.6:
            return Question(self._dressed(rng.choice(near), rng), UNKNOWN, "story", None)
        others: list[Story | FactType] = [*chosen, *told]
        for story in rng.choices(self.stories, k=64):
            if story.asks and story not in chosen and not any(self._confused(story, other) for other in others):
                return Question(self._dressed(rng.choice(story.asks)[0], rng), UNKNOWN, "story", None)
        other = rng.choice([fact for fact in self.fact_types if fact not in told and not any(self._confused(story, fact) for story in chosen)])
        return Question(self._ask(other, rng), UNKNOWN, other.key, None)

    def _kit(self, rng: random.Random, count: int, told: Sequence[str]) -> tuple[Tool, ...]:
        """`count` tools, most of which need a fact that was told."""
        fitting = [tool for tool in self.tools if tool.fact in told]
        kit = [rng.choice(fitting) if fitting and rng.random() < 0.8 else rng.choice(self.tools) for _ in range(count)]
        return tuple({tool.name: self._renamed(tool, rng) for tool in kit}.values())

    def _renamed(self, tool: Tool, rng: random.Random) -> Tool:
        """In training, half of the tools by other names than their own."""
        if self.split != "train" or rng.random() < 0.5:
            return tool

        def named(forms: str, own: str) -> str:
            text: str = rng.choice(data("tools.toml")[forms]).replace("{n}", own)
            return re.sub(r"\{w\}", lambda _: rng.choice(self._lexicon) if self._lexicon else invented_word(self.split, rng), text)

        name = named("names", tool.name.partition("_")[2])
        return replace(tool, name=name, parameter=named("parameters", tool.parameter) if rng.random() < 0.5 else tool.parameter)

    def _request(self, tool: Tool, values: dict[str, tuple[str, bool]], where: dict[str, int], rng: random.Random) -> Question:
        """A request for a tool: by a fact, told or not, or with the value in the request."""
        result = rng.choice(tool.results)
        reply = rng.choice(tool.answers).replace("{r}", result)
        named = rng.random() < 0.3
        if not named and tool.fact not in values:
            return Question(rng.choice(tool.requests), UNKNOWN, tool.fact, None)
        pool = next(fact.pool for fact in self.fact_types if fact.key == tool.fact)
        value, is_open = self.value(pool, rng) if named else values[tool.fact]
        text = rng.choice(tool.direct).replace("{v}", value) if named else rng.choice(tool.requests)
        call = json.dumps({"name": tool.name, "arguments": {tool.parameter: value}}, ensure_ascii=False)
        evidence = None if named else where[tool.fact]
        return Question(text, call, tool.fact, evidence, is_open, tool=tool, result=json.dumps({tool.field: result}, ensure_ascii=False), reply=reply)

    def people(self, seed: int, count: int, facts: int, **options: Any) -> Iterator[Person]:
        """`count` people that depend on split and seed alone."""
        for index in range(count):
            yield self.person(random.Random(f"{self.split}/{seed}/{index}"), facts, **options)

    def texts(self, rng: random.Random, count: int) -> Iterator[str]:
        """Plain text for training a tokenizer: turns of people and of human dialogues."""
        for _ in range(count):
            person = self.person(rng, rng.randint(1, 8))
            yield from (text for _, text in person.turns)
            yield from (f"{question.text}\n{question.answer}" for question in person.questions)
            if self.dialogues:
                yield from (text for _, text in rng.choice(self.dialogues))
