"""What language models would be asked, before anything is spent: snapshots, calls, tokens, dollars, and what is known.

    make plan

Nothing is asked, and no answer is touched. Tokens are estimated from the texts and from what the model has reported so
far; of an answer's tokens the most that a first attempt may have is counted. Long histories go in steps, whose later
ones are an upper bound.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines import summarize, tag
from pipelines.core.command import run_stage
from pipelines.core.encoders import TextEncoder
from pipelines.core.feature_rows import ENTITIES
from pipelines.core.params import Params, Price
from pipelines.core.providers import door_of
from pipelines.core.questions import Plan, Question
from pipelines.core.snapshots import read_histories, snapshots_of
from pipelines.describe_photos import plan_captions

PAID = "openai"  # the provider whose calls cost money
COLUMNS = ("snapshots", "own words", "calls", "known", "to ask", "tokens in", "tokens out", "dollars")


@dataclass(frozen=True)
class Line:
    """What one stage would ask."""

    stage: str
    provider: str
    snapshots: int
    own_words: int  # of the snapshots: a short review that nobody needs to read
    plan: Plan

    def dollars(self, price: Price) -> float:
        if self.provider != PAID:
            return 0.0
        return (self.plan.input_tokens * price.input + self.plan.output_tokens * price.output) / 1_000_000

    def cells(self, price: Price) -> list[str]:
        plan = self.plan
        numbers = (self.snapshots, self.own_words, plan.calls, plan.known, plan.calls - plan.known)
        tokens = (plan.input_tokens, plan.output_tokens)
        return [*(f"{number:,}" for number in (*numbers, *tokens)), f"{self.dollars(price):.2f}"]


def lines(args: argparse.Namespace, params: Params) -> list[Line]:
    """A line per stage that asks."""
    members = read_histories(args.reviews, args.split)
    encoder = TextEncoder(params.embed_reviews.encoder, params.embed_reviews.batch_size, params.cache.folder())

    def line(stage: str, questions: Sequence[Question | None]) -> Line:
        asked = [question for question in questions if question is not None]
        provider = getattr(params, stage).provider
        plan = door_of(provider, params, encoder).plan(asked)
        return Line(stage, provider, len(questions), len(questions) - len(asked), plan)

    of_summaries = [
        summarize.question_of(snapshot, params.summarize)
        for entity in ENTITIES
        for snapshot in snapshots_of(members, entity, params.protocol, params.summarize.growth, params.history).made
    ]
    of_tags = [
        tag.question_of(snapshot)
        for snapshot in snapshots_of(members, "business", params.protocol, params.tag.growth, params.history).made
    ]
    captions = plan_captions(args.photos_table, Path(params.ingest.photos), params)
    return [
        line("summarize", of_summaries),
        line("tag", of_tags),
        Line("describe_photos", params.describe_photos.captions, captions.calls, 0, captions),
    ]


def table(some: Sequence[Line], price: Price) -> str:
    """The lines and their sum, in columns."""
    rows = [["stage", *COLUMNS]]
    rows += [[f"{line.stage} ({line.provider})", *line.cells(price)] for line in some]
    rows.append(["all", *[""] * (len(COLUMNS) - 1), f"{sum(line.dollars(price) for line in some):.2f}"])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    )


def main(args: argparse.Namespace, params: Params) -> None:
    print(table(lines(args, params), params.llm.price))
    bounds = {name: value for name, value in params.llm.budget.model_dump().items() if value is not None}
    said = ", ".join(f"{name} {value:,}" for name, value in bounds.items()) or "no bound"
    print(f"budget of a stage's run (`llm.budget`): {said}; prices (`llm.price`) are dollars a million tokens")


if __name__ == "__main__":
    run_stage(
        main,
        __doc__,
        {
            "reviews": "the review table",
            "split": "the membership table",
            "photos-table": "the photo table; their files lie where `ingest.photos` says",
        },
    )
