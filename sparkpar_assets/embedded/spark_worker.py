"""The Spark standalone workers."""

import urllib.parse

from sparkpar_assets.embedded.credentials import spark_properties_file
from sparkpar_assets.embedded.jvm import spark_command, spark_environment
from sparkpar_assets.embedded.ports import HOST, is_taken
from sparkpar_assets.embedded.server import Server, StackConfig
from sparkpar_assets.embedded.spark_master import master_state, master_url

CORES = 2
MEMORY = "2g"


def spark_worker(config: StackConfig, number: int) -> Server:
    """A server that starts executors for the master's applications."""
    name = f"spark-worker-{number}"
    ui_port = config.ports[f"{name}-ui"]
    master_ports = {port: config.ports[port] for port in ("spark-master", "spark-master-ui")}
    folder = config.state.data / name
    return Server(
        name=name,
        command=spark_command(
            config,
            "org.apache.spark.deploy.worker.Worker",
            *("--host", HOST, "--webui-port", str(ui_port)),
            *("--cores", str(CORES), "--memory", MEMORY, "--work-dir", str(folder)),
            *("--properties-file", str(spark_properties_file(config.state))),
            master_url(config),
            properties={
                "spark.port.maxRetries": "0",
                # Logs and jars of finished applications go after a day.
                "spark.worker.cleanup.enabled": "true",
                "spark.worker.cleanup.appDataTtl": "86400",
            },
        ),
        environment=spark_environment(config),
        folder=config.state.data,
        address=config.url(f"{name}-ui"),
        listens={f"{name}-ui": ui_port},
        refers_to=master_ports,
        # A worker that finds no master tries again only after 5 to 15 seconds.
        can_start=lambda: is_taken(config.ports["spark-master"]),
        is_healthy=lambda: _is_registered(ui_port, config.ports["spark-master-ui"]),
    )


def _is_registered(ui_port: int, master_ui_port: int) -> bool:
    """Whether the master counts on the worker: one that only runs gives no executor."""
    return any(
        worker.get("state") == "ALIVE"
        and urllib.parse.urlsplit(worker.get("webuiaddress", "")).port == ui_port
        for worker in master_state(master_ui_port).get("workers", [])
    )
