"""Analyses in YAML: what they load as, and what is said of those that cannot be loaded."""

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from textwrap import dedent

import dagster as dg
import pytest

from sparkpar_assets.components.errors import AnalysisError
from sparkpar_assets.components.loading import load_analyses
from sparkpar_assets.definitions import ASSETS, defs
from sparkpar_assets.metadata import ANY, GROUP_BY_KEY, PATH_KEY, TOTALS_KEY
from sparkpar_assets.project import PROJECT_ROOT
from tests.unit.readmes import analysis_in_python

TAXI = "bigquery-public-data.new_york_taxi_trips.tlc_yellow_trips_{year}"
ZONE_TIPS = f"""\
type: sparkpar_assets.components.BigQueryAggregation
attributes:
  asset: zone_tips
  description: Tips by pickup zone
  table: "{TAXI}"
  years: {{start: 2011}}
  path: zone_tips
  where: fare_amount > 0 AND pickup_location_id IS NOT NULL
  group_by: [pickup_location_id]
  metrics:
    trips: count(*)
    avg_tip: avg(tip_amount)
  order_by: [avg_tip DESC]
  max_bytes_read: 20 GB
"""
"""The example of the README."""
EXAMPLE = """\
type: sparkpar_assets.components.BigQueryAggregation
attributes:
  asset: by_category
  table: project.dataset.table
  path: custom-analytics
  group_by: [category]
  metrics: {avg_value: avg(value)}
  order_by: [avg_value DESC]
"""
"""An analysis that is not partitioned."""
THOUSAND = 1000
LOADING_SECONDS = 10
"""The most CPU time that loading a thousand analyses may take, where that of Dagster is usual."""
DAGSTERS_SECONDS = 1.5
"""The usual CPU time of importing Dagster; where it is more, the machine is slow or busy."""
TRIES = 3
"""Of a measurement that other work may have met."""

