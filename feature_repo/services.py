"""The feature services: one per model and protocol, with the same full feature names under both protocols."""

from collections.abc import Sequence

import views
from feast import FeatureService, FeatureView
from naming import LEAVE_ONE_OUT, POINT_IN_TIME, service_name

# (a view, the same features by review)
Pair = tuple[FeatureView, FeatureView]

HISTORY: Sequence[Pair] = [
    (views.user_history, views.user_history_by_review),
    (views.business_history, views.business_history_by_review),
]
# The paper's figure 1: mean embeddings of texts, and what ResNet50 sees
BASELINE: Sequence[Pair] = [
    *HISTORY,
    (views.user_text, views.user_text_by_review),
    (views.business_text, views.business_text_by_review),
    (views.business_photos[["image_embedding"]], views.business_photos_by_review[["image_embedding"]]),
]
# The paper's figure 2: what language models made of the same
PROPOSED: Sequence[Pair] = [
    *HISTORY,
    (views.user_summary, views.user_summary_by_review),
    (views.business_summary, views.business_summary_by_review),
    (views.business_tags, views.business_tags_by_review),
    (views.business_photos[["caption_embedding"]], views.business_photos_by_review[["caption_embedding"]]),
]


def point_in_time_service(model: str, pairs: Sequence[Pair]) -> FeatureService:
    """What `model` reads online, and offline one microsecond before a review."""
    return FeatureService(name=service_name(model, POINT_IN_TIME), features=[view for view, _ in pairs])


def leave_one_out_service(model: str, pairs: Sequence[Pair]) -> FeatureService:
    """The same features by review, under the names of the views that are served online."""
    return FeatureService(
        name=service_name(model, LEAVE_ONE_OUT),
        features=[by_review.with_name(view.name) for view, by_review in pairs],
    )


baseline_point_in_time = point_in_time_service("baseline", BASELINE)
baseline_leave_one_out = leave_one_out_service("baseline", BASELINE)
proposed_point_in_time = point_in_time_service("proposed", PROPOSED)
proposed_leave_one_out = leave_one_out_service("proposed", PROPOSED)
