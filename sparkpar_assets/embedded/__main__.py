"""The command line of the embedded stack."""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

from sparkpar_assets.embedded import environment, processes
from sparkpar_assets.embedded.errors import EmbeddedError, command_line
from sparkpar_assets.embedded.stack import Health, Stack
from sparkpar_assets.embedded.state import State


def main() -> None:
    """Run one command; what a user can mend ends in two sentences and exit code 1."""
    arguments = _parser().parse_args()
    command: Callable[[argparse.Namespace], int] = arguments.command
    try:
        with command_line():
            sys.exit(command(arguments))
    except KeyboardInterrupt:
        print("\nInterrupted. Run the same command again to go on.", file=sys.stderr)
        sys.exit(130)


def up(_: argparse.Namespace) -> int:
    """Start what does not run, and wait until all serve."""
    Stack.of_environment().up()
    return 0


def down(_: argparse.Namespace) -> int:
    """Stop all servers; keep the data."""
    Stack.of_state(State.of_environment()).down()
    return 0


def status(_: argparse.Namespace) -> int:
    """Show each server; exit code 0 if all are healthy."""
    stack = Stack.of_state(State.of_environment())
    statuses = stack.status()
    print(f"{'SERVER':<16} {'STATE':<10} {'PID':<8} ADDRESS")
    for line in statuses:
        pid = line.pid or "-"
        print(f"{line.server.name:<16} {line.health:<10} {pid:<8} {line.server.address}")
    print(f"\nWarm driver: {stack.warm_driver()}")
    print(f"Logs: {stack.state.logs}")
    for line in statuses:
        if line.health in (Health.DEAD, Health.UNHEALTHY):
            print(f"\n{line.server.name} is {line.health}. The end of its log:")
            print(stack.end_of_log(line.server))
    return 0 if all(line.health is Health.HEALTHY for line in statuses) else 1


def env(_: argparse.Namespace) -> int:
    """Print the lines that lead a shell to the stack."""
    stack = _prepared_stack()
    if not stack.is_healthy():
        print("Note: not all servers run. Start them by ./run.sh embedded up.", file=sys.stderr)
    print(environment.shell_lines(stack.config))
    return 0


def load(arguments: argparse.Namespace) -> int:
    """Create or replace a table from a Parquet file."""
    from sparkpar_assets.embedded import tables

    loaded = tables.load(_prepared_stack().config, arguments.table, arguments.file)
    print(f"==> {loaded.name}: {loaded.rows:,} rows")
    return 0


def logs(arguments: argparse.Namespace) -> int:
    """Print the end of one log or all; follow it with -f."""
    stack = Stack.of_state(State.of_environment())
    names = [server.name for server in stack.servers]
    if arguments.server not in (None, *names):
        raise EmbeddedError(
            f"There is no server {arguments.server}.", f"The servers are: {', '.join(names)}."
        )
    chosen = [arguments.server] if arguments.server else names
    for name in chosen:
        file = processes.log_file(stack.state, name)
        print(f"==> {file}", file=sys.stderr)
        print(processes.end_of_log(file, lines=1000 if arguments.server else 10))
    if arguments.follow:
        _follow([processes.log_file(stack.state, name) for name in chosen])
    return 0


def _follow(files: list[Path]) -> None:
    """Print what is appended to files, until Ctrl-C."""
    positions = {file: file.stat().st_size if file.exists() else 0 for file in files}
    while True:
        for file, position in positions.items():
            size = file.stat().st_size if file.exists() else 0
            if size < position:  # the server was started anew
                positions[file] = 0
            elif size > position:
                with file.open("rb") as log:
                    log.seek(position)
                    print(log.read().decode(errors="replace"), end="", flush=True)
                    positions[file] = log.tell()
        time.sleep(0.3)  # there is no portable way to be told that a file grew


def _prepared_stack() -> Stack:
    state = State.of_environment()
    if not state.environment_file.exists():
        raise EmbeddedError(
            "The embedded stack was never started.", "Start it by ./run.sh embedded up."
        )
    return Stack.of_state(state)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="run.sh embedded", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in (up, down, status, env):
        summary = (command.__doc__ or "").splitlines()[0]
        commands.add_parser(command.__name__, help=summary).set_defaults(command=command)
    loading = commands.add_parser("load", help=(load.__doc__ or "").splitlines()[0])
    loading.add_argument("table", metavar="TABLE", help="project.dataset.table")
    loading.add_argument("file", metavar="FILE.parquet", type=Path)
    loading.set_defaults(command=load)
    logging = commands.add_parser("logs", help=(logs.__doc__ or "").splitlines()[0])
    logging.add_argument("server", nargs="?")
    logging.add_argument("-f", "--follow", action="store_true", help="go on until Ctrl-C")
    logging.set_defaults(command=logs)
    return parser


if __name__ == "__main__":
    main()
