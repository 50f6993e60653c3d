"""What is asked of a language model, and what comes back: in these words stages, door and providers talk."""

import hashlib
import json
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol

Task = Literal["summarize", "tag", "caption"]
PROMPTS = Path(__file__).parents[1] / "prompts"
LONGEST_REASON = 300  # characters
UNSEEN = {"Cc", "Cf", "Cs"}  # categories of characters that control or format, and lone surrogates
_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")


class UnusableAnswer(Exception):
    """What a model answered is of no use; the message says why. It is asked again."""


@dataclass(frozen=True)
class Prompt:
    """An instruction from a versioned file. Placeholders are {lower_case_words}; other braces stand for themselves."""

    name: str
    version: int
    text: str

    @property
    def label(self) -> str:
        return f"{self.name}/{self.version}"

    def filled(self, **values: object) -> "Prompt":
        """With every placeholder filled; a missing or a superfluous value is a bug."""
        assert set(_PLACEHOLDER.findall(self.text)) == set(values), (
            f"{self.label}: placeholders are not {sorted(values)}"
        )
        return replace(self, text=_PLACEHOLDER.sub(lambda match: str(values[match[1]]), self.text))


def load_prompt(name: str) -> Prompt:
    """pipelines/prompts/<name>.md: a line `version: N`, then the instruction."""
    first, _, text = (PROMPTS / f"{name}.md").read_text(encoding="utf-8").partition("\n")
    version = re.fullmatch(r"version: (\d+)", first.strip())
    assert version, f"{name}.md: its first line is not `version: N`"
    return Prompt(name, int(version[1]), text.strip())


def not_empty(answer: str) -> str:
    """The usable form of a plain answer: itself, without what stands around it."""
    if not answer.strip():
        raise UnusableAnswer("empty answer")
    return answer.strip()


@dataclass(frozen=True)
class Question:
    """One thing to be asked about some texts or one picture.

    `check` gives the usable form of a raw answer or raises UnusableAnswer; it does not decide what a model answers,
    so it is not in the key.
    """

    task: Task
    prompt: Prompt  # filled
    texts: tuple[str, ...] = ()  # data from strangers, in the order in which they are read
    image: bytes | None = None  # JPEG or PNG
    schema: Mapping[str, Any] | None = None  # JSON schema of the answer; None: plain text
    check: Callable[[str], str] = field(default=not_empty, compare=False)
    max_tokens: int = 300  # of the answer
    attempt: int = 1  # a later one may be put differently, as far as that helps (see the provider)


@dataclass(frozen=True)
class Reply:
    """What a provider brought back, raw. `usage`: input and output tokens; empty where it does not say."""

    text: str
    finish_reason: str  # stop | length | refusal | content_filter | ...
    usage: Mapping[str, int]
    model: str
    response: Any  # JSON, as it came
    dollars: float = 0.0


@dataclass(frozen=True)
class Failure:
    """No answer is to be had to this question now."""

    reason: str


@dataclass(frozen=True)
class Answer:
    text: str
    calls: tuple[
        str, ...
    ]  # keys of the ledger; several where it went in steps, and unless they were merged the last one's answer counts
    model: str


@dataclass(frozen=True)
class Failed:
    reason: str
    calls: tuple[str, ...] = ()


@dataclass(frozen=True)
class Estimate:
    input_tokens: int
    output_tokens: int


@dataclass(frozen=True)
class Plan:
    """What asking would cost. With histories in steps an upper bound: what later steps ask depends on the answers."""

    calls: int  # distinct ones, known ones among them
    known: int  # in the ledger already
    input_tokens: int  # of those that are not known
    output_tokens: int  # at most


class Provider(Protocol):
    name: str
    kept_together: int  # answers that one transaction keeps: at most so many are lost by a kill; 1 where they are paid

    def identity(self, question: Question) -> dict[str, Any]:
        """Everything that decides the answer, as JSON; no secret."""
        ...

    def fits(self, question: Question) -> bool:
        """Whether it can be asked at once. Never depends on earlier answers.

        The chunks must be the same in every run.
        """
        ...

    def estimate(self, question: Question) -> Estimate: ...

    def answer(self, questions: Sequence[Question]) -> Iterator[tuple[int, Reply | Failure]]:
        """In any order, as they come; what is not yet taken counts as under way, so an interruption loses no more.

        UserError stops everything.
        """
        ...


def key_of(provider: Provider, question: Question) -> str:
    """SHA-256 of the canonical JSON of everything that decides the answer."""
    canonical = json.dumps(provider.identity(question), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def clean(text: str) -> str:
    """Text that UTF-8 can hold: a lone surrogate, which JSON can name, becomes `?`."""
    return text.encode("utf-8", "replace").decode()


def printable_line(text: str) -> str:
    """`text` without control and format characters (escapes, overrides of direction), white space as single spaces."""
    kept = "".join(" " if letter.isspace() else letter for letter in text)
    return " ".join("".join(letter for letter in kept if unicodedata.category(letter) not in UNSEEN).split())


def one_line(reason: str) -> str:
    """A reason fit for a log, a table and a terminal: one line, printable, bounded; a stranger's text may be in it."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in clean(reason)).split())
    return line if len(line) <= LONGEST_REASON else line[: LONGEST_REASON - 1] + "…"
