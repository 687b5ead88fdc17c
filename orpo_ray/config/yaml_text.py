"""YAML as a person means it: `1e-4` is a number, and a key that stands twice is a mistake."""

import re
from typing import Any

import yaml


class DuplicateKeyError(yaml.YAMLError):
    """A mapping has the same key twice; the later one would win without a word."""


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: dict[Any, int] = {}
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key, line = self.construct_object(key_node, deep=True), key_node.start_mark.line + 1
            if key in seen:
                raise DuplicateKeyError(f"`{key}` stands twice, in line {seen[key]} and in line {line}; keep one")
            seen[key] = line
        return super().construct_mapping(node, deep)


# YAML 1.1, which PyYAML reads, takes a number without a dot, or without a sign after the e, for text. This is 1.2's.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+"), list("-+0123456789.")
)


def read_yaml(text: str) -> Any:
    """The plain data in a YAML text.

    Raises:
        yaml.YAMLError: it is not valid, or has a key twice; says in which line.
    """
    return yaml.load(text, Loader=_Loader)
