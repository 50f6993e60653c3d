"""Train, validation and test rows, asked of Feast's feature services and guarded.

What a review may see was decided when its features were made. Here they are looked up, and what comes back must be the
rows that were asked for, in their order, with the counts and the nulls that the review table itself says. Every model's
service is asked: a row holds the features of them all, side by side, and `model` matters from `reduce` on.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from pipelines.core.command import run_stage
from pipelines.core.errors import CheckFailed, UserError
from pipelines.core.params import History, Params, Protocol
from pipelines.core.repo_imports import import_from
from pipelines.core.tables import (
    DESCRIPTIONS,
    PHOTOS,
    REVIEWS,
    SPLIT,
    TRAINING_SET_KEYS,
    read_table,
    whole_folder,
    write_table,
)
from pipelines.core.training_rows import FEATURES_OF_MODEL, SPLITS
from pipelines.core.visibility import RESOLUTION
from pipelines.expected_history import check_history, visible_counts
from pipelines.register import registered_store

if TYPE_CHECKING:
    from feast import FeatureService, FeatureStore


def read_members(reviews: Path, split: Path, protocol: Protocol) -> pa.Table:
    """Reviews that take part, sorted by id: TRAINING_SET_KEYS, `split`, `fold`, and `has_text` in place of the text.

    Raises UserError where the protocol needs instants and there are none, CheckFailed where a member is no review.
    """
    table = read_table(reviews, REVIEWS, [*TRAINING_SET_KEYS.names, "text"])
    has_text = pc.not_equal(pc.utf8_trim_whitespace(table["text"]), "")
    membership = read_table(split, SPLIT)
    table = table.drop(["text"]).append_column("has_text", has_text)
    members = table.join(membership, "review_id", join_type="inner").sort_by("review_id")
    if members.num_rows != membership.num_rows:
        raise CheckFailed(
            f"{split}: {membership.num_rows} rows, of which {reviews} has {members.num_rows}; run `dvc repro split`"
        )
    unknown = members["event_timestamp"].null_count
    if protocol == "point_in_time" and unknown:
        raise UserError(
            f"{reviews}: {unknown} of {members.num_rows} reviews have no instant; a source without instants knows only"
            " leave_one_out: set `protocol: leave_one_out` in params.yaml"
        )
    return members


def with_photos(members: pa.Table, photos: Path, descriptions: Path) -> pa.Table:
    """`members` with `captions` and `images`: how many embeddings of each kind came with a review."""
    described = read_table(descriptions, DESCRIPTIONS)
    known = pa.table(
        {
            "photo_id": described["photo_id"],
            "captions": pc.is_valid(described["caption_embedding"]).cast(pa.int64()),
            "images": pc.is_valid(described["image_embedding"]).cast(pa.int64()),
        }
    )
    owned = read_table(photos, PHOTOS, ["photo_id", "review_id"]).join(known, "photo_id", join_type="inner")
    totals = owned.group_by("review_id").aggregate([("captions", "sum"), ("images", "sum")])
    joined = members.join(totals.rename_columns(["review_id", "captions", "images"]), "review_id").sort_by("review_id")
    for name in ("captions", "images"):
        index = joined.schema.get_field_index(name)
        joined = joined.set_column(index, name, pc.fill_null(joined[name], 0))
    return joined


def entity_frame(members: pa.Table, protocol: Protocol, history: History) -> pd.DataFrame:
    """What Feast is asked for, a row per member: its ids, and the instant at which its features are looked up.

    point_in_time: one microsecond before the review, so that a feature row stamped at its own instant is too late.
    leave_one_out: the one instant at which all features by review are stamped.
    """
    frame = members.select(["review_id", "user_id", "business_id"]).to_pandas()
    if protocol == "point_in_time":
        frame["event_timestamp"] = members["event_timestamp"].to_pandas() - RESOLUTION
    else:
        frame["event_timestamp"] = pd.Series([history.as_of] * len(frame), dtype="datetime64[us, UTC]")
    return frame


def feature_fields(service: "FeatureService") -> list[pa.Field]:
    """The full feature names of a service and their types, in its order."""
    from feast.types import from_feast_to_pyarrow_type

    return [
        pa.field(
            f"{projection.name_alias or projection.name}__{feature.name}", from_feast_to_pyarrow_type(feature.dtype)
        )
        for projection in service.feature_view_projections
        for feature in projection.features
    ]


def check_rows(asked: pd.DataFrame, got: pa.Table, fields: list[pa.Field]) -> None:
    """Raise CheckFailed unless `got` has the rows of `asked`, in order, and after its columns exactly `fields`."""
    if got.num_rows != len(asked):
        raise CheckFailed(f"training_set: asked Feast for {len(asked)} rows and got {got.num_rows}")
    keys = ["review_id", "user_id", "business_id"]
    differ = (got.select(keys).to_pandas().to_numpy() != asked[keys].to_numpy()).any(axis=1)
    if differ.any():
        row = int(differ.argmax())
        raise CheckFailed(
            f"training_set: row {row} came back as review {got['review_id'][row]}, asked was"
            f" {asked['review_id'][row]}; {int(differ.sum())} rows differ"
        )
    expected = [*asked.columns, *(field.name for field in fields)]
    if got.column_names != expected:
        raise CheckFailed(f"training_set: Feast gave the columns {got.column_names}, expected {expected}")
    for field in fields:
        if got.schema.field(field.name).type != field.type:
            found = got.schema.field(field.name).type
            raise CheckFailed(f"training_set: {field.name} has type {found}, the feature view says {field.type}")


def ask(store: "FeatureStore", service: "FeatureService", asked: pd.DataFrame) -> pa.Table:
    """The features of the entity rows `asked`, by their full names, nulls as Feast gives them; row checks included."""
    fields = feature_fields(service)
    got = store.get_historical_features(asked, service, full_feature_names=True).to_arrow()
    check_rows(asked, got, fields)
    return got.select([field.name for field in fields])


def side_by_side(review_ids: pa.ChunkedArray, answers: Mapping[str, pa.Table]) -> pa.Table:
    """The features of all models (model -> its service's answer, a row a review), those of several models once.

    CheckFailed names a feature that is not the same to two models.
    """
    joined: dict[str, pa.ChunkedArray] = {}
    first: dict[str, str] = {}  # feature -> the model whose answer was taken
    for model, features in answers.items():
        for name in features.column_names:
            if first.setdefault(name, model) == model:
                joined[name] = features[name]
            elif not features[name].equals(joined[name]):
                pairs = zip(joined[name], features[name], strict=True)
                row, one, other = next((at, *pair) for at, pair in enumerate(pairs) if not pair[0].equals(pair[1]))
                raise CheckFailed(
                    f"training_set: review {review_ids[row]}, {name}: {one} to the model {first[name]} and {other} to"
                    f" {model}; give both the same view in feature_repo/services.py"
                )
    return pa.table(joined)


def registered_services(repo: Path, dump: Path, protocol: Protocol) -> "tuple[FeatureStore, dict[str, FeatureService]]":
    """The store, and each model's feature service under `protocol`; UserError where a feature table is missing."""
    store = registered_store(repo, dump)
    from feast import FileSource
    from naming import service_name

    services = {model: store.get_feature_service(service_name(model, protocol)) for model in FEATURES_OF_MODEL}
    for projection in (one for service in services.values() for one in service.feature_view_projections):
        source = store.get_feature_view(projection.name).batch_source
        if isinstance(source, FileSource) and not (repo / source.path).is_file():
            raise UserError(f"{repo / source.path}: no such feature table; run `dvc repro` to make it")
    return store, services


def main(args: argparse.Namespace, params: Params) -> None:
    members = read_members(args.reviews, args.split, params.protocol)
    members = with_photos(members, args.photos, args.descriptions)
    counts = visible_counts(members, params.protocol, params.history.leave_out)
    import_from(args.repo)
    store, services = registered_services(args.repo, args.registry, params.protocol)
    from filling import fill_counts

    with (
        whole_folder(args.out) as made,
        tqdm(total=members.num_rows, desc="training set", unit="row", delay=1) as progress,
    ):
        for split in SPLITS:
            chosen = pc.equal(members["split"], split)
            rows = members.filter(chosen)
            asked = entity_frame(rows, params.protocol, params.history)
            answers = {model: ask(store, service, asked) for model, service in services.items()}
            features = side_by_side(rows["review_id"], answers)
            check_history(rows["review_id"], features, counts.filter(chosen), params.protocol)
            filled = fill_counts(features)
            schema = pa.schema([*TRAINING_SET_KEYS, *filled.schema])
            columns = [*rows.select(TRAINING_SET_KEYS.names).columns, *filled.columns]
            write_table(pa.table(columns, names=schema.names), made / f"{split}.parquet", schema)
            progress.update(rows.num_rows)


if __name__ == "__main__":
    run_stage(
        main,
        __doc__,
        {
            "reviews": "the review table",
            "split": "the membership table",
            "photos": "the photo table",
            "descriptions": "the photos' descriptions",
            "repo": "the Feast feature repo",
            "registry": "the dump of what is registered",
            "out": "the folder of train, validation and test rows to write",
        },
    )
