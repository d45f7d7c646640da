"""The embedded stack's servers in containers: one a container, under their names in Compose."""

import argparse
import os

from sparkpar_assets.embedded import environment
from sparkpar_assets.embedded.bigquery_emulator import bigquery_emulator
from sparkpar_assets.embedded.credentials import create_certificates, write_service_account
from sparkpar_assets.embedded.errors import command_line
from sparkpar_assets.embedded.ports import DEFAULT_PORTS
from sparkpar_assets.embedded.s3_proxy import s3_proxy
from sparkpar_assets.embedded.server import StackConfig
from sparkpar_assets.embedded.state import State
from sparkpar_assets.embedded.token_endpoint import token_endpoint, token_uri
from sparkpar_assets.resources.java import find_java_home
from sparkpar_assets.settings import variable_names

HOSTS = {
    "bigquery": "bigquery",
    "bigquery-storage": "bigquery",
    "s3": "s3",
    "token-endpoint": "token-endpoint",
}
SERVERS = {"bigquery": bigquery_emulator, "s3": s3_proxy, "token-endpoint": token_endpoint}


def prepare(config: StackConfig) -> None:
    """Make keys and certificates, and the file that leads the platform to these servers.

    What it says of Spark and of Dagster is what Compose says in this container's environment.
    """
    config.state.create()
    create_certificates(config.state, config.hosts.values())
    write_service_account(config.state, token_uri(config))
    compose = {
        name: os.environ[name]
        for name in variable_names()
        if name.startswith(("SPARK_", "DAGSTER_")) and os.environ.get(name)
    }
    environment.write_env_file(
        config.state.environment_file, environment.platform_values(config) | compose
    )


def load(config: StackConfig) -> None:
    """Load the sample trips."""
    from sparkpar_assets.embedded import samples  # heavy: not for the servers' small containers

    samples.load_samples(config)


def serve(config: StackConfig, name: str) -> None:
    """Become a server: the container ends with it, and its signals are the server's."""
    server = SERVERS[name](config)
    config.state.create()
    server.before_start()
    os.chdir(server.folder)
    os.execve(server.command[0], server.command, server.environment)  # noqa: S606  # no shell between


def main() -> None:
    """Run one command in a container of the profile ``embedded``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=["prepare", "serve", "load"])
    parser.add_argument("server", nargs="?", choices=SERVERS)
    arguments = parser.parse_args()
    config = StackConfig(
        State.of_environment(),
        DEFAULT_PORTS,
        find_java_home(os.environ.get("JAVA_HOME")),
        hosts=HOSTS,
        listens_on="0.0.0.0",  # noqa: S104  # of a container, which publishes none of these ports
    )
    with command_line():
        match arguments.command, arguments.server:
            case "prepare", None:
                prepare(config)
            case "load", None:
                load(config)
            case "serve", str(name):
                serve(config, name)
            case _:
                parser.error("serve needs a server, the other commands none")


if __name__ == "__main__":
    main()
