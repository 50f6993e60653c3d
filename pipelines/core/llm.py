"""The one door for language models: each question is asked once, every answer kept in the ledger as it comes, and a
long history asked about in steps."""

import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from typing import Any

from pipelines.core.chunks import chunks
from pipelines.core.errors import UserError
from pipelines.core.ledger import USABLE, Entry, Ledger, Usable
from pipelines.core.progress import progress
from pipelines.core.questions import (
    Answer,
    Failed,
    Failure,
    Plan,
    Provider,
    Question,
    Reply,
    Task,
    UnusableAnswer,
    clean,
    key_of,
    one_line,
)
from pipelines.core.tag_merge import merge_tags

# How the answers about a long history's chunks become one without asking again. Other tasks put their question over the
# answers.
MERGES: dict[Task, Callable[[Sequence[str]], str]] = {"tag": merge_tags}
Outcome = Answer | Failed
Level = list[Question]  # all of them fit, so each is one call
Steps = Generator[Level, Sequence[Outcome], Outcome]
Refused = dict[str, tuple[Usable, str]]  # by key an answer of the ledger that today's check refuses, and why


@dataclass
class _Count:
    """What one `ask` did, for its last line."""

    known: int = 0
    asked: int = 0  # answers, and failures, that the provider brought
    tokens: int = 0
    dollars: float = 0.0


