"""Bad input: one sentence of cause, one of remedy, a failed run, and nothing published lost."""

import json
import os
import shutil
import socket
import stat
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sparkpar_assets.definitions import defs
from sparkpar_assets.project import PROJECT_ROOT
from sparkpar_assets.resources.private_files import write_private
from tests.expected import expected_fares
from tests.integration.workbench import FARES, Workbench

NUMERIC = pa.decimal128(38, 9)


@dataclass
class Run:
    """What came of a run.

    Attributes:
        success: Whether it succeeded.
        message: The failure's text, empty if there is none.
        messages: All lines of the run's log.
        seconds: How long it took.
    """

    success: bool
    message: str
    messages: list[str]
    seconds: float


Materialize = Callable[..., Run]


@pytest.fixture
def materialize(workbench: Workbench, monkeypatch: pytest.MonkeyPatch) -> Materialize:
    """Materialize years of the fares in this process, by ``dg.materialize``."""

    def run(*years: int, asset: str = FARES) -> Run:
        for name, value in workbench.env.items():
            monkeypatch.setenv(name, value)
        tags = {
            "dagster/asset_partition_range_start": str(min(years, default="")),
            "dagster/asset_partition_range_end": str(max(years, default="")),
        }
        started = time.monotonic()
        with workbench.instance() as instance:
            result = dg.materialize(
                defs.assets or (),  # type: ignore[arg-type]
                selection=[asset],
                resources=dict(defs.resources or {}),
                instance=instance,
                tags=tags if years else None,
                raise_on_error=False,
            )
            log = instance.all_logs(result.run_id)
        failures = [event.step_failure_data for event in result.get_step_failure_events()]
        message = ""
        if failures:
            user = failures[0].user_failure_data
            message = (user and user.description) or str(failures[0].error)
        return Run(
            result.success,
            message,
            [entry.user_message for entry in log],
            time.monotonic() - started,
        )

    return run


def trips(fares: Sequence[Decimal | int], group: int = 1) -> pa.Table:
    n = len(fares)
    return pa.table(
        {
            "passenger_count": pa.array([group] * n, pa.int64()),
            "fare_amount": pa.array([Decimal(fare) for fare in fares], NUMERIC),
            "tip_amount": pa.array([Decimal(1)] * n, NUMERIC),
            "trip_distance": pa.array([Decimal(2)] * n, NUMERIC),
        }
    )


GOOD = trips([5, 7, 9])


def test_a_year_whose_table_does_not_exist_is_named_before_spark_starts(
    workbench: Workbench, materialize: Materialize
) -> None:
    workbench.configure(SPARK_MASTER_URL="spark://127.0.0.1:1")
    run = materialize(2018)
    name = f"{workbench.settings.taxi_table_prefix}2018"
    assert run.message == (
        f"Not published: 2018. 2018: the table {name} does not exist. "
        "Mend the tables, or leave these years out of the range."
    )


def test_bad_years_of_a_range_are_named_and_the_others_published(
    workbench: Workbench, materialize: Materialize
) -> None:
    workbench.share_driver()
    workbench.load_trips(2015, trips([-5, 0]))
    workbench.load_trips(2016, GOOD)
    workbench.load_trips(2018, GOOD.slice(0, 0))
    workbench.load_trips(2019, GOOD.drop_columns(["fare_amount"]))
    as_text = pa.array([str(fare) for fare in GOOD["fare_amount"].to_pylist()])
    workbench.load_trips(
        2020, GOOD.drop_columns(["fare_amount"]).append_column("fare_amount", as_text)
    )
    workbench.load_trips(2021, GOOD)
    run = materialize(*range(2015, 2022))
    prefix = workbench.settings.taxi_table_prefix
    assert not run.success
    assert run.message == (
        "Not published: 2015, 2017, 2018, 2019, 2020. "
        "2015: no row is left after the rules; there is nothing to publish. "
        f"2017: the table {prefix}2017 does not exist. 2018: the table {prefix}2018 is empty. "
        f"2019: the table {prefix}2019 has no column fare_amount. "
        f"2020: the table {prefix}2020 has fare_amount as STRING where NUMERIC is expected. "
        "What was published before stays in place. "
        "Mend the source, then materialize these partitions again."
    )
    assert workbench.materialized_years() == ["2016", "2021"]
    assert workbench.keys(FARES) == [workbench.key(year) for year in (2016, 2021)]


