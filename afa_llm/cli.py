"""The command `afa`: verbs, their help, and exit codes.

0 done; 1 a crash, with a traceback; 2 something the user can mend; 75 stopped by a signal, run.resume=true continues;
76 another rank was lost; 130 interrupted from the keyboard.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from afa_llm.endings import end_process, told_endings
from afa_llm.errors import INTERRUPTED, AfaError, PeerLostError

CONFIG_HELP = "YAML file, or builtin:demo; left out: all defaults"
LEADER_SECONDS = 20.0  # for rank 0 to meet the same error
OVERRIDE_HELP = "settings laid over the file, such as training.epochs=2 masking.direction=attended"


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Entry point of `afa` and `python -m afa_llm`. Ends the process."""
    given = sys.argv[1:] if arguments is None else arguments
    # The deepspeed launcher puts --local_rank=N before the verb; the rank is in the environment too.
    options = _options([a for a in given if not a.startswith("--local_rank=")])
    try:
        with told_endings():
            options.run(options)
    except AfaError as error:
        tells = error.told_here if isinstance(error, PeerLostError) else os.environ.get("RANK", "0") == "0"
        if not tells and type(error) is AfaError:
            # The launcher ends all ranks once one has ended: rank 0 first says what is wrong. Where it does not come
            # to the same end, this rank says it.
            time.sleep(LEADER_SECONDS)
            tells = True
        if tells:
            print(f"afa {options.verb}: {error}", file=sys.stderr, flush=True)
        end_process(error.exit_code)
    except KeyboardInterrupt:
        end_process(INTERRUPTED)
    end_process(0)


def _options(given: Sequence[str]) -> argparse.Namespace:
    """Overrides may stand after options too, where argparse leaves them over."""
    parser = _parser()
    options, left_over = parser.parse_known_args(given)
    strange = [a for a in left_over if a.startswith("-") or not hasattr(options, "overrides")]
    if strange:
        parser.error(f"unrecognized arguments: {' '.join(strange)}")
    if left_over:
        options.overrides = [*options.overrides, *left_over]
    return options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="afa",
        description="Teach a decoder LLM to look at the words that decide: adversarial feedback for attention (AFA).",
        epilog="Start with `afa demo`. `afa VERB --help` explains a verb, `afa config --explain` every setting. "
        "Exit codes: 0 done, 1 crash, 2 something you can mend, 75 stopped by a signal (run.resume=true continues), "
        "76 another rank was lost, 130 interrupted.",
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    demo = verbs.add_parser(
        "demo",
        help="the whole job on the packaged model and data",
        description="Measure, train, measure again and report, on the packaged pocket model and the planted-focus data "
        "(frequent words mislead, rare words decide). Needs no network and no GPU.",
    )
    demo.add_argument("overrides", nargs="*", metavar="section.key=value", help=OVERRIDE_HELP)
    demo.set_defaults(run=_demo)
    train = verbs.add_parser(
        "train",
        help="measure, train, measure again, report",
        description="One run: prompted sentiment and focus quality before, AFA training, the same after, a report. "
        "Everything lands in run.output_dir/run.name. For several processes start it with the deepspeed launcher: "
        "deepspeed --num_gpus 8 --module afa_llm train CONFIG training.engine=deepspeed",
    )
    _takes_config(train)
    train.set_defaults(run=_train)
    evaluate = verbs.add_parser(
        "evaluate",
        help="measure a model, with or without an adapter",
        description="Prompted sentiment and focus quality of the base model and, with --adapter, of the tuned one, on "
        "the same reviews through the same decoder, with paired tests.",
    )
    _takes_config(evaluate)
    evaluate.add_argument("--adapter", type=Path, metavar="DIR", help="a run's adapter/ folder")
    evaluate.set_defaults(run=_evaluate)
    _add_doctor(verbs)
    _add_plan(verbs)
    suites = verbs.add_parser(
        "suites",
        help="list the data suites and where they are",
        description="Every data set that can be named suite:<name> in data.*.path: what it is, which splits lie in the "
        "local folder (data.suites_dir, or AFA_DATA in the environment), and what the hub has.",
    )
    _takes_config(suites)
    suites.set_defaults(run=_suites)
    _add_benchmark(verbs)
    report = verbs.add_parser(
        "report",
        help="write a run's report.html anew",
        description="Build report.html from the files of a run (results.json, metrics.jsonl, items/).",
    )
    report.add_argument("folder", type=Path, metavar="RUN", help="a run's folder, such as runs/demo")
    report.set_defaults(run=_report)
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
    inspect.set_defaults(run=_inspect)
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
    layers.set_defaults(run=_layers)
    config = verbs.add_parser(
        "config",
        help="print the resolved settings",
        description="Check a configuration and print it with every default filled in, as YAML.",
    )
    _takes_config(config)
    config.add_argument("--explain", action="store_true", help="print every setting with its meaning instead")
    config.set_defaults(run=_config)
    return parser


