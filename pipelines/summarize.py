"""Summaries of what users and businesses have in their histories, a snapshot each, and their embeddings as features.

    FEATURES/{user,business}_summary{,_by_review}.parquet   rows for Feast
    FEATURES/summaries.parquet                              every snapshot's text, its reviews, who wrote it

A review reads the newest snapshot it may see. A history of one short review is its own summary.
"""

import argparse

import numpy as np
import pyarrow as pa

from pipelines.core.command import run_stage
from pipelines.core.encoders import TextEncoder
from pipelines.core.feature_rows import ENTITIES
from pipelines.core.params import Params, Summarize
from pipelines.core.providers import door_of
from pipelines.core.questions import Question, UnusableAnswer, load_prompt, printable_line
from pipelines.core.readings import Reading, check_failures, provenance, read_snapshots
from pipelines.core.snapshots import Snapshot, Snapshots, feature_rows, read_histories, snapshots_of
from pipelines.core.tables import SUMMARIES, feature_tables, vector_column, whole_folder, write_table
from pipelines.core.visibility import Entity

LETTERS_A_WORD = 10
MOST_LETTERS = 5_000  # of a summary: an endpoint that knows no bound on its answers has not summarized
TOKENS_A_WORD = 5  # more than any language's words come to: a longer answer is none of the asked length


def question_of(snapshot: Snapshot, stage: Summarize) -> Question | None:
    """What is asked about a snapshot; None where it is one short review."""
    if len(snapshot.texts) == 1 and is_short(snapshot.texts[0], stage.own_words):
        return None
    prompt = load_prompt(f"summarize_{snapshot.entity}").filled(words=stage.words)
    return Question("summarize", prompt, snapshot.texts, check=one_paragraph, max_tokens=TOKENS_A_WORD * stage.words)


def is_short(text: str, words: int) -> bool:
    """Whether a text has at most so many words; where words are not spaced, as many characters as they would have."""
    return len(text.split()) <= words and len(text) <= LETTERS_A_WORD * words


def one_paragraph(answer: str) -> str:
    """A summary as one printable line; UnusableAnswer where nothing is said, or a whole story is."""
    text = printable_line(answer)
    if not text:
        raise UnusableAnswer("an empty summary")
    if len(text) > MOST_LETTERS:
        raise UnusableAnswer(f"a summary of {len(text):,} characters")
    return text


def embedded(readings: list[Reading], encoder: TextEncoder, description: str) -> pa.ChunkedArray:
    """The vectors of what the readings say; null where they say nothing."""
    known = np.array([reading.text is not None for reading in readings], np.bool_)
    vectors = encoder.encode([reading.text for reading in readings if reading.text is not None], description)
    rows = np.zeros((len(readings), vectors.shape[1]), np.float32)
    rows[known] = vectors
    return vector_column(rows, known)


def main(args: argparse.Namespace, params: Params) -> None:
    stage = params.summarize
    members = read_histories(args.reviews, args.split)
    encoder = TextEncoder(params.embed_reviews.encoder, params.embed_reviews.batch_size, params.cache.folder())
    door = door_of(stage.provider, params, encoder)
    schemas, snapshots = feature_tables("summarize"), dict[Entity, Snapshots]()
    for entity in ENTITIES:
        snapshots[entity] = snapshots_of(members, entity, params.protocol, stage.growth, params.history)
    made = [snapshot for some in snapshots.values() for snapshot in some.made]
    readings = read_snapshots(door, made, lambda snapshot: question_of(snapshot, stage), "summarize")
    check_failures("summarize", made, readings, params.llm.failed_share)
    embeddings = embedded(readings, encoder, "embedding summaries")
    with whole_folder(args.features) as folder:
        start = 0
        for entity, some in snapshots.items():
            own = embeddings.slice(start, len(some.made))
            start += len(some.made)
            for name, rows in feature_rows(f"{entity}_summary", some, {"embedding": own}, "summarize").items():
                write_table(rows, folder / f"{name}.parquet", schemas[name])
        summaries = pa.array([reading.text for reading in readings], pa.string())
        table = pa.table({**provenance(made, readings), "summary": summaries, "embedding": embeddings})
        write_table(table, folder / "summaries.parquet", SUMMARIES)


if __name__ == "__main__":
    run_stage(
        main,
        __doc__,
        {
            "reviews": "the review table",
            "split": "the membership table",
            "features": "the folder of summaries and feature tables to write",
        },
    )
