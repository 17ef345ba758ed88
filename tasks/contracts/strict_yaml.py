"""YAML in which a key that stands twice is an error and only decimal digits are a whole number.

PyYAML keeps the last of such keys and says nothing. By YAML 1.1 it also reads 0123 as octal, 0b1 as binary and 1:30 by
sixties: a digest that begins so would be another one.
"""

import re
from typing import Any

import yaml


class DuplicateKey(yaml.YAMLError):
    """A mapping has the same key twice; the text says which and where."""


_INTEGER = "tag:yaml.org,2002:int"
_DECIMAL = re.compile(r"[-+]?(?:0|[1-9][0-9_]*)$")


class _UniqueKeyLoader(yaml.SafeLoader):
    """A safe loader that looks at the keys as they are written, before anchors are merged into a mapping."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's own, which has no ClassVar
        first: [(tag, _DECIMAL if tag == _INTEGER else pattern) for tag, pattern in resolvers]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in seen:
                    line = key.start_mark.line + 1
                    raise DuplicateKey(f"the key {key.value!r} stands twice (the second time in line {line})")
                seen.add((key.tag, key.value))
        return node


def load_yaml(text: str) -> Any:
    """Return the value that a YAML text spells.

    Raises:
        DuplicateKey: a mapping has a key twice.
        yaml.YAMLError: the text is not YAML.
    """
    loader = _UniqueKeyLoader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()