Load = Callable[..., dg.Definitions]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The empty folder of the analyses of a project that consists of nothing else."""
    (tmp_path / "pyproject.toml").write_text(
        dedent("""
            [tool.dg]
            directory_type = "project"
            [tool.dg.project]
            root_module = "made_project"
            defs_module = "made_project.analyses"
        """)
    )
    analyses = tmp_path / "made_project" / "analyses"
    analyses.mkdir(parents=True)
    for package in (analyses, analyses.parent):
        (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    yield analyses
    for name in ("made_project", "made_project.analyses"):
        sys.modules.pop(name, None)


@pytest.fixture
def load(folder: Path) -> Load:
    """Loads analyses that are given as texts, by the names of their folders."""

    def loaded(**texts: str) -> dg.Definitions:
        for name, text in texts.items():
            (folder / name).mkdir(exist_ok=True)
            (folder / name / "defs.yaml").write_text(text)
        own = dg.Definitions(assets=ASSETS, resources=defs.resources)
        return dg.Definitions.merge(own, load_analyses(ASSETS, folder.parent.parent))

    return loaded


def spec(loaded: dg.Definitions, *key: str) -> dg.AssetSpec:
    return next(one for one in loaded.resolve_all_asset_specs() if one.key == dg.AssetKey(key))


def said(load: Load, folder: Path, **texts: str) -> str:
    """What is said of analyses, without the folder of the files."""
    with pytest.raises(AnalysisError) as raised:
        load(**texts)
    return str(raised.value).replace(f"{folder}/", "")


def changed(old: str, new: str, text: str = ZONE_TIPS) -> str:
    assert old in text
    return text.replace(old, new)


KEYS = (
    "asset, description, table, year_column, years, path, where, group_by, metrics, order_by, "
    "max_bytes_read, group, owners"
)
FOLDER = "^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*$"
NO_SIZE = "That is no size above 0. Write it like 20 GB, 1.5 TiB or 1000000."
OWN_TYPE = "sparkpar_assets.components.BigQueryAggregation"
TAKEN = "lies in the way of fare_trends, that of the asset fare_trends. Write another path."


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("where:", "wehre:", f"8: there is no key wehre. The keys are {KEYS}."),
        ("2011}", "2011, strat: 1}", "6: there is no key years.strat. The keys are start, end."),
        (
            "type: ",
            "colour: red\ntype: ",
            "1: there is no key colour. The keys are type, attributes, template_vars_module, "
            "requirements, post_processing.",
        ),
        ("  asset: zone_tips\n", "", "2: the key asset is missing. Add it."),
        ("{start: 2011}", "{end: 2011}", "6: the key years.start is missing. Add it."),
        (
            "asset: zone_tips",
            "asset: zone-tips",
            "3: asset: 'zone-tips' is not of the form ^[A-Za-z][A-Za-z0-9_]*$. Correct it.",
        ),
        (
            "fare_amount > 0 AND",
            "fare_amount > AND",
            "8: where: 'fare_amount > AND pickup_location_id IS NOT NULL' does not parse: "
            "Something is missing (column 17). Correct it.",
        ),
        (
            "count(*)",
            "count(*",
            "11: metrics.trips: 'count(*' does not parse: Expecting ) (column 7). Correct it.",
        ),
        (
            "avg(tip_amount)",
            "max(reflect('a', 'b'))",
            "12: metrics.avg_tip: 'max(reflect('a', 'b'))' has the function reflect, which is not "
            "allowed here. Write it with the functions that the documentation lists.",
        ),
        (
            "avg(tip_amount)",
            "7",
            "12: metrics.avg_tip: Input should be a valid string. Correct it.",
        ),
        ("    avg_tip:", "    trips:", "12: the key trips stands twice. Rename one."),
        ("\n  path:", "\n  asset: x\n  path:", "7: the key asset stands twice. Rename one."),
        (
            "    avg_tip:",
            "    Trips:",
            "10: metrics: Two columns are called Trips. Give each a name of its own.",
        ),
        (
            "    avg_tip:",
            "    PICKUP_location_id:",
            "10: metrics: Two columns are called PICKUP_location_id. Give each a name of its own.",
        ),
        (
            "[pickup_location_id]",
            "[a, lower(b) AS A]",
            "9: group_by: Two columns are called A. Give each a name of its own.",
        ),
        (
            "    trips:",
            "    Year:",
            "10: metrics: The column year is the partition's. Give this one another name.",
        ),
        ("path: zone_tips", "path: fare_trends", f"1: the path fare_trends {TAKEN}"),
        ("path: zone_tips", "path: fare_trends/x", f"1: the path fare_trends/x {TAKEN}"),
        *(
            (
                "path: zone_tips",
                f"path: {path}",
                f"7: path: '{path}' is not of the form {FOLDER}. Correct it.",
            )
            for path in ("_history", "../x", "a/year=2018", "/a", "a//b")
        ),
        (
            "asset: zone_tips",
            "asset: fare_trends",
            "1: there is an asset fare_trends already, in the asset fare_trends. Call one of them "
            "otherwise.",
        ),
        (
            "{start: 2011}",
            "{start: 2019, end: 2018}",
            "6: years.end: The years end in 2018, before they start. Write 2019 or later.",
        ),
        (
            "  years: {start: 2011}\n",
            "",
            "2: years: The first year is missing. Write years: {start: 2011}, say.",
        ),
        (
            "trips_{year}",
            "trips",
            "6: years: Nothing tells the years apart. Write {year} in the table's name, add a "
            "year_column, or leave years out.",
        ),
        (
            "  years:",
            "  year_column: t\n  years:",
            "6: year_column: The table has {year} already. Leave one of the two out.",
        ),
        ("2011", "9000", "6: years: The year 9000 has not begun. Write an earlier start."),
        (
            "{start: 2011}",
            "{start: soon}",
            "6: years.start: Input should be a valid integer, unable to parse string as an "
            "integer. Correct it.",
        ),
        (
            "{year}",
            "{month}",
            "5: table: Of braces a table's name may have {year}, once. Correct it.",
        ),
        ("20 GB", "20 apples", f"14: max_bytes_read: {NO_SIZE}"),
        ("20 GB", "-1", f"14: max_bytes_read: {NO_SIZE}"),
        (
            "avg_tip DESC",
            "tip DESC",
            "13: order_by: 'tip DESC' is no column of the result. Its columns are "
            "pickup_location_id, trips, avg_tip.",
        ),
        (
            "[pickup_location_id]",
            "[]",
            "9: group_by: List should have at least 1 item after validation, not 0. Correct it.",
        ),
        (
            "attributes:\n",
            "attributes: [\n",
            "4: this is not YAML: did not find expected ',' or ']'. Correct it.",
        ),
        (
            "description: Tips",
            "description: {{ Tips }} #",
            "4: a key is no text. Put what begins with a brace in quotes.",
        ),
        ("type: ", "tpye: ", f"1: the key type is missing. Write type: {OWN_TYPE}."),
        (f"type: {OWN_TYPE}", "type: [a]", f"1: the key type is missing. Write type: {OWN_TYPE}."),
        *(
            (OWN_TYPE, wrong, f"1: there is no component {wrong}. Write {OWN_TYPE}, say.")
            for wrong in (f"{OWN_TYPE}s", "nowhere.BigQueryAggregation")
        ),
    ],
)
def test_what_is_wrong_is_said_with_file_and_line(
    load: Load, folder: Path, old: str, new: str, message: str
) -> None:
    found = said(load, folder, zone_tips=changed(old, new))
    assert found == f"zone_tips/defs.yaml:{message}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty. Write an analysis, or remove its folder."),
        ("# nothing\n", "the file is empty. Write an analysis, or remove its folder."),
        ("- a\n", "there are no keys here. Write type: and attributes:."),
        ("a\n", "there are no keys here. Write type: and attributes:."),
        (f"type: {OWN_TYPE}\n", "the key attributes is missing. Add it."),
        (f"type: {OWN_TYPE}\nattributes:\n", "the key attributes is missing. Add it."),
        ("type: \x00\n", "this is not YAML in UTF-8. Save it as such."),
    ],
)
def test_a_file_without_an_analysis_is_named(
    load: Load, folder: Path, text: str, message: str
) -> None:
    assert said(load, folder, a=text) == f"a/defs.yaml:1: {message}"


def test_a_file_in_another_encoding_is_named(load: Load, folder: Path) -> None:
    (folder / "a").mkdir()
    (folder / "a" / "defs.yml").write_bytes("description: Gebühr".encode("latin-1"))
    assert said(load, folder) == "a/defs.yml:1: this is not YAML in UTF-8. Save it as such."


def test_all_that_is_wrong_is_named_in_all_files(load: Load, folder: Path) -> None:
    wrong_twice = changed("count(*)", "count(*", changed("where:", "wehre:"))
    found = said(
        load, folder, a=wrong_twice, good=EXAMPLE, z=changed("avg_value DESC", "x", EXAMPLE)
    )
    assert [line.partition(": ")[0] for line in found.splitlines()] == [
        "a/defs.yaml:11",
        "a/defs.yaml:8",
        "z/defs.yaml:8",
    ]
    found = said(load, folder, a="", z="a: [")
    assert [line.partition(": ")[0] for line in found.splitlines()] == [
        "a/defs.yaml:1",
        "z/defs.yaml:2",
    ]


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ("zone_tips", "zone_tips", "zone_tips lies in the way of zone_tips"),
        ("zone_tips", "zone_tips/b", "zone_tips/b lies in the way of zone_tips"),
        ("zone_tips/b", "zone_tips", "zone_tips lies in the way of zone_tips/b"),
    ],
)
def test_no_path_lies_in_that_of_another_analysis(
    load: Load, folder: Path, first: str, second: str, message: str
) -> None:
    found = said(
        load,
        folder,
        a=changed("path: zone_tips", f"path: {first}"),
        b=changed("custom-analytics", second, EXAMPLE),
    )
    assert found == (
        f"b/defs.yaml:1: the path {message}, that of a/defs.yaml:1. Write another path."
    )


def test_paths_that_only_begin_alike_are_no_collision(load: Load) -> None:
    graph = load(a=ZONE_TIPS, b=changed("custom-analytics", "zone_tips2", EXAMPLE))
    assert spec(graph, "by_category").metadata[PATH_KEY] == "zone_tips2"


def test_two_analyses_cannot_have_one_name(load: Load, folder: Path) -> None:
    again = changed("path: zone_tips", "path: elsewhere")
    assert said(load, folder, a=ZONE_TIPS, b=again) == (
        "b/defs.yaml:1: there is an asset zone_tips already, in a/defs.yaml:1. Call one of them "
        "otherwise."
    )


def test_two_tables_cannot_be_one_asset(load: Load, folder: Path) -> None:
    found = said(
        load,
        folder,
        a=changed("project.dataset.table", "p.d.t_year", EXAMPLE),
        b=changed(TAXI, "p.d.t_{year}"),
    )
    assert found == (
        "b/defs.yaml:1: the tables p.d.t_{year} and p.d.t_year would be one asset. Rename one of "
        "them."
    )


def test_the_example_is_an_asset_with_its_schema_and_lineage(load: Load) -> None:
    graph = load(zone_tips=ZONE_TIPS)
    found = spec(graph, "zone_tips")
    assert found.description == "Tips by pickup zone"
    assert found.partitions_def == dg.TimeWindowPartitionsDefinition(
        start="2011", fmt="%Y", cron_schedule="0 0 1 1 *"
    )
    assert [(one.name, one.type) for one in found.metadata["dagster/column_schema"].columns] == [
        ("pickup_location_id", ANY),
        ("trips", "INT64"),
        ("avg_tip", ANY),
    ]
    table = dg.AssetKey(TAXI.replace("{year}", "year").split("."))
    lineage = found.metadata["dagster/column_lineage"].deps_by_column
    assert {dep.asset_key for deps in lineage.values() for dep in deps} == {table}
    assert {name: sorted(dep.column_name for dep in deps) for name, deps in lineage.items()} == {
        "pickup_location_id": ["fare_amount", "pickup_location_id"],
        "trips": ["fare_amount", "pickup_location_id"],
        "avg_tip": ["fare_amount", "pickup_location_id", "tip_amount"],
    }
    assert found.metadata[GROUP_BY_KEY] == ["pickup_location_id"]
    assert found.metadata[TOTALS_KEY] == ["trips"]
    assert [dep.asset_key for dep in found.deps] == [table]
    assert spec(graph, *table.path).partitions_def == found.partitions_def


def test_an_analysis_of_a_whole_table_has_no_partitions(load: Load) -> None:
    graph = load(custom=EXAMPLE)
    found = spec(graph, "by_category")
    assert found.partitions_def is None
    assert found.metadata[PATH_KEY] == "custom-analytics"
    assert spec(graph, "project", "dataset", "table").partitions_def is None


def test_the_readmes_analysis_in_python_is_loaded_beside_those_in_yaml(
    load: Load, folder: Path
) -> None:
    example = analysis_in_python()
    (folder / "tips_by_payment_type.py").write_text(example)
    loaded = load(zone_tips=ZONE_TIPS)
    spec(loaded, "zone_tips")
    found = spec(loaded, "tips_by_payment_type")
    assert found.description == "Trips and tips by way of payment."
    (table,) = (dep.asset_key for dep in found.deps)
    assert spec(loaded, *table.path).kinds == {"bigquery"}


def test_a_python_file_that_does_not_parse_is_named(load: Load, folder: Path) -> None:
    (folder / "tips.py").write_text("import dagster as dg\ndef x(:\n")
    with pytest.raises(SyntaxError) as raised:
        load()
    assert (raised.value.filename, raised.value.lineno) == (str(folder / "tips.py"), 2)


def test_analyses_of_one_table_share_its_asset_with_all_their_years(load: Load) -> None:
    this_year = datetime.now(UTC).year
    for years, keys in (
        ("2009, end: 2010", range(2009, this_year)),
        ("2015", range(2011, this_year)),
    ):
        other = changed("zone_tips", "other", changed("start: 2011", f"start: {years}"))
        graph = load(a=ZONE_TIPS, b=other)
        tables = [one for one in graph.resolve_all_asset_specs() if "bigquery" in one.kinds]
        (partitions,) = [one.partitions_def for one in tables if one.group_name == "bigquery"]
        assert partitions is not None
        assert partitions.get_partition_keys() == [str(year) for year in keys]


def test_years_that_all_end_end_with_the_last(load: Load) -> None:
    first, last = (changed("2011", f"{years}") for years in ("2011, end: 2012", "2014, end: 2015"))
    graph = load(a=first, b=changed("zone_tips", "other", last))
    found = spec(graph, *TAXI.replace("{year}", "year").split(".")).partitions_def
    assert found is not None
    assert found.get_partition_keys() == ["2011", "2012", "2013", "2014", "2015"]


@pytest.mark.parametrize(
    ("old", "new", "is_another"),
    [
        ("fare_amount > 0", "fare_amount > 1", True),
        ("avg(tip_amount)", "sum(tip_amount)", True),
        ("avg_tip DESC", "avg_tip", True),
        (TAXI, "p.d.t_{year}", True),
        ("Tips by pickup zone", "Other words", False),
        ("20 GB", "30 GB", False),
        ("path: zone_tips", "path: elsewhere", False),
    ],
)
def test_the_code_version_tells_whether_other_rows_are_published(
    load: Load, old: str, new: str, is_another: bool
) -> None:
    before = spec(load(a=ZONE_TIPS), "zone_tips").code_version
    after = spec(load(a=changed(old, new)), "zone_tips").code_version
    assert before
    assert (before != after) is is_another


# The commands, on a copy of the project.


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the project, without analyses."""
    shutil.copytree(
        PROJECT_ROOT / "sparkpar_assets",
        tmp_path / "sparkpar_assets",
        ignore=lambda folder, names: (
            [name for name in names if Path(folder, name).is_dir()]
            if Path(folder).name == "analyses"
            else []
        ),
    )
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(PROJECT_ROOT / name, tmp_path)
    return tmp_path


