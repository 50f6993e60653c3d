"""A real endpoint that ignores schemas and answers noise: every answer of it is survived."""

from collections import Counter
from pathlib import Path

import pytest

from pipelines.core.questions import Answer, Failed, UnusableAnswer, load_prompt
from tests.llm.asking import door_to, question
from tests.llm.tiny_llama import served_tiny_llama

SCHEMA = {
    "type": "object",
    "properties": {"price": {"type": "string"}},
    "required": ["price"],
    "additionalProperties": False,
}


def braces(answer: str) -> str:
    if "{" not in answer:
        raise UnusableAnswer("there is no JSON object in it")
    return answer


@pytest.mark.slow
def test_every_answer_of_a_random_model_is_survived(tmp_path: Path) -> None:
    summary = load_prompt("summarize_user").filled(words=20)
    asked = [question(f"The soup no. {number} was good.", prompt=summary, max_tokens=20) for number in range(40)]
    asked += [
        question(f"Cheap pizza {number}", task="tag", prompt=load_prompt("tag_business"), schema=SCHEMA, check=braces)
        for number in range(10)
    ]
    long = question(*[f"Review {number}: {'good food, ' * 20}" for number in range(60)], prompt=summary, max_tokens=40)
    with served_tiny_llama(tmp_path) as served:
        changes = {"model": served.model, "limits__concurrency": 2, "context_tokens": 2000, "temperature": 0.7}
        door = door_to(tmp_path, served.base_url, **changes)
        outcomes = door.ask([*asked, long], "random model")
        reasons = Counter(outcome.reason for outcome in outcomes if isinstance(outcome, Failed))
        print(sum(isinstance(outcome, Answer) for outcome in outcomes), "answers;", reasons)
        assert any(isinstance(outcome, Answer) for outcome in outcomes)
        assert all(
            reason.startswith(("truncated", "empty answer", "there is no JSON object", "1 of ", "2 of ", "3 of "))
            or " chunks of a long" in reason
            for reason in reasons
        )
        for outcome in outcomes:
            entry = door.ledger.entry(outcome.calls[-1])
            assert entry is not None and entry.input_tokens and entry.output_tokens
        known = [each for each, outcome in zip(asked, outcomes, strict=False) if isinstance(outcome, Answer)]
    # the endpoint is gone, and what it said is still there
    assert all(
        isinstance(outcome, Answer) for outcome in door_to(tmp_path, served.base_url, **changes).ask(known, "again")
    )
