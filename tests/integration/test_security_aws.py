"""AWS's temporary credentials, on a server that asks for them and holds to the policy."""

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import boto3
import dagster as dg
import pytest
from botocore.exceptions import ClientError

from sparkpar_assets.io_managers.published import parquet_rows
from sparkpar_assets.project import PROJECT_ROOT
from sparkpar_assets.resources.s3 import check_bucket, s3_client
from sparkpar_assets.settings import Settings, load_settings
from tests.integration.versions import fares, trips_table
from tests.integration.workbench import FARES, Workbench, wait_until

BUCKET, REGION = "my-bucket", "us-east-1"
POLICY = (PROJECT_ROOT / "docs" / "policies" / "aws.json").read_text()
REQUESTS_BEFORE_KEYS_COUNT = 6
REQUEST = re.compile(r'"(GET|HEAD|PUT|POST|DELETE) (/\S*) HTTP')
TRUST = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"},
        ],
    }
)


@dataclass(frozen=True)
class Aws:
    """S3, IAM and STS on this machine, where every request needs a right.

    Attributes:
        url: The address of all three.
        role: ARN of a role that has the policy of ``docs/policies/aws.json``.
        key: A user's access key and its secret; the user may assume the role, and nothing else.
    """

    url: str
    role: str
    key: tuple[str, str]

    def client(self, service: str, key: tuple[str, str]) -> Any:  # noqa: ANN401  # of any service
        """A client with a user's key."""
        return boto3.Session().client(
            service,  # type: ignore[call-overload]
            endpoint_url=self.url,
            region_name=REGION,
            aws_access_key_id=key[0],
            aws_secret_access_key=key[1],
        )

    def temporary_key(self) -> dict[str, str]:
        """The settings of a key of the role, good for an hour."""
        found = self.client("sts", self.key).assume_role(
            RoleArn=self.role, RoleSessionName="sparkpar"
        )["Credentials"]
        return {
            "AWS_ACCESS_KEY_ID": found["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": found["SecretAccessKey"],
            "AWS_SESSION_TOKEN": found["SessionToken"],
        }

    @property
    def settings(self) -> dict[str, str]:
        """The settings that lead to the bucket, without credentials."""
        return {
            "AWS_ENDPOINT_URL_S3": self.url,
            "AWS_DEFAULT_REGION": REGION,
            "S3_BUCKET": BUCKET,
            "S3_PREFIX": "sparkpar",
        }


@contextmanager
def server(log: Path, **environment: str) -> Iterator[str]:
    """The address of a server of S3, IAM and STS."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-p", str(port)],
            env=os.environ | environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_until(lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0, "the server")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    """A bucket, a role and a user."""
    log = tmp_path_factory.mktemp("aws") / "log"
    with server(log, INITIAL_NO_AUTH_ACTION_COUNT=str(REQUESTS_BEFORE_KEYS_COUNT)) as url:
        made = Aws(url, "", ("maker", "maker"))
        iam = made.client("iam", made.key)
        made.client("s3", made.key).create_bucket(Bucket=BUCKET)
        role = iam.create_role(RoleName="sparkpar", AssumeRolePolicyDocument=TRUST)["Role"]["Arn"]
        iam.put_role_policy(RoleName="sparkpar", PolicyName="sparkpar", PolicyDocument=POLICY)
        iam.create_user(UserName="scheduler")
        may = {"Effect": "Allow", "Action": "sts:AssumeRole", "Resource": role}
        document = json.dumps({"Version": "2012-10-17", "Statement": [may]})
        iam.put_user_policy(UserName="scheduler", PolicyName="may", PolicyDocument=document)
        key = iam.create_access_key(UserName="scheduler")["AccessKey"]
        yield Aws(url, role, (key["AccessKeyId"], key["SecretAccessKey"]))


def check_rights(settings: Settings) -> None:
    """The credentials are good for the prefix, and for nothing beside it."""
    client = s3_client(settings)
    client.put_object(Bucket=BUCKET, Key="sparkpar/probe", Body=b"probe")
    assert client.list_objects_v2(Bucket=BUCKET, Prefix="sparkpar/probe")["KeyCount"] == 1
    client.delete_object(Bucket=BUCKET, Key="sparkpar/probe")
    with pytest.raises(ClientError, match="AccessDenied"):
        client.put_object(Bucket=BUCKET, Key="elsewhere/probe", Body=b"probe")


def test_a_temporary_key_is_good_for_its_prefix_alone(aws: Aws) -> None:
    values = aws.temporary_key()
    check_rights(load_settings(aws.settings | values))
    lost = load_settings(aws.settings | values | {"AWS_SESSION_TOKEN": "another"})
    with pytest.raises(dg.Failure, match="refused the AWS credentials"):
        check_bucket(lost, s3_client(lost))


@pytest.mark.slow
def test_a_run_with_a_temporary_key_asks_for_nothing_that_the_policy_does_not_allow(
    workbench: Workbench, tmp_path: Path
) -> None:
    """On a server that logs what is asked and refuses nothing: it cannot check S3A's requests."""
    for year in (2018, 2019):
        workbench.load_trips(year, trips_table(year - 2015))
    with server(tmp_path / "log") as url:
        made = Aws(url, "arn:aws:iam::123456789012:role/sparkpar", ("maker", "maker"))
        client = made.client("s3", made.key)
        client.create_bucket(Bucket=BUCKET)
        workbench.configure(**made.settings, **made.temporary_key())
        before = len((tmp_path / "log").read_text().splitlines())
        workbench.materialize_years(2018, 2019)
        workbench.materialize_years(2018, 2019)  # replaces, archives and cleans up as well
        lines = (tmp_path / "log").read_text().splitlines()[before:]
        for year in (2018, 2019):
            key = f"sparkpar/{FARES}/year={year}/data.parquet"
            body = client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
            assert parquet_rows(body).to_pylist() == fares(year - 2015)
        assert not client.list_multipart_uploads(Bucket=BUCKET).get("Uploads")
    requests = [found.groups() for line in lines if (found := REQUEST.search(line))]
    assert len(requests) > 100
    needed = {needed_right(method, unquote(path)) for method, path in requests}
    statements = json.loads(POLICY)["Statement"]
    allowed = {(action, s["Resource"]) for s in statements for action in s["Action"]}
    # Uploads are aborted only after a run that was killed.
    abort = ("s3:AbortMultipartUpload", f"arn:aws:s3:::{BUCKET}/sparkpar/*")
    assert needed == allowed - {abort}


def needed_right(method: str, path: str) -> tuple[str, str]:
    """Action and resource that a request needs (AWS, Amazon S3 API reference)."""
    address, _, query = path.partition("?")
    bucket, _, key = address.removeprefix("/").partition("/")
    if not key:
        action = {
            "GET": "ListBucketMultipartUploads" if query.startswith("uploads") else "ListBucket",
            "HEAD": "ListBucket",
        }.get(method, method)
        if method == "POST" and query.startswith("delete"):  # of the keys in its body
            return "s3:DeleteObject", f"arn:aws:s3:::{bucket}/sparkpar/*"
        return f"s3:{action}", f"arn:aws:s3:::{bucket}"
    prefix = "sparkpar/*" if key.startswith("sparkpar/") else key
    is_abort = method == "DELETE" and "uploadId=" in query
    verb = {"GET": "Get", "HEAD": "Get", "DELETE": "Delete"}.get(method, "Put")
    action = "AbortMultipartUpload" if is_abort else f"{verb}Object"
    return f"s3:{action}", f"arn:aws:s3:::{bucket}/{prefix}"


def test_a_profile_of_an_assumed_role_is_used(
    aws: Aws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "config"
    config.write_text(
        f"[profile base]\naws_access_key_id = {aws.key[0]}\naws_secret_access_key = {aws.key[1]}\n"
        f"[profile analytics]\nrole_arn = {aws.role}\nsource_profile = base\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", aws.url)
    check_rights(load_settings(aws.settings | {"AWS_PROFILE": "analytics"}))


def test_a_web_identity_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a server that asks for no keys: this one cannot exchange an unsigned token otherwise."""
    token = tmp_path / "token"
    token.write_text("a token of the cluster's")
    with server(tmp_path / "log") as url:
        made = Aws(url, "arn:aws:iam::123456789012:role/sparkpar", ("maker", "maker"))
        made.client("s3", made.key).create_bucket(Bucket=BUCKET)
        for name, value in {
            "AWS_ROLE_ARN": made.role,
            "AWS_WEB_IDENTITY_TOKEN_FILE": str(token),
            "AWS_ENDPOINT_URL_STS": url,
            "AWS_CONFIG_FILE": str(tmp_path / "none"),
            "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
        }.items():
            monkeypatch.setenv(name, value)
        client = s3_client(load_settings(made.settings))
        assert client.list_objects_v2(Bucket=BUCKET)["KeyCount"] == 0
    credentials = client._request_signer._credentials  # type: ignore[attr-defined]
    assert credentials.method == "assume-role-with-web-identity"
