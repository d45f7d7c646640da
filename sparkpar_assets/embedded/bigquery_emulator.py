"""The BigQuery emulator: REST, and the Storage Read API over TLS."""

import socket
import ssl

from sparkpar_assets.embedded.credentials import (
    PROJECT,
    ca_file,
    create_certificates,
    server_certificate_file,
    server_key_file,
)
from sparkpar_assets.embedded.ports import HOST
from sparkpar_assets.embedded.server import (
    Server,
    StackConfig,
    clean_environment,
    http_status,
    python_command,
)

NAME = "bigquery"


def bigquery_emulator(config: StackConfig) -> Server:
    """The server of tables that are kept in a DuckDB file."""
    state, port, grpc_port = config.state, config.ports[NAME], config.ports["bigquery-storage"]
    folder = state.data / "bigquery"
    return Server(
        name=NAME,
        command=python_command(
            "sparkpar_assets.embedded.bigquery_launcher",
            *("--certificate", str(server_certificate_file(state))),
            *("--key", str(server_key_file(state))),
            "start",
            *("--rest-host", config.listens_on, "--rest-port", str(port)),
            *("--grpc-host", config.listens_on, "--grpc-port", str(grpc_port)),
            *("--persistent", "--data-dir", str(folder), "--project", PROJECT),
            *("--log-level", "info", "--log-format", "console"),
        ),
        environment={
            **clean_environment(state),
            "NO_COLOR": "1",
            "BQEMU_ENABLE_FORMAT_EXTENSIONS": "false",  # they would be fetched from the network
            "BQEMU_UPLOAD_STAGING_DIR": str(state.temporary),
        },
        folder=state.data,
        address=f"{config.url(NAME)}  {HOST}:{grpc_port} (gRPC, TLS)",
        listens={NAME: port, "bigquery-storage": grpc_port},
        is_healthy=lambda: http_status(port, "/readyz") == 200 and _speaks_tls(config),
        before_start=lambda: create_certificates(state, config.hosts.values()),
    )


def _speaks_tls(config: StackConfig) -> bool:
    """Whether the gRPC port answers with a certificate of the stack's authority."""
    context = ssl.create_default_context(cafile=ca_file(config.state))
    context.set_alpn_protocols(["h2"])
    address = (HOST, config.ports["bigquery-storage"])
    try:
        with (
            socket.create_connection(address, timeout=2) as connection,
            context.wrap_socket(connection, server_hostname="localhost"),
        ):
            return True
    except OSError:
        return False
