"""What kind of place a business is, read from its visible reviews: a price tag and up to 11 of 179 restaurant types.

    FEATURES/business_tags{,_by_review}.parquet   rows for Feast
    FEATURES/tags.parquet                         every snapshot's tags, its reviews, who read them

Whatever a model answers, no word outside the vocabulary gets through (pipelines/core/free_answers.py).
"""

import argparse
import json

import pyarrow as pa

from pipelines.core.command import run_stage
from pipelines.core.encoders import TextEncoder
from pipelines.core.free_answers import tags_of
from pipelines.core.params import Params
from pipelines.core.providers import door_of
from pipelines.core.questions import Question, load_prompt
from pipelines.core.readings import check_failures, provenance, read_snapshots
from pipelines.core.snapshots import Snapshot, feature_rows, read_histories, snapshots_of
from pipelines.core.tables import TAGS, feature_tables, whole_folder, write_table
from pipelines.core.vocabulary import MOST_SUBTYPES, PRICE_TAGS

ANSWER_TOKENS = 200
SCHEMA = {
    "type": "object",
    "properties": {
        "price": {"type": "string", "enum": list(PRICE_TAGS)},
        "types": {"type": "array", "items": {"type": "string"}, "maxItems": MOST_SUBTYPES},
    },
    "required": ["price", "types"],
    "additionalProperties": False,
}


def question_of(snapshot: Snapshot) -> Question:
    """The paper's two questions about a business, as one."""
    prompt = load_prompt("tag_business")
    return Question("tag", prompt, snapshot.texts, schema=SCHEMA, check=in_vocabulary, max_tokens=ANSWER_TOKENS)


def in_vocabulary(answer: str) -> str:
    """A free answer as `{"price": …, "types": […]}` in the vocabulary's words; UnusableAnswer where it is none."""
    price, types = tags_of(answer)
    return json.dumps({"price": price, "types": types})


def main(args: argparse.Namespace, params: Params) -> None:
    members = read_histories(args.reviews, args.split)
    encoder = TextEncoder(params.embed_reviews.encoder, params.embed_reviews.batch_size, params.cache.folder())
    door = door_of(params.tag.provider, params, encoder)
    snapshots = snapshots_of(members, "business", params.protocol, params.tag.growth, params.history)
    readings = read_snapshots(door, snapshots.made, question_of, "tag")
    check_failures("tag", snapshots.made, readings, params.llm.failed_share)
    said = [None if reading.text is None else json.loads(reading.text) for reading in readings]
    values = {
        "price_tag": pa.array([None if tags is None else tags["price"] for tags in said], pa.string()),
        "subtypes": pa.array([None if tags is None else tags["types"] for tags in said], pa.list_(pa.string())),
    }
    schemas = feature_tables("tag")
    with whole_folder(args.features) as folder:
        for name, rows in feature_rows("business_tags", snapshots, values, "tag").items():
            write_table(rows, folder / f"{name}.parquet", schemas[name])
        write_table(pa.table({**provenance(snapshots.made, readings), **values}), folder / "tags.parquet", TAGS)


if __name__ == "__main__":
    run_stage(
        main,
        __doc__,
        {
            "reviews": "the review table",
            "split": "the membership table",
            "features": "the folder of tags and feature tables to write",
        },
    )
