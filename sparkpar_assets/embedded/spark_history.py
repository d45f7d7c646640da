"""Spark's History Server: the web interface of runs that have ended."""

from sparkpar_assets.embedded.jvm import spark_command, spark_environment
from sparkpar_assets.embedded.server import Server, StackConfig, http_status

NAME = "spark-history"


def spark_history(config: StackConfig) -> Server:
    """The server that reads the runs' event logs."""
    port = config.ports[NAME]
    return Server(
        name=NAME,
        command=spark_command(
            config,
            "org.apache.spark.deploy.history.HistoryServer",
            properties={
                "spark.port.maxRetries": "0",
                "spark.history.ui.port": str(port),
                # A path: the server does not decode the %20 of a URI.
                "spark.history.fs.logDirectory": str(config.state.event_logs),
                "spark.history.fs.update.interval": "5s",
                "spark.history.fs.cleaner.enabled": "true",
            },
        ),
        environment=spark_environment(config),
        folder=config.state.data,
        address=config.url(NAME),
        listens={NAME: port},
        is_healthy=lambda: http_status(port, "/api/v1/applications?limit=1") == 200,
    )