class Door:
    def __init__(self, provider: Provider, ledger: Ledger, attempts: int):
        self.provider = provider
        self.ledger = ledger
        self.attempts = attempts

    def ask(self, questions: Sequence[Question], description: str) -> list[Outcome]:
        """An answer or a failure a question, in order.

        What has a usable answer in the ledger is not asked, and each distinct question is asked once.
        """
        count = _Count()
        outcomes: list[Outcome] | None = None
        try:
            with progress(0, description, "answer") as bar:

                def asked(level: Level) -> list[Outcome]:
                    return self._ask_level(level, count, bar)

                outcomes = _level_by_level([self._steps(question) for question in questions], asked)
        finally:
            if questions:
                failed = [outcome for outcome in outcomes or () if isinstance(outcome, Failed)]
                end = "stopped before the end" if outcomes is None else f"{len(failed)} questions failed"
                spent = f"; {count.tokens:,} tokens, ${count.dollars:.4f}" if count.tokens else ""
                answers = f"{count.known} answers known, {count.asked} asked"
                print(
                    f"{description}: {len(questions)} questions, {answers}, {end}{spent}",
                    file=sys.stderr,
                )
        return outcomes

    def recall(self, questions: Sequence[Question]) -> list[Answer | None]:
        """What `ask` would return if it might not ask: None where something is not known. Writes nothing."""

        def recalled(level: Level) -> list[Outcome]:
            keys = [key_of(self.provider, question) for question in level]
            known, _ = self._known(dict(zip(keys, level, strict=True)))
            return [known.get(key) or Failed("not known") for key in keys]

        outcomes = _level_by_level([self._steps(question) for question in questions], recalled)
        return [outcome if isinstance(outcome, Answer) else None for outcome in outcomes]

    def plan(self, questions: Sequence[Question]) -> Plan:
        """What `ask` would cost now. Asks nothing, writes nothing."""
        known: set[str] = set()
        unknown: dict[str, Question] = {}

        def supposed(level: Level) -> list[Outcome]:
            keys = [key_of(self.provider, question) for question in level]
            found, _ = self._known(dict(zip(keys, level, strict=True)))
            known.update(found)
            unknown.update({key: question for key, question in zip(keys, level, strict=True) if key not in found})
            # the longest answer there may be stands for the one that is not known
            return [
                found.get(key) or Answer("{}" if question.task in MERGES else "word " * question.max_tokens, (key,), "")
                for key, question in zip(keys, level, strict=True)
            ]

        _level_by_level([self._steps(question) for question in questions], supposed)
        costs = [self.provider.estimate(question) for question in unknown.values()]
        return Plan(
            len(known) + len(unknown),
            len(known),
            sum(cost.input_tokens for cost in costs),
            sum(cost.output_tokens for cost in costs),
        )

    def _steps(self, question: Question) -> Steps:
        """One question as levels of calls: all calls of a level can go out at once.

        Yields a level, is sent its outcomes, returns the question's.
        """
        calls: tuple[str, ...] = ()
        parts_before = sys.maxsize
        while not self.provider.fits(question):
            parts = self._parts(question)
            outcomes = yield [replace(question, texts=part) for part in parts]
            calls += tuple(key for outcome in outcomes for key in outcome.calls)
            failed = [outcome.reason for outcome in outcomes if isinstance(outcome, Failed)]
            if failed:
                return Failed(f"{len(failed)} of {len(parts)} chunks of a long history: {failed[0]}", calls)
            answers = [outcome for outcome in outcomes if isinstance(outcome, Answer)]
            texts = tuple(answer.text for answer in answers)
            if question.task in MERGES:
                return Answer(MERGES[question.task](texts), calls, answers[-1].model)
            if len(parts) >= parts_before:
                return Failed(
                    "the answers about the chunks of a long history do not get fewer; raise `llm.context_tokens`", calls
                )
            parts_before = len(parts)
            question = replace(question, texts=texts)
        [outcome] = yield [question]
        return replace(outcome, calls=calls + outcome.calls)

    def _parts(self, question: Question) -> list[tuple[str, ...]]:
        def fits(texts: Sequence[str]) -> bool:
            return self.provider.fits(replace(question, texts=tuple(texts)))

        if not fits(["word " * 40]):
            raise UserError(
                "params.yaml: `llm.context_tokens` has no room for a question, its answer and a short review; raise it"
            )
        return chunks(question.texts, fits)

    def _ask_level(self, level: Level, count: _Count, bar: Any) -> list[Outcome]:
        keys = [key_of(self.provider, question) for question in level]
        wanted = dict(zip(keys, level, strict=True))
        known, refused = self._known(wanted)
        outcomes: dict[str, Outcome] = dict(known)
        count.known += len(outcomes)
        waiting = {key: question for key, question in wanted.items() if key not in outcomes}
        bar.total += len(waiting)
        bar.refresh()
        for attempt in range(1, self.attempts + 1):
            answered = self._attempt(waiting, attempt, refused, count, bar)
            for key, outcome in answered.items():
                before = outcomes.get(key)
                if isinstance(before, Failed) and isinstance(outcome, Failed):
                    outcome = replace(outcome, calls=before.calls + outcome.calls)
                # an answer names its own call alone, as a later run will find it in the ledger
                outcomes[key] = outcome
            waiting = {key: waiting[key] for key, outcome in answered.items() if isinstance(outcome, _AskAgain)}
            if not waiting:
                break
        final = {
            key: Failed(outcome.reason, outcome.calls) if isinstance(outcome, Failed) else outcome
            for key, outcome in outcomes.items()
        }
        return [final[key] for key in keys]

    def _attempt(
        self, waiting: Mapping[str, Question], attempt: int, refused: Refused, count: _Count, bar: Any
    ) -> dict[str, Outcome]:
        """Ask them all once, and keep what comes: at most `kept_together` at a time, also at a stop."""
        keys = list(waiting)
        questions = [replace(waiting[key], attempt=attempt) for key in keys]
        outcomes: dict[str, Outcome] = {}
        if not questions:
            return outcomes
        judged: list[tuple[int, Entry, Outcome]] = []

        def keep() -> None:
            some = judged.copy()
            judged.clear()
            standing = self.ledger.put_all([entry for _, entry, _ in some], refused) if some else []
            for (index, entry, outcome), stands in zip(some, standing, strict=True):
                outcomes[keys[index]] = _of_what_stands(questions[index], outcome, entry, stands)

        replies = self.provider.answer(questions)
        # a stop of ours stops its calls too
        with closing(replies) if isinstance(replies, Generator) else nullcontext():
            try:
                for index, reply in replies:
                    outcome, entry = self._judged(questions[index], reply)
                    judged.append((index, entry, outcome))
                    count.asked += 1
                    count.tokens += (entry.input_tokens or 0) + (entry.output_tokens or 0)
                    count.dollars += entry.dollars
                    if len(judged) >= self.provider.kept_together:
                        keep()
                    if not isinstance(outcome, _AskAgain) or attempt == self.attempts:
                        bar.update()
            finally:
                keep()
        return outcomes

    def _judged(self, question: Question, reply: Reply | Failure) -> tuple[Outcome, Entry]:
        """What came as an outcome, and as an entry of the ledger, of use or not."""
        entry = Entry(
            key=key_of(self.provider, question),
            status=one_line(reply.reason) if isinstance(reply, Failure) else USABLE,
            provider=self.provider.name,
            model="" if isinstance(reply, Failure) else reply.model,
            prompt=question.prompt.label,
            request=self.provider.identity(question),
            response=None if isinstance(reply, Failure) else reply.response,
            text="" if isinstance(reply, Failure) else clean(reply.text),
            input_tokens=None if isinstance(reply, Failure) else reply.usage.get("input"),
            output_tokens=None if isinstance(reply, Failure) else reply.usage.get("output"),
            dollars=0.0 if isinstance(reply, Failure) else reply.dollars,
        )
        if isinstance(reply, Failure):
            return Failed(entry.status, (entry.key,)), entry
        try:
            _refuse_unfinished(reply)
            return Answer(question.check(entry.text), (entry.key,), entry.model), entry
        except UnusableAnswer as error:
            entry = replace(entry, status=one_line(str(error)))
            return _AskAgain(entry.status, (entry.key,)), entry

    def _known(self, wanted: Mapping[str, Question]) -> tuple[dict[str, Answer], Refused]:
        """The usable answers that the ledger holds, whichever attempt brought them. Writes nothing.

        And those that it holds for usable but today's check refuses: they count as unknown.
        """
        known: dict[str, Answer] = {}
        refused: Refused = {}
        missing = dict(wanted)
        for attempt in range(1, self.attempts + 1):
            keys = {key_of(self.provider, replace(question, attempt=attempt)): key for key, question in missing.items()}
            for kept, usable in self.ledger.get(list(keys)).items():
                question = missing[keys[kept]]
                try:
                    known[keys[kept]] = Answer(question.check(usable.text), (kept,), usable.model)
                except UnusableAnswer as error:  # the check has become stricter since
                    refused[kept] = usable, one_line(str(error))
            missing = {key: question for key, question in missing.items() if key not in known}
        return known, refused


