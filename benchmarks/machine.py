"""What the benchmark ran on."""

import importlib.metadata
import os
import platform
import re
import subprocess
from pathlib import Path

import psutil

from sparkpar_assets.embedded.jars import JARS

PACKAGES = (
    "pyspark",
    "dagster",
    "bqemulator",
    "duckdb",
    "polars",
    "pyarrow",
    "google-cloud-bigquery-storage",
)
GIGABYTE = 1024**3


def machine(java_home: str) -> dict[str, str]:
    """Processor, memory, system and versions, by what they are."""
    return {
        "processor": f"{_processor()}, {psutil.cpu_count()} cores",
        "memory": f"{psutil.virtual_memory().total / GIGABYTE:.0f} GB",
        "system": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "Java": _java(java_home),
        "Python": platform.python_version(),
        **{name: _version(name) for name in PACKAGES},
        "BigQuery connector": ", ".join(file.stem for file in JARS.glob("spark-*bigquery*.jar")),
        "priority": f"nice {os.getpriority(os.PRIO_PROCESS, 0)}",
    }


def load() -> str:
    """How busy the machine is: processes that want to run, over the last 1, 5 and 15 minutes."""
    return ", ".join(f"{one:.1f}" for one in os.getloadavg())


def _processor() -> str:
    file = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*: (.*)$", file.read_text() if file.exists() else "", re.M)
    return found[1] if found else platform.processor() or "unknown"


def _java(java_home: str) -> str:
    command = [f"{java_home}/bin/java", "-version"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stderr.splitlines()
    return said[-1].strip()


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