def test_a_year_that_fails_validation_keeps_its_object_and_the_others_are_published(
    workbench: Workbench, materialize: Materialize
) -> None:
    for year in (2017, 2018, 2019):
        workbench.load_trips(year, GOOD)
    workbench.share_driver()
    assert materialize(2018).success
    published = workbench.content(workbench.key(2018))
    too_large = Decimal("9" * 29)
    workbench.load_trips(2018, trips([too_large, too_large]))

    done = workbench.materialize("--select", FARES, "--partition-range", "2017...2019")

    assert done.returncode != 0
    assert (
        "Not published: 2018. 2018: The sum of fare_amount for passenger count 1 needs more than "
        "the 38 digits of DECIMAL(38,9)." in done.stdout + done.stderr
    )
    assert workbench.content(workbench.key(2018)) == published
    assert sorted(workbench.materialized_years()) == ["2017", "2018", "2019"]
    assert workbench.published(2017).to_pylist() == workbench.published(2019).to_pylist()
    assert "sums_are_exact' on 'fare_by_passenger_count' did not pass" in done.stdout + done.stderr
    # The event of a year whose run failed says as much as that of a year whose run succeeded.
    with workbench.instance() as instance:
        records = instance.fetch_materializations(dg.AssetKey(FARES), limit=10).records
    tags = {str(record.partition_key): record.asset_materialization for record in records}
    assert tags["2017"]
    assert tags["2018"]
    assert set(tags["2017"].tags or {}) == set(tags["2018"].tags or {})
    assert set(tags["2017"].metadata) == set(tags["2018"].metadata)


def test_a_key_file_that_is_missing_or_not_json_is_named(
    workbench: Workbench, materialize: Materialize
) -> None:
    file = workbench.folder / "key.json"
    workbench.configure(GOOGLE_APPLICATION_CREDENTIALS=str(file))
    remedy = "Set GOOGLE_APPLICATION_CREDENTIALS to the JSON key file of a service account."
    assert materialize(2018).message == f"The key file {file} does not exist. {remedy}"
    write_private(file, "-----BEGIN")
    assert materialize(2018).message == f"The key file {file} is not JSON. {remedy}"
    write_private(file, "{}")
    assert "is no key of Google's: it has no field type." in materialize(2018).message


def test_a_key_that_the_token_endpoint_rejects_is_named_without_its_secret(
    workbench: Workbench, materialize: Materialize
) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = json.loads(Path(workbench.env["GOOGLE_APPLICATION_CREDENTIALS"]).read_text())
    foreign = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    file = workbench.folder / "foreign.json"
    write_private(file, json.dumps(key | {"private_key": foreign.decode()}))
    workbench.configure(GOOGLE_APPLICATION_CREDENTIALS=str(file))
    workbench.load_trips(2018, GOOD)
    run = materialize(2018)
    assert run.message.startswith(f"The key file {file} was rejected: ")
    assert "Make a new key for the account" in run.message
    assert "PRIVATE" not in " ".join([run.message, *run.messages])


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"S3_BUCKET": "no-such-bucket"}, "The bucket no-such-bucket does not exist at http://"),
        ({"S3_BUCKET": ""}, "S3_BUCKET is not set, so there is nowhere to publish."),
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "refused the AWS credentials (SignatureDoesNotMatch)"),
        ({"AWS_ACCESS_KEY_ID": "nobody"}, "refused the AWS credentials (InvalidAccessKeyId)"),
        ({"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1"}, "S3 at http://127.0.0.1:1 cannot be used:"),
        (
            {"SPARK_MASTER_URL": "spark://127.0.0.1:1"},
            "No Spark master answers at spark://127.0.0.1:1",
        ),
        (
            {"SPARK_MASTER_URL": "spark://127.0.0.1:1,127.0.0.1:2"},
            "No Spark master answers at spark://127.0.0.1:1,127.0.0.1:2",
        ),
        (
            {"BIGQUERY_EMULATOR_HOST": "http://127.0.0.1:1"},
            "BigQuery at http://127.0.0.1:1 does not",
        ),
    ],
)
def test_a_target_that_is_not_there_or_lets_nobody_in_is_named_within_30_seconds(
    workbench: Workbench, materialize: Materialize, values: dict[str, str], words: str
) -> None:
    workbench.load_trips(2018, GOOD)
    workbench.configure(**values)
    run = materialize(2018)
    assert not run.success
    assert words in run.message
    assert run.seconds < 30


def test_a_master_that_never_answers_is_named_within_30_seconds(
    workbench: Workbench, materialize: Materialize
) -> None:
    workbench.load_trips(2018, GOOD)
    with socket.socket() as full:
        # A queue of no length, which two connections fill: later ones get no answer at all.
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = full.getsockname()
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(address)
        workbench.configure(SPARK_MASTER_URL=f"spark://127.0.0.1:{address[1]}")
        run = materialize(2018)
        for one in waiting:
            one.close()
    assert "No Spark master answers at" in run.message
    assert run.seconds < 30


