"""The feature views: what is known of a user and of a business, served online and as a review may see it.

A new group of features is a list of fields and a `views_of` line for each entity that has it.
"""

from collections.abc import Sequence
from datetime import timedelta

from entities import business, review, user
from feast import Entity, FeatureView, Field
from feast.types import Array, Float32, Float64, Int64, String, UnixTimestamp
from sources import feature_table

# Rows are found whatever their age: a history does not expire.
NEVER_EXPIRES = timedelta(0)

HISTORY = [
    Field(name="review_count", dtype=Int64, description="Visible reviews"),
    Field(name="rating_mean", dtype=Float64, description="Mean stars of the visible reviews"),
    Field(name="rating_std", dtype=Float64, description="Their population standard deviation, in stars"),
    Field(name="rating_trend", dtype=Float64, description="Mean stars of the newest less the mean of all"),
    Field(name="newest_review_at", dtype=UnixTimestamp, description="Instant of the newest visible review"),
]
TEXT = [Field(name="embedding", dtype=Array(Float32), description="Mean embedding of the visible reviews' texts")]
PHOTOS = [
    Field(name="caption_embedding", dtype=Array(Float32), description="Mean embedding of the visible photos' captions"),
    Field(name="image_embedding", dtype=Array(Float32), description="Mean ResNet50 features of the visible photos"),
]
SUMMARY = [
    Field(name="embedding", dtype=Array(Float32), description="Embedding of the newest visible summary"),
    Field(name="snapshot_id", dtype=String, description="The snapshot it is of, a row of summaries.parquet"),
]
TAGS = [
    Field(name="price_tag", dtype=String, description="overpriced, fair, cheap or none, as the visible reviews say"),
    Field(name="subtypes", dtype=Array(String), description="At most 11 of 179 restaurant types, most fitting first"),
    Field(name="snapshot_id", dtype=String, description="The snapshot they are of, a row of tags.parquet"),
]


def views_of(name: str, entity: Entity, features: Sequence[Field], stage: str) -> tuple[FeatureView, FeatureView]:
    """The view `name` of `entity`, and `<name>_by_review`: the same features as leave_one_out lets a review see them.

    `stage` makes their tables.

    The schema is spelt out, key included, so that `feast apply` reads no file.
    """

    def view(view_name: str, key: Entity, online: bool) -> FeatureView:
        return FeatureView(
            name=view_name,
            entities=[key],
            schema=[Field(name=key.join_key, dtype=String), *features],
            source=feature_table(view_name, stage),
            ttl=NEVER_EXPIRES,
            online=online,
        )

    return view(name, entity, online=True), view(f"{name}_by_review", review, online=False)


user_history, user_history_by_review = views_of("user_history", user, HISTORY, "history")
business_history, business_history_by_review = views_of("business_history", business, HISTORY, "history")
user_text, user_text_by_review = views_of("user_text", user, TEXT, "history")
business_text, business_text_by_review = views_of("business_text", business, TEXT, "history")
business_photos, business_photos_by_review = views_of("business_photos", business, PHOTOS, "history")
user_summary, user_summary_by_review = views_of("user_summary", user, SUMMARY, "summarize")
business_summary, business_summary_by_review = views_of("business_summary", business, SUMMARY, "summarize")
business_tags, business_tags_by_review = views_of("business_tags", business, TAGS, "tag")
