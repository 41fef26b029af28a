"""Splits of the corpus share no user, no wording and no value."""

from __future__ import annotations

import random
import re

import pytest

from lpm_core.training.corpus import UNKNOWN, Corpus
from lpm_core.training.gleaning import glean
from lpm_core.training.naming import about
from lpm_core.training.splits import data, real, share, talk, wordings
from lpm_core.training.stories import read_stories

_DIALOGUES = [[("user", "hello there my friend lasagna"), ("assistant", "hello"), ("user", "what about gardens"), ("assistant", "gardens are nice")]] * 50


def _stream(split: str, people: int, dialogues: list[list[tuple[str, str]]] | None = None) -> tuple[str, set[str], set[str]]:
    corpus = Corpus(split, dialogues or [])  # type: ignore[arg-type]
    texts, values, asked = [], set(), set()
    for person in corpus.people(1, people, 8):
        texts += [text for _, text in person.turns]
        values |= {question.answer for question in person.questions if question.answer != UNKNOWN}
        asked |= {question.text for question in person.questions}
    return "\n".join(texts), values, asked


def test_no_held_out_wording_or_value_occurs_in_training() -> None:
    text, values, asked = _stream("train", 1500, _DIALOGUES)
    _, test_values, test_asked = _stream("test", 400)
    _, validation_values, _ = _stream("validation", 400)

    assert not values & test_values
    assert not asked & test_asked
    held_out_says = [says for fact in data("facts.toml")["fact"] for says in wordings(fact["says"], "test")]
    for person in Corpus("train", _DIALOGUES).people(1, 600, 8):  # type: ignore[arg-type]
        for question in person.questions:
            if question.evidence is not None:
                told = person.turns[question.evidence][1].replace(question.answer, "{v}")
                assert not [says for says in held_out_says if says.rstrip(".") in told]
    words = set(re.findall(r"[\w']+", text.lower()))
    held_out = [value for pool in data("values.toml").values() for value in share(pool["real"], "test")]
    assert not [value for value in held_out if value.lower() in values]
    invented = {value for value in test_values if re.fullmatch(r"[A-Za-z]{6,}", value) and value not in held_out}
    assert not {value.lower() for value in invented} & words
    assert validation_values


def test_wordings_of_the_splits_are_disjoint() -> None:
    for fact in data("facts.toml")["fact"]:
        for key in ("says", "asks"):
            splits = [set(wordings(fact[key], split)) for split in ("train", "validation", "test")]
            assert all(splits)
            assert sum(map(len, splits)) == len(set().union(*splits)) == len(fact[key])


def test_answers_stand_in_the_turn_that_is_named_as_evidence() -> None:
    for person in Corpus("test").people(3, 200, 8, questions=8):
        for question in person.questions:
            if question.evidence is None:
                assert question.answer == UNKNOWN
            else:
                role, text = person.turns[question.evidence]
                assert role == "user"
                assert question.answer.lower() in text.lower()


def test_what_two_turns_tell_together_names_the_turn_that_leads_there() -> None:
    joined = [
        (person, question)
        for person in Corpus("validation").people(3, 40, 8, questions=8, joins=3)
        for question in person.questions
        if question.kind == "joined"
    ]
    assert joined
    for person, question in joined:
        assert question.through is not None
        assert question.evidence is not None
        turn, name = question.through
        assert name.lower() in person.turns[turn][1].lower()
        assert name.lower() in person.turns[question.evidence][1].lower()
        assert name.lower() not in question.text.lower()


def test_people_depend_on_split_and_seed_alone() -> None:
    assert list(Corpus("test").people(7, 5, 4)) == list(Corpus("test").people(7, 5, 4))
    assert list(Corpus("test").people(7, 5, 4)) != list(Corpus("test").people(8, 5, 4))


def test_untold_questions_are_about_facts_nobody_told() -> None:
    for person in Corpus("train").people(5, 100, 3, questions=12, unknown=0.5):
        told = {question.key for question in person.questions if question.evidence is not None}
        untold = {question.key for question in person.questions if question.evidence is None}
        assert not told & untold


def test_words_of_human_dialogue_stand_in_for_values_but_never_held_out_ones() -> None:
    corpus = Corpus("train", _DIALOGUES)
    rng = random.Random(0)

    values = {corpus.value("food", rng)[0] for _ in range(2000)}

    assert not any("lasagna" in value for value in values)


