"""How the stack's Java servers are run."""

import importlib.util
from pathlib import Path

from sparkpar_assets.embedded.ports import HOST
from sparkpar_assets.embedded.server import StackConfig, clean_environment


def java_command(config: StackConfig, *arguments: str, heap: str = "256m") -> list[str]:
    """A java command for a small server: quick to start and frugal, not fast on much data."""
    return [
        f"{config.java_home}/bin/java",
        f"-Xmx{heap}",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        "-XX:-UsePerfData",  # else it writes into /tmp
        f"-Djava.io.tmpdir={config.state.temporary}",
        *arguments,
    ]


def spark_command(
    config: StackConfig, main_class: str, *arguments: str, properties: dict[str, str]
) -> list[str]:
    """The command that Spark's own ``spark-class`` would build.

    That script starts a JVM only to compose this line: half a second for each server.
    """
    return java_command(
        config,
        *(f"-D{name}={value}" for name, value in properties.items()),
        "-cp",
        f"{spark_home()}/jars/*",
        main_class,
        *arguments,
        heap="384m",
    )


def spark_environment(config: StackConfig) -> dict[str, str]:
    """The environment of Spark's servers, and through the workers of every executor."""
    return {
        **clean_environment(config.state),
        "JAVA_HOME": config.java_home,
        "SPARK_HOME": str(spark_home()),
        "SPARK_SCALA_VERSION": "2.12",
        "SPARK_LOCAL_IP": HOST,  # web interfaces would listen on all addresses
        "SPARK_PUBLIC_DNS": HOST,
        "SPARK_LOCAL_DIRS": str(config.state.temporary),
        "NO_GCE_CHECK": "true",  # the executors' Google client would look for a metadata server
    }


def spark_home() -> Path:
    """The folder of the installed pyspark, which holds a whole Spark."""
    spec = importlib.util.find_spec("pyspark")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("pyspark is not installed")
    return Path(spec.origin).parent
