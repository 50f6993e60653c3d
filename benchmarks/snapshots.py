"""What language models would cost: calls and tokens a 1,000 reviews, the naive way beside ours.

    python -m benchmarks.snapshots                                            # the simulated world of params.yaml
    python -m benchmarks.snapshots --source zomato --path ../shared/data/zomato

Exact: every review has its user's and its business's history read for itself (by time what stands before it, under
leave_one_out all of train without its pair). Snapshots: when a history has grown by a factor, or a fold at a time. A
history of one short review is its own summary and costs nothing, in every row alike. Tokens are what the door plans:
instructions and texts, long histories in steps, and the longest answer. Nothing is asked.
"""

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from pipelines import ingest, simulate, split, summarize, tag
from pipelines.core.feature_rows import ENTITIES
from pipelines.core.ledger import Ledger
from pipelines.core.llm import Door
from pipelines.core.openai_api.provider import OpenAIProvider
from pipelines.core.params import Params, load_params
from pipelines.core.questions import Question
from pipelines.core.snapshots import Snapshot, read_histories, snapshots_of
from pipelines.core.visibility import Entity, key_of

EVERY_INSTANT = 1.0000001  # a growth that every further review exceeds
NOWHERE = "http://127.0.0.1:9/v1"  # planning asks nobody


def members_of(params: Params, folder: Path, path: Path | None) -> tuple[pd.DataFrame, int]:
    """The reviews that take part, through the stages, and how many the source has."""
    photos = folder / "photos"
    if path is None:
        path = folder / "raw"
        simulate.main(argparse.Namespace(out=path), params)
    photos.mkdir()
    tables = folder / "tables"
    ingest.main(argparse.Namespace(source=path, photos=photos, tables=tables, report=folder / "ingest.json"), params)
    split.main(argparse.Namespace(reviews=tables / "reviews.parquet", out=folder / "split.parquet"), params)
    members = read_histories(tables / "reviews.parquet", folder / "split.parquet")
    return members, len(members)


def exact_left_out(members: pd.DataFrame, entity: Entity) -> Iterator[Snapshot]:
    """Of each entity all of train, and all of it without each pair."""
    train = members[(members["split"] == "train") & (members["text"] != "")]
    other = "business_id" if entity == "user" else "user_id"
    for entity_id, reviews in train.groupby(key_of(entity)):
        wholes = [reviews, *(reviews[reviews[other] != own] for own in reviews[other].unique())]
        for left in wholes:
            if len(left):
                yield Snapshot("", entity, str(entity_id), 0, tuple(left["review_id"]), tuple(left["text"]))


def questions(snapshots: Sequence[Snapshot], params: Params) -> list[Question]:
    """What would be asked: summaries of all, tags of businesses."""
    asked = [summarize.question_of(snapshot, params.summarize) for snapshot in snapshots]
    tags = [tag.question_of(snapshot) for snapshot in snapshots if snapshot.entity == "business"]
    return [question for question in asked if question is not None] + tags


def row(name: str, snapshots: Sequence[Snapshot], reviews: int, door: Door, params: Params) -> str:
    asked = questions(snapshots, params)
    plan = door.plan(asked)
    a_thousand = 1000 / reviews
    summaries = sum(question.task == "summarize" for question in asked)
    dollars = (plan.input_tokens * params.llm.price.input + plan.output_tokens * params.llm.price.output) / 1e6
    numbers = (summaries, plan.calls, plan.input_tokens, plan.output_tokens)
    cells = [f"{number * a_thousand:>12,.0f}" for number in numbers]
    return f"{name:<46}{len(snapshots):>10,}{''.join(cells)}{dollars * a_thousand:>10.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", default="synthetic")
    parser.add_argument("--path", type=Path, help="the raw files; none for the simulated world")
    parser.add_argument("--growth", type=float, nargs="+", default=[1.5, 2.0, 3.0])
    args = parser.parse_args()
    params = load_params(Path("params.yaml"))
    params = params.model_copy(
        update={
            "ingest": params.ingest.model_copy(update={"source": args.source}),
            "llm": params.llm.model_copy(update={"base_url": NOWHERE}),
        }
    )
    header = ("a 1,000 reviews:", "snapshots", "summaries", "calls", "tokens in", "tokens out", "dollars")
    print(f"{header[0]:<46}{header[1]:>10}{''.join(f'{name:>12}' for name in header[2:6])}{header[6]:>10}")
    for protocol in ("point_in_time", "leave_one_out"):
        told = params.model_copy(update={"protocol": protocol})
        with tempfile.TemporaryDirectory() as name:
            members, reviews = members_of(told, Path(name), args.path)
            ledger = Ledger(Path(name) / "ledger.sqlite")
            door = Door(OpenAIProvider(told.llm, ledger), ledger, attempts=1)

            def made(growth: float, some: pd.DataFrame = members, told: Params = told) -> list[Snapshot]:
                return [s for e in ENTITIES for s in snapshots_of(some, e, told.protocol, growth, told.history).made]

            if protocol == "point_in_time":
                print(row(f"{args.source}, by time, exact", made(EVERY_INSTANT), reviews, door, told))
                for growth in args.growth:
                    print(row(f"{args.source}, by time, grown by {growth}", made(growth), reviews, door, told))
            else:
                exact = [snapshot for entity in ENTITIES for snapshot in exact_left_out(members, entity)]
                print(row(f"{args.source}, leave-one-out, exact", exact, reviews, door, told))
                folds = f"{args.source}, leave-one-out, {told.split.folds} folds"
                print(row(folds, made(2.0), reviews, door, told))
            ledger.close()


if __name__ == "__main__":
    main()