class _AskAgain(Failed):
    """An answer came and was of no use; another may be."""


def _level_by_level(steps: Sequence[Steps], asked: Callable[[Level], list[Outcome]]) -> list[Outcome]:
    """Run all questions' steps side by side: the next level of every question that has one goes out as one list."""
    outcomes: dict[int, Outcome] = {}
    sent: dict[int, Sequence[Outcome] | None] = dict.fromkeys(range(len(steps)))
    while sent:
        levels: dict[int, Level] = {}
        for index, answers in sent.items():
            try:
                levels[index] = next(steps[index]) if answers is None else steps[index].send(answers)
            except StopIteration as end:
                outcomes[index] = end.value
        answers_of_all = iter(asked([question for level in levels.values() for question in level]) if levels else [])
        sent = {index: [next(answers_of_all) for _ in level] for index, level in levels.items()}
    return [outcomes[index] for index in range(len(steps))]


def _of_what_stands(question: Question, outcome: Outcome, entry: Entry, stands: Entry) -> Outcome:
    """An outcome after its entry was kept. Where another process was first, its answer stands for all."""
    if not isinstance(outcome, Answer) or stands.text == entry.text:
        return outcome
    try:
        return Answer(question.check(stands.text), (stands.key,), stands.model)
    except UnusableAnswer as error:  # it has another check
        return _AskAgain(one_line(str(error)), (stands.key,))


def _refuse_unfinished(reply: Reply) -> None:
    if reply.finish_reason == "length":
        raise UnusableAnswer("truncated: the answer is longer than its room")
    if reply.finish_reason == "refusal":
        raise UnusableAnswer(f"refused: {reply.text}")
    if reply.finish_reason == "content_filter":
        raise UnusableAnswer("refused by the content filter")
