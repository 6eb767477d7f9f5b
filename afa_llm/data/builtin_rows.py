"""The data that we make ourselves, as a source: builtin:planted and builtin:checklist."""

from __future__ import annotations

from dataclasses import replace

from afa_llm.config_data import Source
from afa_llm.data.checklist import checklist_examples
from afa_llm.data.labels import OTHER, LabelMapping
from afa_llm.data.planted import CLASSES, DATA_SEED, SIZES, planted_examples
from afa_llm.errors import AfaError
from afa_llm.records import Example

NAMES = ("builtin:planted", "builtin:checklist")


def builtin_examples(source: Source, mapping: LabelMapping) -> list[Example]:
    """The builtin reviews in their default number, always the same, with the classes of the mapping.

    Raises AfaError: unknown name or split, or labels that lack negative or positive.
    """
    unknown = [name for name in ("where", "exclude_ids", "part") if getattr(source, name)]
    if unknown:
        raise AfaError(
            f"{source.path}: {unknown[0]} is for files and hub data; the builtin sets have max_samples alone"
        )
    if source.path == "builtin:planted":
        examples = planted_examples(source.split, SIZES.get(source.split, 0), DATA_SEED)
    elif source.path == "builtin:checklist":
        examples = checklist_examples()
    else:
        raise AfaError(f"{source.path}: no such builtin data; there are {', '.join(NAMES)}")
    classes = [_class(source, mapping, value, name) for value, name in enumerate(CLASSES)]
    return [
        replace(example, example_id=f"{source.title}/{k}", label=classes[example.label])
        for k, example in enumerate(examples, 1)
    ]


def _class(source: Source, mapping: LabelMapping, value: int, name: str) -> int:
    """The name comes before the number: among three or five classes 1 is not positive."""
    if name in mapping.names:
        return mapping.names.index(name)
    found = [label for label in map(mapping.find, (name, value)) if label is not None]
    if not found:
        raise AfaError(
            f"{source.path}: its labels are 0 (negative) and 1 (positive), and data.labels "
            f"({', '.join(mapping.names)}) lacks {value}; name reviews of your own (data.train.path, data.evaluation), "
            f"or add {value} to the label that it means"
        )
    return next((label for label in found if label != OTHER), OTHER)
