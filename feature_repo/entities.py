"""Who and what a feature is about, and the project they belong to."""

from feast import Entity, Project, ValueType

project = Project(name="mmrec", description="What a user will like next, from reviews")

user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING, description="Who writes reviews")
business = Entity(
    name="business", join_keys=["business_id"], value_type=ValueType.STRING, description="What the reviews are about"
)
review = Entity(
    name="review",
    join_keys=["review_id"],
    value_type=ValueType.STRING,
    description="One review, for features that leave its own pair out; offline only",
)
