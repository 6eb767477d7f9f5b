"""The command `afa`: what its verbs do, and exit codes. Options and help: cli_options.py.

0 done; 1 a crash, with a traceback; 2 something the user can mend; 75 stopped by a signal, run.resume=true continues;
76 another rank was lost; 130 interrupted from the keyboard.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from afa_llm.cli_options import build_parser
from afa_llm.endings import end_process, told_endings
from afa_llm.errors import INTERRUPTED, AfaError, PeerLostError
from afa_llm.telling import results_console, tell

LEADER_SECONDS = 20.0  # for rank 0 to meet the same error


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Entry point of `afa` and `python -m afa_llm`. Ends the process."""
    given = sys.argv[1:] if arguments is None else arguments
    # The deepspeed launcher puts --local_rank=N before the verb; the rank is in the environment too.
    options = _options([a for a in given if not a.startswith("--local_rank=")])
    try:
        with told_endings():
            VERBS[options.verb](options)
    except AfaError as error:
        tells = error.told_here if isinstance(error, PeerLostError) else os.environ.get("RANK", "0") == "0"
        if not tells and type(error) is AfaError:
            # The launcher ends all ranks once one has ended: rank 0 first says what is wrong. Where it does not come
            # to the same end, this rank says it.
            time.sleep(LEADER_SECONDS)
            tells = True
        if tells:
            tell(f"afa {options.verb}: {error}")
        end_process(error.exit_code)
    except KeyboardInterrupt:
        end_process(INTERRUPTED)
    end_process(0)


def _options(given: Sequence[str]) -> argparse.Namespace:
    """Overrides may stand after options too, where argparse leaves them over."""
    parser = build_parser()
    options, left_over = parser.parse_known_args(given)
    strange = [a for a in left_over if a.startswith("-") or not hasattr(options, "overrides")]
    if strange:
        parser.error(f"unrecognized arguments: {' '.join(strange)}")
    if left_over:
        options.overrides = [*options.overrides, *left_over]
    return options


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
    from afa_llm.data.prompts import longest_answers
    from afa_llm.data.suites import with_labels
    from afa_llm.models.adapters import load_tokenizer
    from afa_llm.planning import command

    config = with_labels(config)
    try:
        answers = longest_answers(config.prompts, tuple(config.data.labels), load_tokenizer(config.model))
    except AfaError as error:  # config.json alone is enough for a plan
        tell(f"afa plan: answers are taken at one token, for theirs are not known: {error}")
        sys.exit(command.run(options, config))
    sys.exit(command.run(options, config, answers))


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
    from afa_llm.config_loading import load_config

    adapter = options.adapter
    if options.folder and options.config is not None:
        raise AfaError(
            f"--config {options.config}: --run {options.folder} brings that run's settings; leave one of the two out"
        )
    if options.folder:
        if not (options.folder / "config.yaml").is_file():
            raise AfaError(
                f"--run {options.folder}: no run, config.yaml is missing there; name a run's folder, such as runs/demo"
            )
        config = load_config(str(options.folder / "config.yaml"))
        adapter = adapter or options.folder / "adapter"
    else:
        config = load_config(options.config)
    _be_quiet()
    from afa_llm import jobs

    jobs.inspect(config, options.texts, adapter, results_console())


def _layers(options: argparse.Namespace) -> None:
    config = _load(options)
    _be_quiet()
    from afa_llm import jobs

    jobs.layers(config, options.reviews, options.adapter, results_console())


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
    if path and "=" in path and (_is_override(path) or not os.path.exists(path)):
        path, overrides = None, [path, *overrides]
    return path, overrides


def _is_override(text: str) -> bool:
    """Whether it has the form section.key=value with a section that there is; such a file is named as ./NAME."""
    from afa_llm.config_fields import ROOT

    form = re.match(r"(\w+)(\.[\w-]+)+=", text)
    return form is not None and ROOT.inner(form[1]) is not None


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


VERBS: dict[str, Callable[[argparse.Namespace], None]] = {
    "demo": _demo,
    "train": _train,
    "evaluate": _evaluate,
    "doctor": _doctor,
    "plan": _plan,
    "suites": _suites,
    "benchmark": _benchmark,
    "report": _report,
    "inspect": _inspect,
    "layers": _layers,
    "config": _config,
}
