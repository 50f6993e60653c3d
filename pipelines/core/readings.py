"""What was made of snapshots: by a model through the door, or the snapshot's own words; and where it came from."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pyarrow as pa

from pipelines.core.errors import CheckFailed
from pipelines.core.llm import Door
from pipelines.core.questions import Answer, Question
from pipelines.core.snapshots import Snapshot
from pipelines.core.tables import SNAPSHOT

OWN_WORDS = "review"  # the source of a snapshot that nobody had to read
NAMED = 10  # failures that are printed; the table, or the ledger, has them all


@dataclass(frozen=True)
class Reading:
    """What one snapshot says: a text, or why there is none."""

    text: str | None
    source: str  # the provider, or OWN_WORDS
    model: str | None = None
    prompt: str | None = None
    calls: tuple[str, ...] = ()  # keys of the ledger
    failure: str | None = None


def read_snapshots(
    door: Door, snapshots: Sequence[Snapshot], question_of: Callable[[Snapshot], Question | None], description: str
) -> list[Reading]:
    """A reading of each snapshot, in order. Where `question_of` has no question, its one text is what it says."""
    questions = [question_of(snapshot) for snapshot in snapshots]
    answers = iter(door.ask([question for question in questions if question is not None], description))
    readings = []
    for snapshot, question in zip(snapshots, questions, strict=True):
        if question is None:
            readings.append(Reading(snapshot.texts[0], OWN_WORDS))
            continue
        answer, source, prompt = next(answers), door.provider.name, question.prompt.label
        if isinstance(answer, Answer):
            readings.append(Reading(answer.text, source, answer.model, prompt, answer.calls))
        else:
            readings.append(Reading(None, source, None, prompt, answer.calls, answer.reason))
    return readings


def check_failures(stage: str, snapshots: Sequence[Snapshot], readings: Sequence[Reading], failed_share: float) -> None:
    """Name what has no answer on stderr; CheckFailed where that is more than `failed_share` of the snapshots."""
    failed = [(s, r.failure) for s, r in zip(snapshots, readings, strict=True) if r.failure is not None]
    for snapshot, reason in failed[:NAMED]:
        whose = f"{snapshot.entity} {snapshot.entity_id} with {len(snapshot.texts)} reviews"
        print(f"{stage}: no answer for {whose}: {reason}", file=sys.stderr)
    if len(failed) > failed_share * len(snapshots):
        raise CheckFailed(
            f"{stage}: {len(failed)} of {len(snapshots)} snapshots have no answer, the first: {failed[0][1]}; what came"
            " back is kept: run again to ask for these alone, or let them be null with `llm.failed_share`"
        )


def provenance(snapshots: Sequence[Snapshot], readings: Sequence[Reading]) -> dict[str, pa.Array]:
    """The columns of SNAPSHOT."""
    rows = {
        "snapshot_id": [s.snapshot_id for s in snapshots],
        "entity": [s.entity for s in snapshots],
        "entity_id": [s.entity_id for s in snapshots],
        "event_timestamp": [s.instant for s in snapshots],
        "review_ids": [list(s.review_ids) for s in snapshots],
        "source": [r.source for r in readings],
        "model": [r.model for r in readings],
        "prompt": [r.prompt for r in readings],
        "calls": [list(r.calls) for r in readings],
        "failure": [r.failure for r in readings],
    }
    return {field.name: pa.array(rows[field.name], field.type) for field in SNAPSHOT}
