"""The provider `extractive`: no model writes, no key, no network.

Summaries are sentences of the reviews, tags are read off lexicons. A question's answer is a function of its texts
alone, to the bit, whatever is asked beside it.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np

from pipelines.core.encoders import TextEncoder
from pipelines.core.extractive.extracts import MOST_SENTENCES, extract, sentences_of
from pipelines.core.extractive.lexicons import lexicons_sha256
from pipelines.core.extractive.price_words import price_tag
from pipelines.core.extractive.sentences import MOST_LETTERS, split_sentences
from pipelines.core.extractive.type_names import SAYS_NOTHING, name_of, nearest_types
from pipelines.core.extractive.type_words import types_of
from pipelines.core.extractive.words import beginning
from pipelines.core.questions import Estimate, Failure, Question, Reply
from pipelines.core.vector_cache import Vectors
from pipelines.core.vocabulary import MOST_SUBTYPES, restaurant_types

VERSION = 2  # of the algorithm: raise it with any change that may change an answer
MODEL = f"extractive/{VERSION}"
MOST_EMBEDDED = 50_000  # sentences whose vectors are held at once (80 MB)


class ExtractiveProvider:
    name = "extractive"
    kept_together = 500  # answers that the ledger may keep in one transaction: what an interruption loses costs nothing

    def __init__(self, encoder: TextEncoder, words: int, similarity: float):
        """`words`: of a summary, about. `similarity`: how near a sentence must be to a type's name to speak for it."""
        self.encoder = encoder
        self.words = words
        self.similarity = similarity
        self._names: Vectors | None = None  # of types, embedded when first needed

    def identity(self, question: Question) -> dict[str, Any]:
        parameter = {"words": self.words} if question.task == "summarize" else {"similarity": self.similarity}
        return {
            "provider": self.name,
            "version": VERSION,
            "encoder": self.encoder.fingerprint,
            "lexicons": lexicons_sha256(),
            "task": question.task,
            "prompt": question.prompt.name,
            # Not the texts: the ledger would hold all reviews again and again, of answers that cost nothing.
            "texts_sha256": hashlib.sha256(json.dumps(list(question.texts)).encode()).hexdigest(),
            **parameter,
        }

    def fits(self, question: Question) -> bool:
        """Summaries are of at most MOST_SENTENCES at once; of one text that has more, the first so many."""
        if question.task != "summarize" or len(question.texts) <= 1:
            return True
        return sum(len(split_sentences(text)) for text in question.texts) <= MOST_SENTENCES

    def estimate(self, question: Question) -> Estimate:
        return Estimate(0, 0)

    def answer(self, questions: Sequence[Question]) -> Iterator[tuple[int, Reply | Failure]]:
        """In order; the sentences of many questions are embedded at once."""
        some: list[int] = []
        sentences: dict[str, None] = {}
        for index, question in enumerate(questions):
            wanted = self._to_embed(question)
            if some and len(sentences) + len(wanted) > MOST_EMBEDDED:
                yield from self._answers(questions, some, list(sentences))
                some, sentences = [], {}
            some.append(index)
            sentences.update(dict.fromkeys(wanted))
        yield from self._answers(questions, some, list(sentences))

    def _to_embed(self, question: Question) -> tuple[str, ...]:
        if question.task == "summarize":
            return sentences_of(question.texts)
        return sentences_of(question.texts) if question.task == "tag" and not types_of(question.texts) else ()

    def _answers(
        self, questions: Sequence[Question], some: list[int], sentences: list[str]
    ) -> Iterator[tuple[int, Reply | Failure]]:
        known = self._embedded(sentences, "embedding sentences")
        for index in some:
            question = questions[index]
            if question.task == "summarize":
                text = self._summary(question, known)
            elif question.task == "tag":
                text = self._tags(question, known)
            else:
                yield index, Failure(f"the extractive provider cannot {question.task}")
                continue
            yield index, Reply(text, "stop", {}, MODEL, {"text": text}) if text else Failure("the texts are blank")

    def _embedded(self, texts: list[str], description: str) -> dict[str, Vectors]:
        return dict(zip(texts, self.encoder.encode(texts, description), strict=True)) if texts else {}

    def _summary(self, question: Question, known: dict[str, Vectors]) -> str:
        sentences = sentences_of(question.texts)
        text = extract(sentences, _stacked(sentences, known), self.words) if sentences else ""
        # Texts without a letter (emojis, stars) say what they say.
        words = (word[:MOST_LETTERS] for text in question.texts for word in beginning(text).split())
        return text or " ".join(islice(words, self.words))

    def _tags(self, question: Question, known: dict[str, Vectors]) -> str:
        types = types_of(question.texts)
        if not types and (sentences := sentences_of(question.texts)):
            types = self._nearest(_stacked(sentences, known))
        return json.dumps({"price": price_tag(question.texts), "types": types[:MOST_SUBTYPES]})

    def _nearest(self, sentences: Vectors) -> list[str]:
        types = restaurant_types()
        if self._names is None:
            self._names = self.encoder.encode([*map(name_of, types), *SAYS_NOTHING], "embedding names of types")
        places = nearest_types(sentences, self._names[: len(types)], self._names[len(types) :], self.similarity)
        return [types[place] for place in places]


def _stacked(sentences: Sequence[str], known: Mapping[str, Vectors]) -> Vectors:
    return np.stack([known[sentence] for sentence in sentences])
