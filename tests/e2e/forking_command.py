"""`afa`, imported once: reads a command a line from stdin (JSON: folder, arguments), runs it in a fork, and answers
with its exit code, stdout and stderr as JSON. Starting Python and importing torch takes seconds for each command.

Forked while there is one thread: what a child starts, no other child inherits.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import traceback

from afa_llm import jobs  # noqa: F401  # with all that it imports
from afa_llm.cli import main


def run(folder: str, arguments: list[str]) -> tuple[int, str, str]:
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = os.fork()
        if child == 0:
            os.chdir(folder)
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            code = 1
            try:
                main(arguments)
            except SystemExit as end:
                code = int(end.code or 0)
            except BaseException:
                traceback.print_exc()
            sys.stdout.flush()
            os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        texts = [(file.seek(0), file.read().decode())[1] for file in (out, err)]
    return code, texts[0], texts[1]


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(run(**json.loads(line))), flush=True)
