"""The sample trips: real ones, in tables named as BigQuery's public ones."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from google.api_core.exceptions import NotFound
from google.cloud.bigquery import Client, SchemaField

from sparkpar_assets.embedded import tables
from sparkpar_assets.embedded.server import StackConfig
from sparkpar_assets.project import PROJECT_ROOT
from sparkpar_assets.settings import Settings

SAMPLES = PROJECT_ROOT / "sample_data"
YEARS = (2017, 2018, 2019, 2021)
EMPTY_YEAR = 2023
"""The last table of the public data set, which has no rows there either."""


def load_samples(
    config: StackConfig, folder: Path = SAMPLES, say: Callable[[str], None] = print
) -> None:
    """Load each year's trips, unless the same file was loaded before and the table is there.

    Raises:
        EmbeddedError: A sample file is damaged; the years before it stay loaded.
    """
    client = tables.connect(config)
    ledger_file = config.state.data / "samples.json"
    ledger: dict[str, str] = json.loads(ledger_file.read_text()) if ledger_file.exists() else {}
    for year in YEARS:
        file = folder / f"tlc_yellow_trips_{year}.parquet"
        name = table_name(year)
        digest = _digest(file)
        if ledger.get(name) == digest and _exists(client, name):
            say(f"    {name}: there already")
            continue
        loaded = tables.load(config, name, file)
        ledger[name] = digest
        ledger_file.write_text(json.dumps(ledger, indent=2))
        say(f"    {name}: {loaded.rows:,} trips")
    tables.create_empty(config, table_name(EMPTY_YEAR), _published_schema(folder))


def table_name(year: int) -> str:
    """The table of a year's trips."""
    return f"{Settings().taxi_table_prefix}{year}"


def _exists(client: Client, name: str) -> bool:
    try:
        client.get_table(name, **tables.CALL)
    except NotFound:
        return False
    return True


def _published_schema(folder: Path) -> list[SchemaField]:
    fields = json.loads((folder / "tlc_yellow_trips.json").read_text())
    return [SchemaField.from_api_repr(field) for field in fields]


def _digest(file: Path) -> str:
    """What a file holds, in short; nothing for one that is missing, which loading then names."""
    if not file.is_file():
        return ""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
