"""Runs many command lines, each in a fork of one process that has imported what they need.

Takes a JSON list of [module, arguments] as its argument, and writes a list of
[exit code, standard output, standard error].
"""

import importlib
import json
import os
import sys


def outcome(module: str, arguments: list[str]) -> list:
    """Runs one command line in a fork."""
    files = [open(os.memfd_create("output"), "w+") for _ in range(2)]  # noqa: SIM115
    child = os.fork()
    if not child:
        for number, file in enumerate(files, 1):
            os.dup2(file.fileno(), number)
        sys.argv = [module, *arguments]
        code = 70
        try:
            main = importlib.import_module(f"experiments.{module}").main
            importlib.import_module("experiments.app").run(main)
        except SystemExit as leaving:
            code = leaving.code
        finally:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    for file in files:
        file.seek(0)
    return [code, *(file.read() for file in files)]


if __name__ == "__main__":
    # Importing starts no threads; a backend would.
    importlib.import_module("vae_jax.run")
    importlib.import_module("vae_jax.train.setup")
    print(json.dumps([outcome(*case) for case in json.loads(sys.argv[1])]))
