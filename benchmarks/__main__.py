"""Times the platform beside what one would use instead, on an embedded stack of its own.

``./run.sh bench``. What is left out: five rounds of one and of five real years, and of 2 and 10
million synthetic rows, with all contenders; some two hours on a quiet machine of two cores.
"""

import argparse
import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.benchmark import Plan, benchmark
from benchmarks.contenders import CONTENDERS, Contender
from benchmarks.workloads import SAMPLE, SIZE
from sparkpar_assets.embedded.errors import command_line
from sparkpar_assets.embedded.testing import fresh_stack
from sparkpar_assets.project import PROJECT_ROOT

QUICK: Mapping[str, Any] = {"rounds": 1, "sizes": [SAMPLE], "years": [1]}
BY_NAME = {contender.name: contender for contender in CONTENDERS}


def main() -> None:
    """Run the benchmark; a Ctrl-C stops it, and what was written stays."""
    arguments = _parser().parse_args()
    chosen = {name: value for name, value in vars(arguments).items() if value is not None}
    state, is_quick = chosen.pop("state"), chosen.pop("quick")
    command = shlex.join(["./run.sh", "bench", *sys.argv[1:]])
    plan = Plan(command, **{**(QUICK if is_quick else {}), **chosen})
    try:
        with command_line(), fresh_stack(state.absolute()) as stack:
            print(f"\n{benchmark(stack, plan).text()}")
            print(f"==> {plan.output / 'RESULTS.md'}")
    except KeyboardInterrupt:
        print("\nStopped. The results of the sizes that were finished are written.")
        sys.exit(130)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="run.sh bench", description=__doc__)
    add = parser.add_argument
    add("--quick", action="store_true", help="one round of one real year, in some minutes")
    add("--rounds", type=_positive, help="how often each contender works")
    add("--rounds-of-years", type=_positive, help="the same, of several real years in one run")
    add("--rounds-of-rows", type=_positive, help="the same, of synthetic years")
    add("--sizes", type=_list_of(_size), help="sample (the real trips), 2m, 10m, 40m, …")
    add("--years", type=_list_of(_positive), help="how many of the real years in one run: 1,2,5,10")
    add("--workers", type=_list_of(_positive), help="of Spark's, for the platform: 1,2")
    add("--contenders", type=_list_of(_contender), help=f"of {','.join(BY_NAME)}")
    add("--output", type=Path, default=PROJECT_ROOT / "benchmarks", help="folder of the results")
    add("--state", type=Path, default=PROJECT_ROOT / ".sparkpar" / "bench", help="of the servers")
    return parser


def _list_of(kind: Callable[[str], Any]) -> Callable[[str], list[Any]]:
    def parsed(text: str) -> list[Any]:
        return [kind(part.strip()) for part in text.split(",")]

    return parsed


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no number above 0")
    return int(text)


def _size(text: str) -> str:
    if text != SAMPLE and not SIZE.fullmatch(text):
        raise argparse.ArgumentTypeError(f"'{text}' is neither {SAMPLE} nor like 2m")
    return text


def _contender(text: str) -> Contender:
    if text not in BY_NAME:
        raise argparse.ArgumentTypeError(f"'{text}' is none of {', '.join(BY_NAME)}")
    return BY_NAME[text]


if __name__ == "__main__":
    main()