def test_what_changes_is_told_anew_later_and_asked_for_both_ways() -> None:
    for split in ("train", "validation", "test"):
        people = list(Corpus(split).people(5, 40, 6, updates=0.5, questions=12))
        kinds = {question.kind for person in people for question in person.questions}
        assert kinds == {"single", "update", "earlier"}
        for person in people:
            of = {kind: {question.key: question for question in person.questions if question.kind == kind} for kind in kinds}
            for key, earlier in of["earlier"].items():
                assert earlier.evidence is not None
                assert earlier.answer.lower() in person.turns[earlier.evidence][1].lower()
                if update := of["update"].get(key):
                    assert update.evidence is not None
                    assert update.evidence >= earlier.evidence
                    assert update.answer.lower() in person.turns[update.evidence][1].lower()
                    assert update.answer != earlier.answer


def test_without_updates_people_are_as_before() -> None:
    assert all(question.kind == "single" for person in Corpus("test").people(0, 20, 8) for question in person.questions)


def test_frames_of_changes_are_held_out() -> None:
    for kind in ("changes", "now", "earlier"):
        frames = data("talk.toml")[kind]
        shown = {split: set(wordings(frames, split)) for split in ("train", "validation", "test")}
        assert all(shown.values())
        assert sum(map(len, shown.values())) == len(frames) == len(set.union(*shown.values()))


def test_stories_are_told_and_asked_about_in_every_split() -> None:
    texts = {split: {turn for story in Corpus(split).stories for turn in story.turns} for split in ("train", "validation", "test")}
    assert all(texts.values())
    assert not texts["train"] & texts["test"]
    assert not texts["train"] & texts["validation"]
    assert not texts["validation"] & texts["test"]
    for split in ("train", "validation", "test"):
        people = list(Corpus(split).people(2, 60, 4, questions=10, stories=3))
        told = [(question, person) for person in people for question in person.questions if question.kind == "story"]
        assert told
        assert all(len(person.questions) == 10 for person in people)
        for question, person in told:
            assert question.evidence is not None
            assert question.answer.lower() in person.turns[question.evidence][1].lower()


def test_every_story_has_blanks_that_can_be_filled_and_questions_about_them() -> None:
    pools = set(data("values.toml"))
    for story in read_stories():
        assert story.asks
        assert {blank for _, blank in story.asks} <= set(story.blanks)
        for pool in story.blanks.values():
            assert pool in pools or (pool.startswith("=") and len(set(pool[1:].split("/"))) > 1)


def test_no_story_asks_in_held_out_words_or_offers_held_out_values_in_training() -> None:
    held_out = {value.lower() for pool in data("values.toml") for value in real(pool, "test")}
    asked = {text.rstrip(".?!").lower() for fact in data("facts.toml")["fact"] for text in wordings(fact["asks"], "test")}
    for story in Corpus("train").stories:
        assert not {choice.lower() for pool in story.blanks.values() if pool.startswith("=") for choice in pool[1:].split("/")} & held_out
        assert not {text.rstrip(".?!").lower() for text, _ in story.asks} & asked


def test_joined_questions_need_the_name_that_another_turn_tells() -> None:
    for split in ("train", "validation", "test"):
        people = list(Corpus(split).people(4, 120, 8, questions=12, joins=3))
        joined = [(question, person) for person in people for question in person.questions if question.kind == "joined"]
        assert joined
        for question, person in joined:
            assert question.evidence is not None
            told = person.turns[question.evidence][1]
            assert question.answer.lower() in told.lower()
            relation = data("joins.toml")["relations"][question.key.partition(".")[0]]
            assert any(name.removeprefix("my ") in question.text.lower() for name in relation)


def test_frames_of_joins_are_held_out() -> None:
    for row in data("joins.toml")["attribute"]:
        for kind in ("says", "asks"):
            shown = {split: set(wordings(row[kind], split)) for split in ("train", "validation", "test")}
            assert all(shown.values())
            assert sum(map(len, shown.values())) == len(row[kind]) == len(set.union(*shown.values()))


def test_questions_are_gleaned_from_human_dialogue_and_answered_by_their_message() -> None:
    talk = [[("user", "I watched The Red Barn with my cousin last night."), ("assistant", "I will book 3 tickets for Lisbon on Friday.")]]
    corpus = Corpus("train", talk * 3)
    people = [corpus.person(random.Random(number), 3, questions=8, gleaned=2) for number in range(20)]

    gleaned = [(question, person) for person in people for question in person.questions if question.key == "heard"]

    assert all(len(person.questions) == 8 for person in people)
    assert len({question.answer for question, _ in gleaned}) > 1
    for question, person in gleaned:
        assert question.evidence is not None
        assert question.answer in person.turns[question.evidence][1]
        assert question.answer not in question.text
        assert question.text.lower() not in person.turns[question.evidence][1].lower()


