"""The Spark standalone master."""

import json
import shutil
from pathlib import Path
from typing import Any

from sparkpar_assets.embedded.credentials import spark_properties_file
from sparkpar_assets.embedded.jvm import spark_command, spark_environment
from sparkpar_assets.embedded.ports import HOST
from sparkpar_assets.embedded.server import Server, StackConfig, http_get

NAME = "spark-master"


def master_url(config: StackConfig) -> str:
    """The URL that workers and drivers connect to."""
    return f"spark://{HOST}:{config.ports['spark-master']}"


def spark_master(config: StackConfig) -> Server:
    """The server that hands out the workers' cores to applications."""
    port, ui_port = config.ports["spark-master"], config.ports["spark-master-ui"]
    return Server(
        name=NAME,
        command=spark_command(
            config,
            "org.apache.spark.deploy.master.Master",
            *("--host", HOST, "--port", str(port), "--webui-port", str(ui_port)),
            *("--properties-file", str(spark_properties_file(config.state))),
            properties={
                "spark.port.maxRetries": "0",  # else a taken port silently becomes the next one
                "spark.master.rest.enabled": "false",  # submits without asking who one is
                "spark.ui.killEnabled": "false",  # whoever reaches the page could end applications
                # A master that was killed finds its workers and running applications again.
                "spark.deploy.recoveryMode": "FILESYSTEM",
                "spark.deploy.recoveryDirectory": str(recovery_folder(config)),
            },
        ),
        environment=spark_environment(config),
        folder=config.state.data,
        address=f"{master_url(config)}  {config.url('spark-master-ui')}",
        listens={"spark-master": port, "spark-master-ui": ui_port},
        is_healthy=lambda: master_state(ui_port).get("status") == "ALIVE",
    )


def master_state(ui_port: int) -> dict[str, Any]:
    """What the master says of itself and its workers; nothing where it does not answer."""
    status, body = http_get(ui_port, "/json/")
    try:
        state = json.loads(body) if status == 200 else {}
    except ValueError:
        return {}
    return state if isinstance(state, dict) else {}


def recovery_folder(config: StackConfig) -> Path:
    """Where the master keeps what it has to know after a crash."""
    return config.state.data / "spark-recovery"


def forget_workers(config: StackConfig) -> None:
    """Start from nothing: a master that recovers waits a minute for workers that are gone."""
    shutil.rmtree(recovery_folder(config), ignore_errors=True)
