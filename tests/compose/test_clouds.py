"""Real clouds' way: settings in .env, a key file in .secrets; the servers alone are emulators."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from dotenv import dotenv_values

from tests.compose.cluster import FARES, Cluster
from tests.compose.test_daily_use import sample
from tests.expected import expected_fares

KEYS = "/var/lib/sparkpar/embedded"
FROM_CLOUD = (
    "GCP_PROJECT_ID",
    "BIGQUERY_EMULATOR_HOST",
    "BIGQUERY_STORAGE_GRPC_ENDPOINT",
    "BIGQUERY_SNAPSHOT_READS",
    "S3_BUCKET",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL_S3",
)


@pytest.fixture(scope="module")
def clouds(cluster: Cluster) -> Iterator[Cluster]:
    """The containers as ``up`` starts them from .env, with a key that only user 1000 can read."""
    given = dotenv_values(stream=None, dotenv_path=_copy(cluster, "platform.env"))
    secrets = cluster.folder / ".secrets"
    private(secrets / "service_account.json", _read(cluster, "secrets/service_account.json"))
    private(secrets / "truststore.p12", _read(cluster, "truststore.p12"))
    values = {name: given[name] for name in FROM_CLOUD} | {
        "GOOGLE_APPLICATION_CREDENTIALS": "/secrets/service_account.json",
        "TLS_TRUST_STORE": "/secrets/truststore.p12",
        "S3_PREFIX": "clouds",
        "SPARK_MASTER_URL": "local[*]",  # .env.example's: in the containers Compose says otherwise
        "SPARK_WORKER_MEMORY": "1g",
        "SPARK_EXECUTOR_MEMORY": "512m",
        "SPARK_DRIVER_MEMORY": "512m",
    }
    env = cluster.folder / ".env"
    env.write_text("".join(f"{name}={value}\n" for name, value in values.items()))
    try:
        cluster.succeed("up", S3_BUCKET="exported-and-not-meant")
        yield cluster
    finally:
        env.unlink()
        cluster.succeed("up", "--embedded", "--no-run")


def _read(cluster: Cluster, name: str) -> bytes:
    return cluster.execute("spark-app", "cat", f"{KEYS}/{name}")


def _copy(cluster: Cluster, name: str) -> Path:
    file = cluster.folder / ".sparkpar" / name
    file.write_bytes(_read(cluster, name))
    return file


def private(file: Path, content: bytes) -> None:
    """Write a file of mode 0600, of user 1000 where we are root."""
    file.write_bytes(content)
    file.chmod(0o600)
    if os.getuid() == 0:
        os.chown(file, 1000, 1000)


def test_a_range_of_years_is_published_with_the_key_of_the_user(clouds: Cluster) -> None:
    said = clouds.succeed("materialize", FARES, "2017...2019")
    assert "Targets: s3://" in said
    assert "Spark at spark://spark-master:7077." in said
    for year in (2017, 2018, 2019):
        assert clouds.published(f"{FARES}/year={year}/data.parquet") == expected_fares(sample(year))


def test_aws_keys_are_in_the_description_of_the_app_alone(clouds: Cluster) -> None:
    secret = dotenv_values(clouds.folder / ".env")["AWS_SECRET_ACCESS_KEY"]
    assert secret
    holders = {name for name, c in clouds.containers().items() if secret in json.dumps(c)}
    assert holders <= {"spark-app"}


def test_a_replaced_key_is_used_by_the_next_run(clouds: Cluster) -> None:
    file = clouds.folder / ".secrets" / "service_account.json"
    good = file.read_bytes()
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    private(file, json.dumps(json.loads(good) | {"private_key": other.decode()}).encode())
    done = clouds.run("materialize", FARES, "2017")
    private(file, good)
    assert done.returncode != 0
    assert "The key file /secrets/service_account.json was rejected" in done.stdout + done.stderr
    clouds.succeed("materialize", FARES, "2017")