def test_a_jar_that_is_missing_is_named_with_the_command_that_fetches_it(
    workbench: Workbench, materialize: Materialize
) -> None:
    jars = workbench.folder / "jars"
    jars.mkdir()
    shutil.copy(PROJECT_ROOT / "jars" / "jars.toml", jars)
    for jar in (PROJECT_ROOT / "jars").glob("*.jar"):
        if not jar.name.startswith("hadoop-aws"):
            (jars / jar.name).symlink_to(jar)
    workbench.configure(SPARK_JARS_DIR=str(jars))
    workbench.load_trips(2018, GOOD)
    assert materialize(2018).message == (
        f"A jar is missing from {jars}: hadoop-aws-3.3.4.jar. Run ./download_jars.sh."
    )


def test_java_8_is_refused_by_name(workbench: Workbench, materialize: Materialize) -> None:
    java = workbench.folder / "java-8" / "bin" / "java"
    java.parent.mkdir(parents=True)
    java.write_text("#!/bin/sh\necho '    java.specification.version = 1.8' >&2\n")
    java.chmod(java.stat().st_mode | stat.S_IXUSR)
    home = str(java.parent.parent)
    workbench.configure(JAVA_HOME=home)
    workbench.load_trips(2018, GOOD)
    assert materialize(2018).message == (
        f"JAVA_HOME={home} is Java 1.8, and Spark 3.5 needs Java 17. "
        "Set JAVA_HOME to a Java 17, or unset it."
    )


def test_trends_without_a_published_year_say_what_to_do_first(materialize: Materialize) -> None:
    run = materialize(asset="fare_trends")
    assert "No year of fare_by_passenger_count is published under s3://" in run.message
    assert "Materialize fare_by_passenger_count first." in run.message


def test_published_years_of_another_schema_are_named_with_the_command_that_mends_them(
    workbench: Workbench, materialize: Materialize
) -> None:
    file = workbench.folder / "other.parquet"
    sample = PROJECT_ROOT / "sample_data" / "tlc_yellow_trips_2017.parquet"
    rows = pa.Table.from_pylist(expected_fares(sample))
    pq.write_table(rows.rename_columns({"avg_tip": "mean_tip"}), file)
    workbench.s3.upload_file(str(file), workbench.bucket, workbench.key(2017))
    run = materialize(asset="fare_trends")
    assert "Published years of fare_by_passenger_count have another schema" in run.message
    assert "lacks avg_tip DECIMAL(38,9) and has mean_tip" in run.message
    assert "--select fare_by_passenger_count --partition 2017" in run.message


def test_a_failed_command_exits_with_an_error_and_says_why(workbench: Workbench) -> None:
    done = workbench.materialize("--select", FARES, "--partition", "2018")
    assert done.returncode != 0
    assert "Not published: 2018." in done.stdout + done.stderr


def test_an_embedded_command_never_reaches_the_clouds_of_a_dotenv_file(
    workbench: Workbench,
) -> None:
    workbench.load_trips(2018, GOOD)
    workbench.share_driver()
    folder = workbench.folder / "a folder with clouds"
    folder.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as trap:
        trap.setblocking(False)
        url = f"127.0.0.1:{trap.getsockname()[1]}"
        clouds = {
            "GOOGLE_APPLICATION_CREDENTIALS": "/home/someone/production.json",
            "GCP_PROJECT_ID": "production",
            "BIGQUERY_EMULATOR_HOST": f"http://{url}",
            "BIGQUERY_STORAGE_GRPC_ENDPOINT": url,
            "TAXI_TABLE_PREFIX": "production.trips.of_",
            "S3_BUCKET": "production",
            "S3_PREFIX": "production",
            "AWS_ENDPOINT_URL_S3": f"http://{url}",
            "AWS_ACCESS_KEY_ID": "AKIAPRODUCTION000000",
            "AWS_SECRET_ACCESS_KEY": "production",
            "AWS_SESSION_TOKEN": "production",
            "AWS_PROFILE": "production",
            "AWS_DEFAULT_REGION": "ap-northeast-2",
            "SPARK_MASTER_URL": f"spark://{url}",
        }
        (folder / ".env").write_text("".join(f"{k}={v}\n" for k, v in clouds.items()))
        materialize = ("asset", "materialize", "-m", "sparkpar_assets.definitions")
        done = workbench.run(
            *workbench.command("dagster", *materialize, "--select", FARES, "--partition", "2018"),
            cwd=folder,
        )
        with pytest.raises(BlockingIOError):  # nobody has knocked
            trap.accept()
    assert done.returncode == 0, done.stderr
    assert "production" not in done.stdout + done.stderr
    assert workbench.published(2018).num_rows == 1


def test_the_settings_of_a_run_are_gone_from_the_environment_when_it_ends(
    workbench: Workbench, materialize: Materialize
) -> None:
    file = str(workbench.folder / "none.json")
    workbench.configure(GOOGLE_APPLICATION_CREDENTIALS=file)
    materialize(2018)
    assert os.environ["GOOGLE_APPLICATION_CREDENTIALS"] == workbench.env.get(
        "GOOGLE_APPLICATION_CREDENTIALS"
    )
