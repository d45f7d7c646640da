"""The policies of docs/policies allow what the code does, and nothing else."""

import ast
import json
import re
from typing import Any

import yaml

from sparkpar_assets.project import PROJECT_ROOT
from tests.unit.readmes import READMES, text_of

POLICIES = PROJECT_ROOT / "docs" / "policies"
ACTIONS = {
    "abort_multipart_upload": {"s3:AbortMultipartUpload"},
    "copy": {"s3:GetObject", "s3:PutObject"},
    "delete_object": {"s3:DeleteObject"},
    "delete_objects": {"s3:DeleteObject"},
    "get_object": {"s3:GetObject"},
    "head_object": {"s3:GetObject"},
    "list_multipart_uploads": {"s3:ListBucketMultipartUploads"},
    "list_objects_v2": {"s3:ListBucket"},
    "put_object": {"s3:PutObject"},
}
"""What each operation of boto3's S3 client asks for (AWS, Service Authorization Reference). The
magic committer of S3A uses no others: it puts, lists, completes and aborts uploads."""


def policy(name: str) -> dict[str, Any]:
    """A policy as AWS reads it."""
    content: dict[str, Any] = json.loads((POLICIES / name).read_text())
    return content


def used_operations() -> set[str]:
    """The operations of S3 that the platform calls on a client, by their name or as a paginator."""
    files = (PROJECT_ROOT / "sparkpar_assets").rglob("*.py")
    calls = [
        (node.func.attr, [arg.value for arg in node.args if isinstance(arg, ast.Constant)])
        for file in files
        if "embedded" not in file.parts
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and ast.unparse(node.func.value).endswith(("client", "client(settings)"))
    ]
    names = {str(args[0]) if name == "get_paginator" else name for name, args in calls}
    return names & operations_of_s3()


def operations_of_s3() -> set[str]:
    """All operations that boto3's S3 client knows."""
    import boto3

    client = boto3.Session().client(
        "s3", region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b"
    )
    return {"copy", *client.meta.method_to_api_mapping}


def test_the_policy_of_aws_allows_just_what_the_code_calls() -> None:
    used = used_operations()
    assert used - ACTIONS.keys() == set()
    assert {"copy", "get_object", "list_objects_v2", "list_multipart_uploads"} <= used
    statements = policy("aws.json")["Statement"]
    allowed = {action for statement in statements for action in statement["Action"]}
    assert allowed == set().union(*(ACTIONS[name] for name in used))
    assert {statement["Effect"] for statement in statements} == {"Allow"}
    assert not [action for action in allowed if "*" in action]
    # Objects of the prefix alone; only listing is of the whole bucket.
    assert {s["Resource"].partition(":::")[2] for s in statements} == {
        "my-bucket",
        "my-bucket/sparkpar/*",
    }


def test_both_readmes_show_the_policy_of_the_file() -> None:
    for readme in READMES:
        blocks = re.findall(r"^```json\n(.*?)^```$", text_of(readme), re.MULTILINE | re.DOTALL)
        assert policy("aws.json") in [json.loads(block) for block in blocks]


def test_the_bucket_s_own_policy_denies_what_comes_without_tls() -> None:
    (statement,) = policy("aws_bucket.json")["Statement"]
    assert (statement["Effect"], statement["Action"]) == ("Deny", "s3:*")
    assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}


def test_the_roles_of_google_are_those_that_the_readmes_ask_for() -> None:
    files = [yaml.safe_load(file.read_text()) for file in sorted(POLICIES.glob("gcp_*.yaml"))]
    assert all({"title", "description", "stage", "includedPermissions"} == set(f) for f in files)
    given = {permission for file in files for permission in file["includedPermissions"]}
    for readme in READMES:
        shown = set(re.findall(r"`(bigquery\.[a-z]+\.[A-Za-z]+)`", text_of(readme)))
        assert given == shown
