"""Scores of one answer, as the protocols' own code computes them: LoCoMo's metric, Mem0's F1 and BLEU-1, retrieval recall."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Collection, Sequence
from functools import cache
from importlib import import_module
from typing import Any

from lpm_core.exceptions import InvalidInputError, MissingDependencyError

__all__ = ["locomo_f1", "mem0_bleu1", "mem0_f1", "retrieval_recall"]

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the|and)\b")
_REFUSALS = ("no information available", "not mentioned")
_MEM0_SPACES = str.maketrans(".,!?", "    ")
_SENTENCE_END = re.compile(r"(?<=[^\W\d_]{3}[.!?])\s+(?=\w)")  # as Punkt splits lowercase text, abbreviations ("dr.", "j. r.") apart


def locomo_f1(prediction: str, gold: str | int, category: int) -> float:
    """LoCoMo's official score of one answer, 0 to 1, rounded to 3 decimals (snap-research/locomo, task_eval/evaluation.py).

    Categories 2, 3 and 4 are scored by the F1 of stemmed words, category 3 against the gold up to its first ";". Category 1
    splits both sides on "," and averages, over the gold parts, the best F1 of any predicted part. Category 5 ignores the
    gold: 1 if the prediction says that nothing is known. Where either side has no words, F1 is 0.
    Raises InvalidInputError for a category outside 1 to 5.
    """
    answer = str(gold)
    if category == 1:
        parts = prediction.split(",")
        best = [max(_stemmed_f1(part, wanted) for part in parts) for wanted in answer.split(",")]
        return round(sum(best) / len(best), 3)
    if category in (2, 4):
        return round(_stemmed_f1(prediction, answer), 3)
    if category == 3:
        return round(_stemmed_f1(prediction, answer.split(";")[0]), 3)
    if category == 5:
        return float(any(refusal in prediction.lower() for refusal in _REFUSALS))
    raise InvalidInputError(f"LoCoMo category {category!r}: it is one of 1, 2, 3, 4, 5")


def mem0_f1(prediction: str, gold: str | int) -> float:
    """F1 on sets of lowercased words, as Mem0's LoCoMo evaluation computes it; 0 where either side is empty."""
    predicted, wanted = (set(str(text).lower().translate(_MEM0_SPACES).split()) for text in (prediction, gold))
    common = len(predicted & wanted)
    return 2 * common / (len(predicted) + len(wanted)) if common else 0.0


def mem0_bleu1(prediction: str, gold: str | int) -> float:
    """BLEU-1 as Mem0's LoCoMo evaluation computes it: NLTK's, smoothing method 1, lowercase; 0 where either side is empty.

    Sentences are split by a rule instead of NLTK's Punkt data, which is a download: of 1,540 published answers 5 score differently.
    """
    bleu = _nltk("translate.bleu_score")
    predicted, wanted = _words(prediction), _words(str(gold))
    if not predicted or not wanted:
        return 0.0
    return float(bleu.sentence_bleu([wanted], predicted, weights=(1, 0, 0, 0), smoothing_function=bleu.SmoothingFunction().method1))


def retrieval_recall(retrieved: Collection[str], evidence: Sequence[str]) -> float | None:
    """Share of the evidence ids that were retrieved; None for a question without evidence (LoCoMo's code counts it as 1)."""
    if not evidence:
        return None
    found = set(retrieved)
    return sum(item in found for item in evidence) / len(evidence)


def _stemmed_f1(prediction: str, gold: str) -> float:
    """F1 on the multiset overlap of stemmed words."""
    predicted, wanted = _stems(prediction), _stems(gold)
    common = (predicted & wanted).total()
    return 2 * common / (predicted.total() + wanted.total()) if common else 0.0


def _stems(text: str) -> Counter[str]:
    words = _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split()
    stemmer = _stemmer()
    return Counter(stemmer.stem(word) for word in words)


def _words(text: str) -> list[str]:
    """NLTK's word_tokenize, with sentences split by rule."""
    tokenizer = _tokenizer()
    return [word for sentence in _SENTENCE_END.split(text.strip().lower()) for word in tokenizer.tokenize(sentence)]


@cache
def _stemmer() -> Any:
    return _nltk("stem").PorterStemmer()


@cache
def _tokenizer() -> Any:
    return _nltk("tokenize").NLTKWordTokenizer()


def _nltk(module: str) -> Any:
    try:
        return import_module(f"nltk.{module}")
    except ImportError as error:
        raise MissingDependencyError(f'{error.name} is not installed: pip install "latent-personal-memory[bench]"') from error
