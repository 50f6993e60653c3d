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


def views_of(name: str, entity: Entity, features: Sequence[Field]) -> tuple[FeatureView, FeatureView]:
    """The view `name` of `entity`, and `<name>_by_review`: the same features as leave_one_out lets a review see them.

    The schema is spelt out, key included, so that `feast apply` reads no file.
    """

    def view(view_name: str, key: Entity, online: bool) -> FeatureView:
        return FeatureView(
            name=view_name,
            entities=[key],
            schema=[Field(name=key.join_key, dtype=String), *features],
            source=feature_table(view_name),
            ttl=NEVER_EXPIRES,
            online=online,
        )

    return view(name, entity, online=True), view(f"{name}_by_review", review, online=False)


user_history, user_history_by_review = views_of("user_history", user, HISTORY)
business_history, business_history_by_review = views_of("business_history", business, HISTORY)
user_text, user_text_by_review = views_of("user_text", user, TEXT)
business_text, business_text_by_review = views_of("business_text", business, TEXT)