def run(project: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command of this Python's environment in a project, without a variable of ours."""
    environment = {
        "HOME": str(project),
        "PATH": "/nonexistent",
        "PYTHONPATH": str(project),
        "DAGSTER_DISABLE_TELEMETRY": "yes",
    }
    return subprocess.run(
        [os.path.join(os.path.dirname(sys.executable), command[0]), *command[1:]],  # noqa: PTH118, PTH120
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_dg_makes_checks_and_lists_an_analysis(project: Path) -> None:
    made = run(project, "dg", "scaffold", "defs", OWN_TYPE, "scaffolded")
    assert made.returncode == 0, made.stderr
    file = project / "sparkpar_assets" / "analyses" / "scaffolded" / "defs.yaml"
    assert "asset: scaffolded" in file.read_text()
    for command in (["check", "yaml"], ["check", "defs"]):
        checked = run(project, "dg", *command)
        assert checked.returncode == 0, checked.stdout + checked.stderr
    listed = run(project, "dg", "list", "defs", "--json")
    keys = {asset["asset_key"] for asset in json.loads(listed.stdout)["assets"]}
    assert keys >= {"scaffolded", "project/dataset/table_year", "fare_trends"}
    assets = run(project, "dagster", "asset", "list", "-m", "sparkpar_assets.definitions")
    assert "scaffolded" in assets.stdout.splitlines(), assets.stderr


def test_a_wrong_key_is_named_by_dgs_checks(project: Path) -> None:
    for name in ("broken", "good"):
        (project / "sparkpar_assets" / "analyses" / name).mkdir()
    file = project / "sparkpar_assets" / "analyses" / "broken" / "defs.yaml"
    file.write_text(changed("group_by:", "groub_by:"))
    checked = run(project, "dg", "check", "yaml")
    assert checked.returncode == 1
    assert f"{file}:9" in checked.stdout
    assert "'groub_by' was unexpected" in checked.stdout

    # Of several files of a type, dg check yaml of 1.13.27 looks at the last one alone.
    (file.parent.parent / "good" / "defs.yaml").write_text(EXAMPLE)
    assert run(project, "dg", "check", "yaml").returncode == 0
    loaded = run(project, "dg", "check", "defs", "--no-check-yaml")
    assert loaded.returncode == 1
    assert "sparkpar_assets/analyses/broken/defs.yaml:9: there is no key groub_by." in (
        loaded.stdout + loaded.stderr
    )


def _timed(project: Path, code: str) -> tuple[subprocess.CompletedProcess[str], float]:
    """What a Python program printed, and the CPU time that it took, in seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = run(project, "python", "-c", code)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return done, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_a_thousand_analyses_load_in_seconds_and_a_broken_one_is_named(project: Path) -> None:
    analyses = project / "sparkpar_assets" / "analyses"
    for number in range(THOUSAND):
        (analyses / f"a{number:04}").mkdir()
        text = ZONE_TIPS.replace("zone_tips", f"a{number:04}").replace("> 0", f"> {number}")
        (analyses / f"a{number:04}" / "defs.yaml").write_text(text)
    code = "from sparkpar_assets.definitions import defs; print(len(list(defs.assets)))"
    found = []
    for _ in range(TRIES):
        _, usual = _timed(project, "import dagster")
        done, seconds = _timed(project, code)
        assert done.stdout.strip() == str(THOUSAND + len(ASSETS) + 1), done.stderr
        found.append(seconds / max(1, usual / DAGSTERS_SECONDS))
        if found[-1] < LOADING_SECONDS:
            break
    assert min(found) < LOADING_SECONDS, found

    broken = analyses / "a0500" / "defs.yaml"
    broken.write_text(changed("where:", "wehre:", broken.read_text()))
    done = run(project, "python", "-c", code)
    assert done.stderr.splitlines()[-1] == (
        "sparkpar_assets.components.errors.AnalysisError: sparkpar_assets/analyses/a0500/"
        f"defs.yaml:8: there is no key wehre. The keys are {KEYS}."
    )


def test_an_analysis_makes_importing_load_no_heavy_library(project: Path) -> None:
    made = project / "sparkpar_assets" / "analyses" / "light"
    made.mkdir()
    (made / "defs.yaml").write_text(changed("zone_tips", "light"))
    code = """
import socket, sys
def refuse(*args, **kwargs): raise AssertionError("importing reached out")
socket.socket.connect = refuse
import sparkpar_assets.definitions
heavy = {"pyspark", "py4j", "boto3", "google.cloud.bigquery", "grpc", "pyarrow", "pandas"}
heavy |= {"google.auth", "cryptography", "matplotlib"}
print(sorted(heavy & set(sys.modules)), "sqlglot" in sys.modules)
"""
    assert run(project, "python", "-c", code).stdout.strip() == "[] True"
    shutil.rmtree(made)
    assert run(project, "python", "-c", code).stdout.strip() == "[] False"
