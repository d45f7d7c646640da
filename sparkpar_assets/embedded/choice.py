"""Runs a module on the embedded stack if that runs, else on the environment as it is.

``python -m sparkpar_assets.embedded.choice MODULE ARGUMENTS``
"""

import os
import sys
from collections.abc import Mapping

from sparkpar_assets.embedded.environment import process_environment
from sparkpar_assets.embedded.errors import command_line
from sparkpar_assets.embedded.stack import Health, Stack
from sparkpar_assets.embedded.state import State
from sparkpar_assets.settings import ENV_FILE_VARIABLE


def main() -> None:
    """Become the module, in the environment that is chosen."""
    with command_line():
        values = chosen_environment(os.environ)
    command = [sys.executable, "-m", *sys.argv[1:]]
    os.execve(command[0], command, dict(values))  # noqa: S606  # its exit code is the module's


def chosen_environment(environ: Mapping[str, str]) -> Mapping[str, str]:
    """The embedded stack's environment, unless it does not run or ``environ`` names a file.

    A stack of which a part has died still counts: a command that was meant for it must not reach
    the clouds that ``.env`` names.
    """
    state = State.of_environment(environ)
    if environ.get(ENV_FILE_VARIABLE) or not state.environment_file.exists():
        return environ
    stack = Stack.of_state(state)
    if all(status.health is Health.STOPPED for status in stack.status()):
        return environ
    print("==> On the embedded stack", file=sys.stderr)
    return process_environment(stack.config, environ)


if __name__ == "__main__":
    main()
