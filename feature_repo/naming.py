"""How a feature service is called; imports nothing, so that anyone may ask."""

POINT_IN_TIME = "point_in_time"
LEAVE_ONE_OUT = "leave_one_out"


def service_name(model: str, protocol: str) -> str:
    """The feature service of a model (`params.yaml: model`) under a protocol (`params.yaml: protocol`)."""
    return f"{model}_{protocol}"


def online_service_name(feature_service: str) -> str:
    """The service that answers online for a model of `feature_service`: entities' newest rows, under both protocols.

    ValueError where the name is none that `service_name` makes.
    """
    for protocol in (POINT_IN_TIME, LEAVE_ONE_OUT):
        model = feature_service.removesuffix(f"_{protocol}")
        if model and model != feature_service:
            return service_name(model, POINT_IN_TIME)
    raise ValueError(f"feature service {feature_service!r} ends in neither {POINT_IN_TIME} nor {LEAVE_ONE_OUT}")
