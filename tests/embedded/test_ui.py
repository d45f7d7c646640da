"""./run.sh ui, without what it serves."""

from pathlib import Path

import psutil
import pytest

from sparkpar_assets.embedded import processes
from sparkpar_assets.embedded.errors import EmbeddedError
from sparkpar_assets.embedded.ports import PORTS_VARIABLE
from sparkpar_assets.embedded.stack import Stack
from sparkpar_assets.embedded.state import State
from sparkpar_assets.embedded.ui import DAEMON, _alone


@pytest.fixture
def stack(tmp_path: Path) -> Stack:
    state = State(tmp_path)
    state.create()
    return Stack.of_state(state, choose_from={PORTS_VARIABLE: "free"})


def test_a_second_one_on_the_same_stack_is_refused(stack: Stack) -> None:
    with (
        _alone(stack),
        pytest.raises(EmbeddedError, match=r"Another \./run\.sh ui serves this stack"),
        _alone(stack),
    ):
        pass


def test_what_a_killed_one_has_left_is_stopped_first(stack: Stack, tmp_path: Path) -> None:
    left = processes.start(DAEMON, ["/bin/sleep", "60"], {}, stack.state, tmp_path)
    server = processes.start("s3", ["/bin/sleep", "60"], {}, stack.state, tmp_path)
    with _alone(stack):
        assert not left.is_running() or left.status() == psutil.STATUS_ZOMBIE
        assert server.is_running()
    processes.stop([server])
