"""Retries wait as they do, but from shorter waits on."""

import pytest

from pipelines.core.openai_api import retry_waits


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry_waits, "FIRST_WAIT_S", 0.02)
