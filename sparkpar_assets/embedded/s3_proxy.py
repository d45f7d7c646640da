"""S3Proxy: a folder of this machine, served as S3."""

from pathlib import Path
from typing import TYPE_CHECKING

from sparkpar_assets.embedded import jars
from sparkpar_assets.embedded.credentials import S3Keys, s3_keys
from sparkpar_assets.embedded.jvm import java_command
from sparkpar_assets.embedded.server import Server, StackConfig, clean_environment, http_status
from sparkpar_assets.resources.private_files import write_private

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

NAME = "s3"
BUCKET = "sparkpar"
REGION = "us-east-1"


def s3_proxy(config: StackConfig) -> Server:
    """The server of the folder ``State.s3``, for who has the generated keys."""
    port = config.ports[NAME]
    properties_file = config.state.secrets / "s3proxy.properties"
    return Server(
        name=NAME,
        command=java_command(
            config,
            "-jar",
            str(jars.server_jar("s3proxy")),
            "--properties",
            str(properties_file),
        ),
        environment=clean_environment(config.state),
        folder=config.state.data,
        address=config.url(NAME),
        listens={NAME: port},
        # Without a signature it refuses, and so it is up.
        is_healthy=lambda: http_status(port) in (200, 403),
        before_start=lambda: _prepare(config, properties_file),
    )


def s3_client(config: StackConfig) -> "S3Client":
    """A client of the server, with every setting passed to it."""
    import boto3

    keys = s3_keys(config.state)
    client: S3Client = boto3.Session().client(
        "s3",
        endpoint_url=config.url(NAME),
        aws_access_key_id=keys.access_key_id,
        aws_secret_access_key=keys.secret_access_key,
        region_name=REGION,
    )
    return client


def _prepare(config: StackConfig, properties_file: Path) -> None:
    (config.state.s3 / BUCKET).mkdir(parents=True, exist_ok=True)
    write_private(properties_file, _properties(config, s3_keys(config.state)))


def _properties(config: StackConfig, keys: S3Keys) -> str:
    lines = {
        "s3proxy.endpoint": f"http://{config.listens_on}:{config.ports[NAME]}",
        "s3proxy.authorization": "aws-v2-or-v4",
        "s3proxy.identity": keys.access_key_id,
        "s3proxy.credential": keys.secret_access_key,
        "jclouds.provider": "filesystem-nio2",
        "jclouds.filesystem.basedir": str(config.state.s3),
    }
    return "".join(f"{name}={_escape(value)}\n" for name, value in lines.items())


def _escape(value: str) -> str:
    r"""A value of a Java properties file: backslashes, and characters beyond Latin-1 as \uXXXX."""
    units = value.replace("\\", "\\\\").encode("utf-16-be")
    codes = (int.from_bytes(units[i : i + 2]) for i in range(0, len(units), 2))
    return "".join(chr(code) if 31 < code < 127 else f"\\u{code:04x}" for code in codes)
