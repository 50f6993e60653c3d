"""How a feature service is called; imports nothing, so that anyone may ask."""

POINT_IN_TIME = "point_in_time"
LEAVE_ONE_OUT = "leave_one_out"


def service_name(model: str, protocol: str) -> str:
    """The feature service of a model (`params.yaml: model`) under a protocol (`params.yaml: protocol`)."""
    return f"{model}_{protocol}"
