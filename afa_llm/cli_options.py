"""The verbs of `afa` with their options and help. What a verb does: cli.py."""

from __future__ import annotations

import argparse
from pathlib import Path

CONFIG_HELP = "YAML file, or builtin:demo; left out: all defaults"
OVERRIDE_HELP = "settings laid over the file, such as training.epochs=2 masking.direction=attended"


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="afa",
        description="Teach a decoder LLM to look at the words that decide: adversarial feedback for attention (AFA).",
        epilog="Start with `afa demo`. `afa VERB --help` explains a verb, `afa config --explain` every setting. "
        "Exit codes: 0 done, 1 crash, 2 something you can mend, 75 stopped by a signal (run.resume=true continues), "
        "76 another rank was lost, 130 interrupted.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    demo = verbs.add_parser(
        "demo",
        help="the whole job on the packaged model and data",
        description="Measure, train, measure again and report, on the packaged pocket model and the planted-focus data "
        "(frequent words mislead, rare words decide). Needs no network and no GPU.",
    )
    demo.add_argument("overrides", nargs="*", metavar="section.key=value", help=OVERRIDE_HELP)
    train = verbs.add_parser(
        "train",
        help="measure, train, measure again, report",
        description="One run: prompted sentiment and focus quality before, AFA training, the same after, a report. "
        "Everything lands in run.output_dir/run.name. For several processes start it with the deepspeed launcher: "
        "deepspeed --num_gpus 8 --module afa_llm train CONFIG training.engine=deepspeed",
    )
    _takes_config(train)
    evaluate = verbs.add_parser(
        "evaluate",
        help="measure a model, with or without an adapter",
        description="Prompted sentiment and focus quality of the base model and, with --adapter, of the tuned one, on "
        "the same reviews through the same decoder, with paired tests.",
    )
    _takes_config(evaluate)
    evaluate.add_argument("--adapter", type=Path, metavar="DIR", help="a run's adapter/ folder")
    _add_doctor(verbs)
    _add_plan(verbs)
    suites = verbs.add_parser(
        "suites",
        help="list the data suites and where they are",
        description="Every data set that can be named suite:<name> in data.*.path: what it is, which splits lie in the "
        "local folder (data.suites_dir, or AFA_DATA in the environment), and what the hub has.",
    )
    _takes_config(suites)
    _add_benchmark(verbs)
    report = verbs.add_parser(
        "report",
        help="write a run's report.html anew",
        description="Build report.html from the files of a run (results.json, metrics.jsonl, items/).",
    )
    report.add_argument("folder", type=Path, metavar="RUN", help="a run's folder, such as runs/demo")
    inspect = verbs.add_parser(
        "inspect",
        help="show where the model looks in a text",
        description="Print a text with its words shaded by the focus: what the position that predicts the answer "
        "attends to. With --run, base and tuned model one below the other.",
    )
    inspect.add_argument("texts", nargs="+", metavar="TEXT", help="a review, in quotes")
    inspect.add_argument("--config", metavar="CONFIG", help=CONFIG_HELP)
    inspect.add_argument("--run", dest="folder", type=Path, metavar="RUN", help="use a run's settings and adapter")
    inspect.add_argument("--adapter", type=Path, metavar="DIR", help="an adapter folder")
    layers = verbs.add_parser(
        "layers",
        help="say which layers attention.layers should name",
        description="For every layer: how well its focus fits what the answer comes from, found by hiding the words of "
        "training reviews one by one. No annotations are needed; where the data has some, the focus is held against "
        "them too. Ends with the layers to name, and what such a choice is worth on other reviews.",
    )
    _takes_config(layers)
    layers.add_argument("--reviews", type=_reviews, default=100, metavar="N", help="training reviews asked about (100)")
    layers.add_argument("--adapter", type=Path, metavar="DIR", help="ask a tuned model: a run's adapter/ folder")
    config = verbs.add_parser(
        "config",
        help="print the resolved settings",
        description="Check a configuration and print it with every default filled in, as YAML.",
    )
    _takes_config(config)
    config.add_argument("--explain", action="store_true", help="print every setting with its meaning instead")
    return parser


class _Version(argparse.Action):
    """argparse's own action wants the text while the parser is built, for every command."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import PackageNotFoundError, version

        try:
            print(f"afa-llm {version('afa-llm')}")
        except PackageNotFoundError:  # run from a checkout that is not installed
            print("afa-llm, not installed")
        parser.exit()


def _add_doctor(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    from afa_llm.doctor.options import DESCRIPTION, add_options

    doctor = verbs.add_parser("doctor", help="check every node before a run", description=DESCRIPTION)
    _takes_config(doctor)
    add_options(doctor)


def _add_plan(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    from afa_llm.planning.options import DESCRIPTION, add_options

    plan = verbs.add_parser("plan", help="say before a run whether it fits", description=DESCRIPTION)
    _takes_config(plan)
    add_options(plan)


def _add_benchmark(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    from afa_llm.benchmark.options import DESCRIPTION, add_options

    benchmark = verbs.add_parser("benchmark", help="a matrix of arms, data sets and seeds", description=DESCRIPTION)
    add_options(benchmark)


def _takes_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", nargs="?", metavar="CONFIG", help=CONFIG_HELP)
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help=OVERRIDE_HELP)


def _reviews(text: str) -> int:
    if not text.isdigit() or int(text) < 2:
        raise argparse.ArgumentTypeError(f"{text!r}: a whole number from 2 up")
    return int(text)