def test_what_a_story_sounds_as_if_it_told_is_answered_by_nothing() -> None:
    near = {text.lower().rstrip("?.") for story in Corpus("train").stories for text in story.untold}
    people = list(Corpus("train").people(0, 60, 3, questions=10, unknown=0.5, stories=2))
    asked = [question for person in people for question in person.questions if question.text.lower().rstrip("?.") in near and question.evidence is None]

    assert len(asked) > 20
    assert all(question.answer == UNKNOWN for question in asked)


def test_dialogues_without_a_part_to_ask_for_are_no_obstacle() -> None:
    corpus = Corpus("train", [[("user", "Hi."), ("assistant", "Hello.")]])

    assert len(corpus.person(random.Random(0), 3, questions=5, gleaned=2).questions) == 5


def test_a_word_that_begins_like_a_number_is_not_asked_for_as_one() -> None:
    found = [glean("My cousin is into sailing and about tennis, as you know.", random.Random(number)) for number in range(60)]
    asked = [text.lower() for text, part in filter(None, found) if part == "tennis"]

    assert asked
    assert not [text for text in asked if any(word in text for word in ("how many", "how much", "what number"))]


@pytest.mark.parametrize(
    ("question", "told"),
    [
        ("Where do I work?", "Where does Ana work?"),
        ("What is my sister called?", "What is Ana's sister called?"),
        ("Who gave me the lamp?", "Who gave Ana the lamp?"),
        ("What am I allergic to?", "What is Ana allergic to?"),
        ("Which car have we bought?", "Which car has Ana bought?"),
    ],
)
def test_questions_are_asked_about_somebody_by_name(question: str, told: str) -> None:
    assert about(question, "Ana") == told


def test_some_people_in_training_are_speakers_by_name_and_none_elsewhere() -> None:
    for split in ("train", "validation"):
        people = list(Corpus(split).people(3, 200, 4, questions=6))
        named = [person for person in people if all(re.match(r"[^.?!:]{1,40}: ", text) for _, text in person.turns)]
        assert bool(named) == (split == "train")
        for person in named:
            speaker = person.turns[0][1].partition(":")[0]
            assert sum(speaker in question.text for question in person.questions) > 0
            for question in person.questions:
                assert question.evidence is None or question.answer.lower() in person.turns[question.evidence][1].lower()


@pytest.mark.parametrize("kind", ["acks", "openers", "closers", "chat"])
def test_small_talk_of_every_split_is_its_own(kind: str) -> None:
    shown = {split: [str(item) for item in talk(kind, split)] for split in ("train", "validation", "test")}

    assert all(shown.values())
    assert sum(map(len, shown.values())) == len({item for items in shown.values() for item in items})


def test_replies_in_training_do_not_tell_where_facts_are() -> None:
    corpus = Corpus("train", [[("user", "I saw a film."), ("assistant", f"It was number {number} of them.")] for number in range(40)])
    people = [corpus.person(random.Random(number), 6, talk=0.0) for number in range(40)]
    replies = [text for person in people for role, text in person.turns if role == "assistant"]

    assert 0.3 < sum("of them." in reply for reply in replies) / len(replies) < 0.7


def test_requests_for_tools_are_held_out_and_more_tools_are_for_training_alone() -> None:
    training, test, validation = (Corpus(split).tools for split in ("train", "test", "validation"))

    assert [tool.name for tool in test] == [tool.name for tool in validation] == [tool.name for tool in training[: len(test)]]
    assert len(training) == len({tool.name for tool in training}) > 2 * len(test)
    facts = {fact.key for fact in Corpus("train").fact_types}
    plain = {re.sub(r"[^a-z ]", "", request.lower()) for tool in training for request in tool.requests}
    for tool in (*test, *validation):
        for request in tool.requests:
            assert not [own for own in plain if re.sub(r"[^a-z ]", "", request.lower()) in own]
    for tool in training:
        assert tool.fact in facts
        assert all("{v}" in text for text in tool.direct)
        assert all("{r}" in text for text in tool.answers)
        assert not [text for text in tool.requests if "{" in text]


def test_requests_that_do_not_name_the_fact_that_matters_have_four_replies_of_which_one_makes_use_of_it() -> None:
    for split, forms in (("train", 2), ("test", 1)):
        seen = set()
        for person in Corpus(split).people(0, 80, 8, questions=8, preferences=2):
            assert len(person.questions) == 8
            for question in person.questions:
                if question.kind != "preference":
                    continue
                assert question.evidence is not None
                assert question.value.lower() in person.turns[question.evidence][1].lower()
                assert len(set(question.options)) == 4
                chosen = question.answer.startswith("<final_answer>")
                seen.add(chosen)
                if chosen:
                    assert all(option in question.text for option in question.options)
                    assert question.value in question.options["abcd".index(question.answer[-2])]
                else:
                    assert question.answer in question.options
                    assert question.value in question.answer
                    assert question.value.lower() not in question.text.lower()
        assert len(seen) == forms
