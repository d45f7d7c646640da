"""gRPC, loaded so that it keeps out of the forks by which a run starts its processes.

By itself gRPC stops its threads before each fork and starts them anew after it, in the child as in
the parent. PySpark forks to start the JVM, a moment after a channel of the Storage Read API was
closed. With gRPC 1.85 the parent then hung now and then, for good, or the child was aborted before
it became Java: "Java gateway process exited before sending its port number". What is forked here
uses no gRPC before it has become another program, and so needs none of that.
"""

import os
import sys

from sparkpar_assets.resources.environment import variables

VARIABLE = "GRPC_ENABLE_FORK_SUPPORT"


def load_grpc() -> None:
    """Load gRPC, which reads the variable as it is loaded, and never again.

    To be called before the first import of one of Google's clients, which load it. Where it is
    loaded already, or the variable is set, nothing is changed.
    """
    if "grpc" in sys.modules:
        return
    with variables({VARIABLE: os.environ.get(VARIABLE, "0")}):
        import grpc  # noqa: F401  # for what it reads now
