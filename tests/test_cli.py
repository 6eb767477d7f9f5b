"""The verbs that the command offers are those that it can do."""

from __future__ import annotations

import argparse

from afa_llm.cli import VERBS
from afa_llm.cli_options import build_parser


def test_every_verb_has_its_job() -> None:
    (verbs,) = (a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction))
    assert set(verbs.choices) == set(VERBS)
