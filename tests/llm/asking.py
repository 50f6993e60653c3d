"""Questions, params and doors as the tests of the door need them."""

from pathlib import Path
from typing import Any

import yaml

from pipelines.core.ledger import Ledger
from pipelines.core.llm import Door
from pipelines.core.openai_api.provider import OpenAIProvider
from pipelines.core.params import Llm
from pipelines.core.questions import Prompt, Question
from tests.params import ROOT

PROMPT = Prompt("summarize_user", 1, "What does this person like?")


def llm_of(base_url: str, **changes: Any) -> Llm:
    """The repository's `llm` section at an endpoint of ours, without a pace.

    `limits__retries=2` and the like change it.
    """
    raw = yaml.safe_load((ROOT / "params.yaml").read_text())["llm"]
    defaults = {"base_url": base_url, "limits__requests_per_minute": None, "limits__tokens_per_minute": None}
    for name, value in {**defaults, **changes}.items():
        *sections, key = name.split("__")
        into = raw[sections[0]] if sections else raw
        into[key] = value
    return Llm.model_validate(raw)


def door_to(folder: Path, base_url: str, **changes: Any) -> Door:
    """A door with its ledger in `folder`. A second one in the same folder is a second run."""
    llm = llm_of(base_url, **changes)
    ledger = Ledger(folder / "llm" / "ledger.sqlite")
    return Door(OpenAIProvider(llm, ledger), ledger, llm.attempts)


def question(*texts: str, **changes: Any) -> Question:
    return Question(**{"task": "summarize", "prompt": PROMPT, "texts": texts, **changes})


def questions(count: int) -> list[Question]:
    return [question(f"review number {number}") for number in range(count)]
