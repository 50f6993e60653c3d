"""The door itself, before a provider that answers from memory: each question once, long histories in steps, plans."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.core.chunks import chunks
from pipelines.core.errors import UserError
from pipelines.core.ledger import Entry, Ledger
from pipelines.core.llm import Door
from pipelines.core.questions import (
    PROMPTS,
    Answer,
    Estimate,
    Failed,
    Failure,
    Question,
    Reply,
    UnusableAnswer,
    load_prompt,
    one_line,
)
from pipelines.core.tag_merge import merge_tags
from tests.llm.asking import question

ROOM = 500  # characters that can be asked about at once


class Memory:
    """Answers `n:` and the first 20 characters of each text, or as told by `says`.

    Backwards, since order must not matter.
    """

    name = "memory"

    def __init__(self, room: int = ROOM, kept_together: int = 1) -> None:
        self.kept_together = kept_together
        self.room = room
        self.asked: list[Question] = []
        self.levels: list[int] = []
        self.says: dict[tuple[str, int], Reply | Failure] = {}

    def identity(self, question: Question) -> dict[str, Any]:
        return {
            "task": question.task,
            "texts": list(question.texts),
            "prompt": question.prompt.label,
            "attempt": question.attempt,
        }

    def fits(self, question: Question) -> bool:
        return sum(map(len, question.texts)) <= self.room

    def estimate(self, question: Question) -> Estimate:
        return Estimate(sum(map(len, question.texts)), question.max_tokens)

    def answer(self, questions: Sequence[Question]) -> Iterator[tuple[int, Reply | Failure]]:
        self.levels.append(len(questions))
        for index in reversed(range(len(questions))):
            asked = questions[index]
            self.asked.append(asked)
            told = f"{len(asked.texts)}:" + ",".join(text[:20] for text in asked.texts)[:100]
            yield index, self.says.get((asked.texts[0], asked.attempt), reply(told))


def reply(text: str, finish: str = "stop") -> Reply:
    return Reply(text, finish, {"input": 3, "output": 2}, "m", {"text": text}, 0.5)


def door(folder: Path, attempts: int = 2, room: int = ROOM) -> tuple[Door, Memory]:
    provider = Memory(room)
    return Door(provider, Ledger(folder / "ledger.sqlite"), attempts), provider


def test_each_question_is_asked_once_and_answered_in_order(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    asking, provider = door(tmp_path)
    asked = [question("a"), question("b"), question("a")]
    first = asking.ask(asked, "Stage")
    assert [outcome.text for outcome in first] == ["1:a", "1:b", "1:a"] and len(provider.asked) == 2
    assert (
        "Stage: 3 questions, 0 answers known, 2 asked, 0 questions failed; 10 tokens, $1.0000" in capfd.readouterr().err
    )
    again, another = door(tmp_path)
    assert again.ask(asked, "Stage") == first and another.asked == []
    assert "3 questions, 2 answers known, 0 asked, 0 questions failed" in capfd.readouterr().err
    entry = asking.ledger.entry(first[1].calls[-1])
    assert entry.text == "1:b" and entry.request["texts"] == ["b"] and entry.prompt == "summarize_user/1"
    assert asking.ask([], "Stage") == []


def upper(answer: str) -> str:
    if not answer.isupper():
        raise UnusableAnswer(f"not\nupper: {answer}")
    return answer.strip()


def test_a_useless_answer_is_asked_again_and_kept(tmp_path: Path) -> None:
    asking, provider = door(tmp_path)
    provider.says[("b", 2)] = reply(" B ")
    [a, b] = asking.ask([question("a", check=upper), question("b", check=upper)], "Stage")
    assert isinstance(a, Failed) and a.reason == "not upper: 1:a" and len(a.calls) == 2
    assert b == Answer("B", b.calls, "m") and len(b.calls) == 1
    assert provider.levels == [2, 2]
    assert [asking.ledger.entry(key).status for key in (*a.calls, *b.calls)] == ["not upper: 1:a"] * 2 + ["ok"]
    again, another = door(tmp_path)
    another.says[("a", 1)] = reply("A")
    [a, b_again] = again.ask([question("a", check=upper), question("b", check=upper)], "Stage")
    assert a.text == "A" and b_again == b
    assert [asked.texts for asked in another.asked] == [("a",)]


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (reply("half an ans", "length"), "truncated: the answer is longer than its room"),
        (reply("I can't help\nwith that", "refusal"), "refused: I can't help with that"),
        (reply("", "content_filter"), "refused by the content filter"),
        (reply("  \n"), "empty answer"),
        (Failure("HTTP 400: no"), "HTTP 400: no"),
    ],
)
def test_why_there_is_no_answer(tmp_path: Path, said: Reply | Failure, reason: str) -> None:
    asking, provider = door(tmp_path)
    provider.says = {("a", 1): said, ("a", 2): said}
    [outcome] = asking.ask([question("a")], "Stage")
    assert isinstance(outcome, Failed) and outcome.reason == reason
    assert provider.levels == ([1] if isinstance(said, Failure) else [1, 1])  # a failure has had its retries
    assert asking.ledger.entry(outcome.calls[-1]).status == reason
    assert asking.ledger.get(outcome.calls) == {}


def test_a_check_that_became_stricter_asks_again(tmp_path: Path) -> None:
    asking, _ = door(tmp_path)
    [first] = asking.ask([question("a")], "Stage")
    again, provider = door(tmp_path)
    # a plan writes nothing, nor is anything void until a better answer is there
    assert again.plan([question("a", check=upper)]).known == 0 and again.recall([question("a", check=upper)]) == [None]
    assert isinstance(again.ask([question("a", check=upper)], "Stage")[0], Failed) and len(provider.asked) == 2
    assert again.recall([question("a")]) == [first]
    again, provider = door(tmp_path)
    provider.says[("a", 1)] = reply("A")
    [outcome] = again.ask([question("a", check=upper)], "Stage")
    assert outcome.text == "A" and len(provider.asked) == 1


def test_one_answer_stands_when_two_processes_ask(tmp_path: Path) -> None:
    asking, _ = door(tmp_path)
    other, _ = door(tmp_path)

    class Late(Memory):
        def answer(self, questions: Sequence[Question]) -> Iterator[tuple[int, Reply | Failure]]:
            other.ask([question("a")], "other")
            yield 0, reply("another answer")

    asking.provider = Late()
    [outcome] = asking.ask([question("a")], "Stage")
    assert outcome.text == "1:a"


def test_the_other_process_s_answer_may_be_of_no_use_here(tmp_path: Path) -> None:
    asking, _ = door(tmp_path, attempts=1)
    other, _ = door(tmp_path)

    class Late(Memory):
        def answer(self, questions: Sequence[Question]) -> Iterator[tuple[int, Reply | Failure]]:
            other.ask([question("a")], "other")
            yield 0, reply("A")

    asking.provider = Late()
    [outcome] = asking.ask([question("a", check=upper)], "Stage")
    assert isinstance(outcome, Failed) and outcome.reason == "not upper: 1:a"
    again, provider = door(tmp_path)
    provider.says[("a", 1)] = reply("A")
    assert again.ask([question("a", check=upper)], "Stage")[0].text == "A"


def test_answers_are_kept_together_and_flushed_at_a_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asking, _ = door(tmp_path)
    sizes: list[int] = []
    put_all = asking.ledger.put_all

    def counted(entries: Sequence[Entry], *rest: Any) -> list[Entry]:
        sizes.append(len(entries))
        return put_all(entries, *rest)

    monkeypatch.setattr(asking.ledger, "put_all", counted)

    class Stopping(Memory):
        def answer(self, questions: Sequence[Question]) -> Iterator[tuple[int, Reply | Failure]]:
            for number, each in enumerate(super().answer(questions)):
                if number == 7:
                    raise UserError("no more")
                yield each

    asking.provider = Stopping(kept_together=3)
    asked = [question(str(number)) for number in range(8)]
    with pytest.raises(UserError, match="no more"):
        asking.ask(asked, "Stage")
    assert sizes == [3, 3, 1]
    sizes.clear()
    asking.provider = Memory(kept_together=3)
    outcomes = asking.ask([*asked, *[question(str(number)) for number in range(8, 12)]], "Stage")
    assert [outcome.text for outcome in outcomes] == [f"1:{number}" for number in range(12)] and sizes == [3, 2]


def test_an_interruption_loses_nothing_that_came_back(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    asking, provider = door(tmp_path)

    class Broken(Memory):
        def answer(self, questions: Sequence[Question]) -> Iterator[tuple[int, Reply | Failure]]:
            for number, each in enumerate(super().answer(questions)):
                if number == 3:
                    raise KeyboardInterrupt
                yield each

    asking.provider = Broken()
    asked = [question(letter) for letter in "abcdefgh"]
    with pytest.raises(KeyboardInterrupt):
        asking.ask(asked, "Stage")
    told = capfd.readouterr().err
    assert "8 questions, 0 answers known, 3 asked, stopped before the end; 15 tokens" in told and "failed" not in told
    again, provider = door(tmp_path)
    again.ask(asked, "Stage")
    assert {asked.texts[0] for asked in provider.asked} == set("abcde")


def review(number: int, length: int = 90) -> str:
    return f"{number:03d} {'word ' * 40}"[:length]


def test_a_long_history_goes_in_steps_and_a_grown_one_reuses_them(tmp_path: Path) -> None:
    asking, provider = door(tmp_path)
    reviews = [review(number) for number in range(23)]  # 5 a chunk
    [short, long] = asking.ask([question("short"), question(*reviews)], "Stage")
    assert short.text == "1:short" and len(short.calls) == 1
    # five chunks and the short one side by side, then five answers of up to 100 characters fit at once
    assert provider.levels == [6, 1]
    assert len(long.calls) == 6 and long.text.startswith("5:5:000 word word word,5:005 ")
    chunked = sorted(asked.texts for asked in provider.asked if len(asked.texts) > 1 or asked.texts[0].startswith("0"))[
        :-1
    ]
    assert [text for texts in chunked for text in texts] == reviews
    assert {asked.prompt for asked in provider.asked} == {question().prompt}

    grown, provider = door(tmp_path)
    grown.ask([question(*reviews, review(23), review(24), review(25))], "Stage")
    assert provider.levels == [2, 2, 1]  # the last chunk grew and one is new; their six answers need a second step


def test_steps_of_steps(tmp_path: Path) -> None:
    asking, provider = door(tmp_path)
    [outcome] = asking.ask([question(*[review(number) for number in range(200)])], "Stage")
    assert isinstance(outcome, Answer)
    assert (
        provider.levels[0] == 40
        and provider.levels == sorted(provider.levels, reverse=True)
        and provider.levels[-1] == 1
    )
    assert len(set(outcome.calls)) == sum(provider.levels) == len(provider.asked)


def test_what_is_recalled_is_what_was_asked(tmp_path: Path) -> None:
    asking, provider = door(tmp_path)
    reviews = [review(number) for number in range(40)]
    provider.says[("late", 1)] = reply("", "length")
    asked = [question("a"), question(*reviews), question(*reviews[:12], task="tag"), question("late"), question("a")]
    for number in (0, 5, 10):
        provider.says[(reviews[number], 1)] = reply(json.dumps({"price": "fair", "types": ["bar"]}))
    assert asking.recall(asked) == [None] * 5 and provider.asked == []
    outcomes = asking.ask(asked, "Stage")
    assert all(isinstance(outcome, Answer) for outcome in outcomes) and len(outcomes[1].calls) > 5
    again, provider = door(tmp_path)
    before = (tmp_path / "ledger.sqlite").read_bytes(), (tmp_path / "ledger.sqlite-wal").read_bytes()
    assert again.recall([*asked, question("new"), question(*reviews, "new")]) == [*outcomes, None, None]
    assert provider.asked == []
    assert ((tmp_path / "ledger.sqlite").read_bytes(), (tmp_path / "ledger.sqlite-wal").read_bytes()) == before


def test_a_text_longer_than_the_room_is_cut(tmp_path: Path) -> None:
    asking, provider = door(tmp_path)
    text = "".join(f"word{number} " for number in range(300))
    [outcome] = asking.ask([question("before", text, "after")], "Stage")
    assert isinstance(outcome, Answer)
    pieces = [texts for asked in reversed(provider.asked[: provider.levels[0]]) for texts in asked.texts]
    assert "".join(pieces) == "before" + text + "after" and max(map(len, pieces)) <= ROOM
    assert all(piece.endswith(" ") for piece in pieces[1:-1])


def test_a_failed_chunk_fails_its_history_alone(tmp_path: Path) -> None:
    asking, provider = door(tmp_path)
    reviews = [review(number) for number in range(12)]
    provider.says[(reviews[5], 1)] = Failure("no")
    [bad, good] = asking.ask([question(*reviews), question(*reviews[:5])], "Stage")
    assert isinstance(bad, Failed) and bad.reason == "1 of 3 chunks of a long history: no" and len(bad.calls) == 3
    assert isinstance(good, Answer)
    again, provider = door(tmp_path)
    assert isinstance(again.ask([question(*reviews)], "Stage")[0], Answer)
    assert provider.asked[0].texts[0] == reviews[5] and provider.levels == [1, 1]


def test_answers_that_do_not_get_shorter_end(tmp_path: Path) -> None:
    asking, _ = door(tmp_path)

    class Parrot(Memory):
        def answer(self, questions: Sequence[Question]) -> Iterator[tuple[int, Reply | Failure]]:
            for index, asked in enumerate(questions):
                yield index, reply(" ".join(asked.texts))

    asking.provider = Parrot()
    [outcome] = asking.ask([question(*[review(number) for number in range(40)])], "Stage")
    assert isinstance(outcome, Failed) and "raise `llm.context_tokens`" in outcome.reason


def test_no_room_at_all_is_one_line(tmp_path: Path) -> None:
    asking, _ = door(tmp_path, room=100)
    with pytest.raises(UserError, match="has no room for a question"):
        asking.ask([question("x" * 1000)], "Stage")


def test_tags_of_chunks_are_merged_without_a_call(tmp_path: Path) -> None:
    asking, provider = door(tmp_path)
    reviews = [review(number) for number in range(12)]
    for first, price, types in [(0, "none", ["bar"]), (5, "fair", ["cafe", "bar"]), (10, "none", ["cafe"])]:
        provider.says[(reviews[first], 1)] = reply(json.dumps({"price": price, "types": types}))
    [outcome] = asking.ask([question(*reviews, task="tag")], "Stage")
    assert json.loads(outcome.text) == {"price": "fair", "types": ["cafe", "bar"]}
    assert provider.levels == [3] and len(outcome.calls) == 3


def tag(price: str, *types: str) -> str:
    return json.dumps({"price": price, "types": types})


@pytest.mark.parametrize(
    ("answers", "merged"),
    [
        ([tag("none"), tag("none")], tag("none")),
        ([tag("none"), tag("none"), tag("cheap")], tag("cheap")),
        ([tag("fair"), tag("cheap"), tag("cheap")], tag("cheap")),
        ([tag("fair"), tag("cheap")], tag("fair")),
        ([tag("none", "a", "b"), tag("none", "b")], tag("none", "b", "a")),
        ([tag("none", "a", "b"), tag("none", "c")], tag("none", "a", "c", "b")),
        ([tag("none", *"abcdefghijklmno")], tag("none", *"abcdefghijk")),
    ],
)
def test_merged_tags(answers: list[str], merged: str) -> None:
    assert json.loads(merge_tags(answers)) == json.loads(merged)


def test_a_plan_counts_and_asks_nothing(tmp_path: Path) -> None:
    asking, provider = door(tmp_path)
    reviews = [review(number) for number in range(23)]
    asked = [question("a"), question("a"), question(*reviews, max_tokens=20), question(*reviews, task="tag")]
    plan = asking.plan(asked)
    assert provider.asked == [] and plan.known == 0
    # `a`, five chunks of the long one and a question over their five answers of 20 words, five chunks of the tag's
    assert plan.calls == 1 + 5 + 1 + 5 and plan.input_tokens == 1 + 23 * 90 + 5 * 100 + 23 * 90
    assert plan.output_tokens == 300 + 6 * 20 + 5 * 300
    asking.ask(asked[:3], "Stage")
    after = asking.plan(asked)
    assert (after.calls, after.known, after.input_tokens) == (12, 7, 23 * 90) and len(provider.asked) == 7


@given(st.lists(st.text(max_size=80), max_size=30), st.integers(1, 60))
def test_chunks_hold_everything_in_order_and_are_stable_at_the_front(texts: list[str], room: int) -> None:
    def fits(some: Sequence[str]) -> bool:
        return sum(map(len, some)) <= room

    made = chunks(texts, fits)
    assert "".join(text for chunk in made for text in chunk) == "".join(texts)
    assert all(fits(chunk) and chunk for chunk in made)
    assert chunks([*texts, "more", "and more"], fits)[: max(len(made) - 1, 0)] == made[:-1]
    if all(len(text) <= room for text in texts):
        assert [text for chunk in made for text in chunk] == texts


@pytest.mark.parametrize("name", ["summarize_user", "summarize_business", "tag_business", "caption_photo"])
def test_prompts(name: str) -> None:
    prompt = load_prompt(name)
    assert prompt.label == f"{name}/1" and prompt.text and not prompt.text.startswith("version")
    if name.startswith("summarize"):
        assert "in about 60 words" in prompt.filled(words=60).text.lower()
        with pytest.raises(AssertionError):
            prompt.filled()
    else:
        assert prompt.filled() == prompt
    assert sorted(path.stem for path in PROMPTS.iterdir()) == [
        "caption_photo",
        "summarize_business",
        "summarize_user",
        "tag_business",
    ]


def test_a_reason_is_one_bounded_line() -> None:
    assert one_line("a\nb\x1b[31m\u2028c\ud800") == "a b [31m c?"
    assert len(one_line("x" * 1000)) == 300
    assert replace(question("a"), attempt=2).attempt == 2
