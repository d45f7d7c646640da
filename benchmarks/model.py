"""Time, memory and money beyond this machine: a model, from rates that were measured here.

Usage: python -m benchmarks.model        prints the tables of docs/scaling.md
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sparkpar_assets.cost import USD_PER_TIB_READ

GIB, TIB = 2**30, 2**40

BYTES_A_ROW = 56
"""Of the built-in fares: an INT64 and three NUMERICs. In Arrow, on the wire, as many (counted by
tests/integration/test_no_waste.py)."""
ROWS_A_CORE_SECOND = 350_000
"""Read and aggregated by one core. Measured warm on a quiet machine: 10 million rows took two
executors of one core 7 s, all fixed parts included, which is 710,000 for each. A virtual core of a
cloud is mostly half of a physical one: so half of that."""
SECONDS_OF_A_RUN = 15.0
"""What a run takes of few rows. Measured cold on a quiet machine: imports 3.3 s, session 3.0 s,
first aggregate 4.4 s, first write 3.6 s."""
REQUEST_SECONDS = 0.05
"""Of a small request to S3: assumed. AWS's documentation speaks of 0.1 to 0.2 s for the first byte
under load; in the same region less is usual. On the embedded stack it is 0.004."""
S3_REQUESTS_OF_A_RUN: Mapping[str, int] = {
    "ListObjectsV2": 24,
    "HeadObject": 12,
    "PutObject": 6,
    "DeleteObjects": 5,
    "ListMultipartUploads": 4,
    "GetObject": 1,
    "DeleteObject": 1,
}
S3_REQUESTS_OF_A_PARTITION: Mapping[str, int] = {
    "HeadObject": 9,
    "ListObjectsV2": 5,
    "GetObject": 3,
    "CopyObject": 2,
    "PutObject": 2,
    "CreateMultipartUpload": 1,
    "UploadPart": 1,
    "CompleteMultipartUpload": 1,
}
"""Where the partition was published before. tests/integration/test_no_waste.py counts both."""
FREE_OPERATIONS = {"DeleteObject", "DeleteObjects", "AbortMultipartUpload"}
CHEAP_OPERATIONS = {"HeadObject", "GetObject"}
USD_A_REQUEST, USD_A_CHEAP_REQUEST = 0.005 / 1000, 0.0004 / 1000
"""S3 Standard in us-east-1 (AWS's page "Amazon S3 pricing"): quoted, not verified here."""
EGRESS_TIERS = ((1 * TIB, 0.12), (10 * TIB, 0.11), (float("inf"), 0.08))
"""Bytes of a month up to which a price holds, and the price in US dollars per GiB: data transfer
from Google's network to the internet, worldwide without China and Australia (Google's page "Network
pricing", premium tier): quoted, not verified here."""
USD_A_CORE_HOUR = 0.048
"""A virtual core with 4 GiB, Linux, on demand in us-east-1, as m6i.xlarge (AWS's page "Amazon EC2
pricing"): quoted, not verified here. EMR and EKS cost more."""
STREAMS_A_TABLE = 1_000
"""The most of a read session (reference of the Storage Read API, CreateReadSessionRequest)."""
NETWORK_BYTES_A_SECOND = 10e9 / 8
"""Into the cluster from another cloud: assumed, 10 Gbit/s."""
EXECUTOR_GB = 2.0
"""Heap of an executor: the default of SPARK_EXECUTOR_MEMORY."""
OVERHEAD_GB = 0.384
"""What YARN and Kubernetes add for each executor at least (Spark's documentation, "Configuration",
spark.executor.memoryOverhead)."""


@dataclass(frozen=True)
class Work:
    """What is to be materialized.

    Attributes:
        name: What it is.
        rows: Rows of all partitions.
        partitions: How many partitions they are in, a table each.
        runs: How many runs these are materialized in, one after the other.
    """

    name: str
    rows: float
    partitions: int
    runs: int = 1


@dataclass(frozen=True)
class Cluster:
    """Where Spark runs.

    Attributes:
        name: Kind and size.
        executors: How many.
        cores: Of each.
        start_seconds: Until the executors are there, beyond what a standalone cluster takes:
            assumed, not measured.
        overhead_gb: Memory of each executor beyond its heap that the manager sets aside.
        abroad: Whether it is outside of Google's network.
    """

    name: str
    executors: int
    cores: int
    start_seconds: float = 0.0
    overhead_gb: float = OVERHEAD_GB
    abroad: bool = True


@dataclass(frozen=True)
class Estimate:
    """What the work takes.

    Attributes:
        seconds: Seconds by part: ``start``, ``read``, ``publish``.
        bottleneck: What limits the reading: ``cores``, ``streams`` or ``network``.
        executor_gb: Memory of all executors.
        usd: US dollars by part: ``read``, ``egress``, ``compute``, ``s3``.
    """

    seconds: Mapping[str, float]
    bottleneck: str
    executor_gb: float
    usd: Mapping[str, float]


TAXI = Work("all years, 46 GB", rows=237e6, partitions=12)
"""46 GB at 194 bytes a trip, which is what 36 million trips of 2022 in 7 GB are."""
WORKS = (
    TAXI,
    Work("46 TB in 12 partitions", rows=237e9, partitions=12),
    Work("46 TB in 12,000 partitions", rows=237e9, partitions=12_000, runs=120),
)
CLUSTERS = (
    Cluster("standalone, 8 cores", executors=4, cores=2, overhead_gb=0.0),
    Cluster("YARN, 64 cores", executors=16, cores=4, start_seconds=15),
    Cluster("Kubernetes, 512 cores", executors=128, cores=4, start_seconds=30),
    Cluster("the same in Google Cloud", executors=128, cores=4, start_seconds=30, abroad=False),
)


def estimate(work: Work, cluster: Cluster) -> Estimate:
    """Apply the model.

    Args:
        work: What is to be done.
        cluster: Where.
    """
    limits = _seconds_to_read(work, cluster)
    bottleneck = max(limits, key=lambda name: limits[name])
    seconds = {
        "start": work.runs * (SECONDS_OF_A_RUN + cluster.start_seconds),
        "read": limits[bottleneck],
        "publish": s3_requests(work).total * REQUEST_SECONDS,
    }
    cores = cluster.executors * cluster.cores
    scanned = work.rows * BYTES_A_ROW
    usd = {
        "read": scanned / TIB * float(USD_PER_TIB_READ),
        "egress": egress_usd(scanned) if cluster.abroad else 0.0,
        "compute": cores * sum(seconds.values()) / 3600 * USD_A_CORE_HOUR,
        "s3": s3_requests(work).usd,
    }
    memory = cluster.executors * (EXECUTOR_GB + cluster.overhead_gb)
    return Estimate(seconds, bottleneck, memory, usd)


def _seconds_to_read(work: Work, cluster: Cluster) -> Mapping[str, float]:
    """How long each thing that all rows go through would take, were it the only one."""
    cores = cluster.executors * cluster.cores
    streams = STREAMS_A_TABLE * work.partitions / work.runs
    return {
        "cores": work.rows / (ROWS_A_CORE_SECOND * cores),
        "streams": work.rows / (ROWS_A_CORE_SECOND * streams),
        "network": work.rows * BYTES_A_ROW / NETWORK_BYTES_A_SECOND if cluster.abroad else 0.0,
    }


@dataclass(frozen=True)
class S3Requests:
    """Requests to S3.

    Attributes:
        total: How many.
        usd: What they cost, in US dollars.
    """

    total: int
    usd: float


def s3_requests(work: Work) -> S3Requests:
    """The requests to S3 that publishing takes."""
    total, usd = 0, 0.0
    for times, requests in (
        (work.runs, S3_REQUESTS_OF_A_RUN),
        (work.partitions, S3_REQUESTS_OF_A_PARTITION),
    ):
        for operation, count in requests.items():
            total += times * count
            usd += times * count * _request_usd(operation)
    return S3Requests(total, usd)


def _request_usd(operation: str) -> float:
    if operation in FREE_OPERATIONS:
        return 0.0
    return USD_A_CHEAP_REQUEST if operation in CHEAP_OPERATIONS else USD_A_REQUEST


def egress_usd(scanned: float) -> float:
    """What it costs to take bytes out of Google's network in one month.

    Args:
        scanned: How many bytes.
    """
    usd, begins = 0.0, 0.0
    for ends, price in EGRESS_TIERS:
        usd += max(0.0, min(scanned, ends) - begins) / GIB * price
        begins = ends
    return usd


def table(works: Sequence[Work] = WORKS, clusters: Sequence[Cluster] = CLUSTERS) -> str:
    """The estimates as a table in Markdown, as it stands in docs/scaling.md."""
    head = (
        "| work | cluster | start | read | limited by | publish | memory of executors | "
        "reading | egress | compute | S3 requests |"
    )
    lines = [head, "|---|---|" + "---:|" * 2 + "---|" + "---:|" * 6]
    for work in works:
        for cluster in clusters:
            found = estimate(work, cluster)
            cells = [
                work.name,
                cluster.name,
                duration(found.seconds["start"]),
                duration(found.seconds["read"]),
                found.bottleneck,
                duration(found.seconds["publish"]),
                f"{found.executor_gb:,.0f} GB",
                *(money(found.usd[part]) for part in ("read", "egress", "compute", "s3")),
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def request_table() -> str:
    """The requests to S3 as a table in Markdown, as it stands in docs/scaling.md."""
    lines = ["| request | a run | and for each partition |", "|---|---:|---:|"]
    for operation in dict.fromkeys([*S3_REQUESTS_OF_A_RUN, *S3_REQUESTS_OF_A_PARTITION]):
        once = S3_REQUESTS_OF_A_RUN.get(operation, 0)
        each = S3_REQUESTS_OF_A_PARTITION.get(operation, 0)
        lines.append(f"| {operation} | {once} | {each} |")
    sums = (sum(S3_REQUESTS_OF_A_RUN.values()), sum(S3_REQUESTS_OF_A_PARTITION.values()))
    return "\n".join([*lines, f"| all | {sums[0]} | {sums[1]} |"])


def duration(seconds: float) -> str:
    """Seconds in the unit that one would say."""
    for unit, length in (("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{two_digits(seconds / length)} {unit}"
    return f"{two_digits(seconds)} s"


def money(usd: float) -> str:
    """US dollars to two digits."""
    return f"${two_digits(usd)}"


def two_digits(value: float) -> str:
    """A number to two digits, without an exponent: no part of the model is known better."""
    rounded = float(f"{value:.2g}")
    return f"{rounded:,.0f}" if rounded >= 10 else f"{rounded:g}"


if __name__ == "__main__":
    sys.stdout.write(f"{table()}\n\n{request_table()}\n")
