"""Looks that a run takes before Spark starts: what is missing would show late, and unreadably."""

import socket
import tomllib
from contextlib import suppress
from pathlib import Path

import dagster as dg
from pydantic import SecretStr

from sparkpar_assets.resources.environment import RunEnvironment
from sparkpar_assets.resources.java import JavaNotUsableError, find_java_home
from sparkpar_assets.resources.s3 import check_bucket
from sparkpar_assets.resources.spark_configuration import cluster_secret
from sparkpar_assets.resources.spark_security import refusal
from sparkpar_assets.settings import Settings

MASTER_TIMEOUT_SECONDS = 5


def check_before_start(environment: RunEnvironment) -> str:
    """Make sure that jars, bucket and master are there.

    Returns:
        The home folder of the Java to use.

    Raises:
        dg.Failure: There is no usable Java, jar, bucket or master.
    """
    settings = environment.settings
    java_home = _java_home(settings)
    check_jars(Path(settings.jars_dir))
    check_bucket(settings, environment.s3)
    check_master(settings.spark_master, cluster_secret(settings))
    return java_home


def check_jars(jars_dir: Path) -> None:
    """Make sure that every jar that ``jars.toml`` pins is there.

    A missing one would show as a ClassNotFoundException in the middle of a run.

    Raises:
        dg.Failure: One is missing, by name.
    """
    manifest = jars_dir / "jars.toml"
    if not manifest.is_file():
        return  # A folder of the user's own: what it holds is up to them.
    pinned = tomllib.loads(manifest.read_text())["jar"]
    needed = [
        "-".join(jar["coordinates"].split(":")[1:]) + ".jar"
        for jar in pinned
        if not jar.get("group") and not jar.get("server")
    ]
    missing = [name for name in needed if not (jars_dir / name).is_file()]
    if missing:
        raise dg.Failure(
            f"{'A jar is' if len(missing) == 1 else 'Jars are'} missing from {jars_dir}: "
            f"{', '.join(missing)}. Run ./download_jars.sh.",
            allow_retries=False,
        )


def check_master(master: str, secret: SecretStr | None = None) -> None:
    """Make sure that a standalone master answers, and would let the driver in.

    Spark itself tries for a minute, then hangs, or fails wherever it is by then.

    Args:
        master: A master URL; only ``spark://host:port[,host:port…]`` is looked at.
        secret: What the driver knows of the cluster's secret.

    Raises:
        dg.Failure: None of the hosts accepts a connection, or the one that does wants another
            secret.
    """
    if not master.startswith("spark://"):
        return
    reasons = []
    for address in master.removeprefix("spark://").split(","):
        host, _, port = address.rpartition(":")
        try:
            connection = socket.create_connection((host, int(port)), MASTER_TIMEOUT_SECONDS)
        except (OSError, ValueError) as error:
            reasons.append(f"{address}: {error}")
            continue
        with connection:
            _check_secret(connection, master, secret)
        return
    raise dg.Failure(
        f"No Spark master answers at {master} ({'; '.join(reasons)}). "
        "Start the cluster, or correct SPARK_MASTER_URL.",
        allow_retries=False,
    )


def _check_secret(connection: socket.socket, master: str, secret: SecretStr | None) -> None:
    why = ""
    with suppress(OSError):  # a master that does not say may be busy: the driver will see
        why = refusal(connection, secret.get_secret_value() if secret else None)
    if why:
        raise dg.Failure(
            f"The Spark master at {master} would not let the run in: {why}. Set "
            "SPARK_AUTH_SECRET_FILE to a file with the cluster's spark.authenticate.secret, or "
            "unset it where the cluster asks for none.",
            allow_retries=False,
        )


def _java_home(settings: Settings) -> str:
    try:
        return find_java_home(settings.java_home)
    except JavaNotUsableError as error:
        raise dg.Failure(str(error), allow_retries=False) from None