def _add_doctor(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    from afa_llm.doctor.options import DESCRIPTION, add_options

    doctor = verbs.add_parser("doctor", help="check every node before a run", description=DESCRIPTION)
    _takes_config(doctor)
    add_options(doctor)
    doctor.set_defaults(run=_doctor)


def _add_plan(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    from afa_llm.planning.options import DESCRIPTION, add_options

    plan = verbs.add_parser("plan", help="say before a run whether it fits", description=DESCRIPTION)
    _takes_config(plan)
    add_options(plan)
    plan.set_defaults(run=_plan)


def _add_benchmark(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    from afa_llm.benchmark.options import DESCRIPTION, add_options

    benchmark = verbs.add_parser("benchmark", help="a matrix of arms, data sets and seeds", description=DESCRIPTION)
    add_options(benchmark)
    benchmark.set_defaults(run=_benchmark)


def _takes_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", nargs="?", metavar="CONFIG", help=CONFIG_HELP)
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help=OVERRIDE_HELP)


def _demo(options: argparse.Namespace) -> None:
    from afa_llm.config_loading import load_config

    config = load_config("builtin:demo", options.overrides)
    _be_quiet()
    from afa_llm import jobs

    _finish(jobs.train(config))


def _train(options: argparse.Namespace) -> None:
    config = _load(options)
    _be_quiet()
    from afa_llm import jobs

    _finish(jobs.train(config))


def _evaluate(options: argparse.Namespace) -> None:
    config = _load(options)
    _be_quiet()
    from afa_llm import jobs

    _finish(jobs.evaluate(config, options.adapter))


def _doctor(options: argparse.Namespace) -> None:
    if options.agent:
        from afa_llm.doctor import agent

        return agent.serve()
    from afa_llm.doctor import command

    sys.exit(command.run(options, _load(options), _split(options)[0]))


def _plan(options: argparse.Namespace) -> None:
    config = _load(options)
    _be_quiet()
    from afa_llm.planning import command

    sys.exit(command.run(options, config))


def _suites(options: argparse.Namespace) -> None:
    from afa_llm.data.suite_listing import listing

    print("\n".join(listing(_load(options).data)))


def _benchmark(options: argparse.Namespace) -> None:
    _be_quiet()
    from afa_llm.benchmark import command

    sys.exit(command.run(options))


def _report(options: argparse.Namespace) -> None:
    from afa_llm.evaluation.report import rewrite_report

    print(rewrite_report(options.folder))


def _inspect(options: argparse.Namespace) -> None:
    from rich.console import Console

    from afa_llm.config_loading import load_config

    adapter = options.adapter
    if options.folder:
        config = load_config(str(options.folder / "config.yaml"))
        adapter = adapter or options.folder / "adapter"
    else:
        config = load_config(options.config)
    _be_quiet()
    from afa_llm import jobs

    jobs.inspect(config, options.texts, adapter, Console())


def _layers(options: argparse.Namespace) -> None:
    from rich.console import Console

    config = _load(options)
    _be_quiet()
    from afa_llm import jobs

    jobs.layers(config, options.reviews, options.adapter, Console())


def _reviews(text: str) -> int:
    if not text.isdigit() or int(text) < 2:
        raise argparse.ArgumentTypeError(f"{text!r}: a whole number from 2 up")
    return int(text)


def _config(options: argparse.Namespace) -> None:
    from afa_llm.config_loading import dump_config, explain_settings

    config = _load(options)
    print(explain_settings() if options.explain else dump_config(config), end="")


def _load(options: argparse.Namespace):  # type: ignore[no-untyped-def]
    from afa_llm.config_loading import load_config

    return load_config(*_split(options))


def _split(options: argparse.Namespace) -> tuple[str | None, list[str]]:
    """CONFIG, which may be left out, and the overrides."""
    path, overrides = options.config, list(options.overrides)
    if path == "":  # an unset variable of a script: the defaults are not what was meant
        raise AfaError("CONFIG is empty; name a YAML file or builtin:demo, or leave it out for all defaults")
    if path and "=" in path and not Path(path).exists():
        path, overrides = None, [path, *overrides]
    return path, overrides


def _finish(folder: Path) -> None:
    from afa_llm.run_results import summary_lines

    if os.environ.get("RANK", "0") == "0":
        print("\n".join(summary_lines(folder)))
        print(f"report: {folder / 'report.html'}")


def _be_quiet() -> None:
    """Libraries speak when something is wrong, not to announce themselves."""
    import logging

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # a lost rank is told once, not by C++ stack traces
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=UserWarning, module="torch")
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    for name in ("bitsandbytes", "DeepSpeed", "transformers", "datasets"):
        logging.getLogger(name).setLevel(logging.ERROR)
