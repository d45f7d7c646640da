"""gRPC keeps out of the forks that start Spark's JVM."""

import os
import subprocess
import sys

import pytest

from sparkpar_assets.project import PROJECT_ROOT

FORKS = 150
"""Where gRPC takes part in them, one of the first hundred hung at each of nine tries."""

STATE = """
from grpc._cython import cygrpc
import os
print(cygrpc.is_fork_support_enabled(), os.environ.get("GRPC_ENABLE_FORK_SUPPORT"))
"""
AS_A_RUN_DOES = """
import signal, subprocess, sys
from concurrent.futures import ThreadPoolExecutor

from sparkpar_assets.resources.grpc_loading import load_grpc

load_grpc()
import grpc

echo = grpc.unary_unary_rpc_method_handler(lambda request, _: request)
handler = grpc.method_handlers_generic_handler("test.Test", {"Echo": echo})
if sys.argv[1] == "serve":
    server = grpc.server(ThreadPoolExecutor(1), handlers=[handler])
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    server.start()
    sys.stdin.read()
else:
    for _ in range(int(sys.argv[2])):
        with grpc.insecure_channel(f"127.0.0.1:{sys.argv[1]}") as channel:
            channel.unary_unary("/test.Test/Echo")(b"", timeout=60)
        # As PySpark starts its JVM.
        ignore = lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)
        subprocess.run(["true"], preexec_fn=ignore, check=True)
"""


def python(code: str, *arguments: str, **variables: str) -> str:
    """What a Python program prints."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=PROJECT_ROOT,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    ).stdout


@pytest.mark.parametrize(
    ("variables", "said"),
    [({}, "False None"), ({"GRPC_ENABLE_FORK_SUPPORT": "1"}, "True 1")],
)
def test_the_environment_is_as_before_and_what_the_user_wants_stays(
    variables: dict[str, str], said: str
) -> None:
    load = "from sparkpar_assets.resources.grpc_loading import load_grpc; load_grpc()"
    assert python(f"{load}\n{STATE}", **variables).strip() == said


def test_processes_are_started_after_channels_were_closed() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", AS_A_RUN_DOES, "serve"],
        cwd=PROJECT_ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdout
        try:
            python(AS_A_RUN_DOES, server.stdout.readline().strip(), str(FORKS))
        finally:
            server.kill()
