"""YAML as this project reads and writes it: the core schema of YAML 1.2, and no key twice.

PyYAML follows YAML 1.1, where `no` is false, `010` is 8, `12:30` is 750 and `1e-3` is text. Labels and revisions of
data sets suffer from that; here they stay what they look like.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

FLOAT = re.compile(r"^[-+]?(?:0|[1-9][0-9]*|(?=\.[0-9]))(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?$")
CORE_SCHEMA = {
    "bool": (re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), "tTfF"),
    "int": (re.compile(r"^[-+]?(?:0|[1-9][0-9]*)$"), "-+0123456789"),
    "float": (FLOAT, "-+.0123456789"),
    "null": (re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""]),
    "merge": (re.compile(r"^<<$"), "<"),
}
PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")
UNUSABLE = re.compile("[\0\ud800-\udc7f\udd00-\udfff]")  # \udc80 to \udcff are bytes of a file name that is no UTF-8
MOST_VALUES = 1_000_000  # aliases written out; a few lines can unfold to billions


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, list[Any]] = {}  # noqa: RUF012 - PyYAML's own way

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            name = (key.tag, key.value) if isinstance(key, yaml.ScalarNode) else None
            if name and name in seen and not key.tag.endswith(":merge"):
                raise yaml.composer.ComposerError(None, None, f"{key.value!r} stands twice", key.start_mark)
            seen.add(name)
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Python's own errors (`!!int x`, a number of 5000 digits) get the line that they lack."""
        try:
            return super().construct_object(node, deep)
        except (ValueError, KeyError, AttributeError) as error:
            kind = node.tag.rpartition(":")[2]
            reason = f"{str(node.value)[:40]!r} cannot be read as {kind}"
            raise yaml.constructor.ConstructorError(None, None, reason, node.start_mark) from error

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> Any:
        """Escapes such as "\\0" and "\\ud800" make what no path, tokenizer or file can take. JSON, which is YAML,
        spells an emoji as the two halves of one character."""
        value = super().construct_scalar(node)
        if isinstance(value, str):
            value = PAIR.sub(lambda pair: pair[0].encode("utf-16-le", "surrogatepass").decode("utf-16-le"), value)
        if isinstance(value, str) and UNUSABLE.search(value):
            reason = f"{value[:40]!r} holds a null character or half of a surrogate pair"
            raise yaml.constructor.ConstructorError(None, None, reason, node.start_mark)
        return value

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Put in what `<<` merges: a mapping's own keys win, then the mappings merged, the first one first.

        PyYAML 6.0.4 lets the first key of a chain of merges win, whoever owns it; so this is done here.
        """
        merged: dict[Any, tuple[yaml.Node, yaml.Node]] = {}
        own: dict[Any, tuple[yaml.Node, yaml.Node]] = {}
        for key, value in node.value:
            if not key.tag.endswith(":merge"):
                own[_identity(key)] = (key, value)
                continue
            for source in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                if not isinstance(source, yaml.MappingNode):
                    raise yaml.constructor.ConstructorError(None, None, "<< merges mappings only", source.start_mark)
                self.flatten_mapping(source)
                for name, value_of in source.value:
                    merged.setdefault(_identity(name), (name, value_of))
        node.value = list((merged | own).values())


def _identity(key: yaml.Node) -> Any:
    return (key.tag, key.value) if isinstance(key, yaml.ScalarNode) else id(key)


def _unfolded(node: yaml.Node | None, known: dict[int, int]) -> int:
    """How many values a node holds with all aliases written out; one that holds itself counts once."""
    if not isinstance(node, yaml.CollectionNode):
        return 1
    if id(node) not in known:
        known[id(node)] = 1
        parts = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else node.value
        known[id(node)] += sum(_unfolded(part, known) for part in parts)
    return known[id(node)]


class _Dumper(yaml.SafeDumper):
    """Quotes what either schema would misread."""


for _name, (_pattern, _first) in CORE_SCHEMA.items():
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", _pattern, list(_first))
_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", FLOAT, list("-+.0123456789"))


class YamlError(ValueError):
    """Not YAML, or a key twice. `line` counts from 1, None where unknown."""

    def __init__(self, reason: str, line: int | None) -> None:
        super().__init__(reason)
        self.line = line


def load_yaml(text: str) -> Any:
    """The value of a YAML text. Raises YamlError."""
    try:
        loader = _Loader(text)  # a SafeLoader
        node = loader.get_single_node()
        if _unfolded(node, {}) > MOST_VALUES:
            raise YamlError(f"its aliases unfold to more than {MOST_VALUES:,} values", None)
        return None if node is None else loader.construct_document(node)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        reason = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise YamlError(reason, mark.line + 1 if mark else None) from None
    except RecursionError:
        raise YamlError("nested too deeply", None) from None


def dump_yaml(values: Any) -> str:
    """A YAML text that `load_yaml` reads back to the same value, in the order given."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
