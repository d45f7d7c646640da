"""Runs on a warm Spark session that reach BigQuery and S3 through proxies."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from unittest import mock

from sparkpar_assets.embedded.testing import EmbeddedStack
from sparkpar_assets.io_managers.staging import STAGING
from tests.faults.leftovers import places_in_pool, unfinished_uploads
from tests.faults.proxy import (
    GrpcProxy,
    HttpProxy,
    TcpProxy,
    grpc_proxy,
    http_proxy,
    tcp_proxy,
)
from tests.faults.runs import YEARS, log_of
from tests.integration.warm_spark import end_warm_session, run_on_warm_session
from tests.integration.workbench import FARES, Workbench


@dataclass(frozen=True)
class Clouds:
    """The stack's BigQuery and S3, behind proxies.

    Attributes:
        rest: BigQuery's REST interface.
        storage: The Storage Read API, whose calls the proxy understands.
        wire: The Storage Read API, as the TLS that it is.
        s3: S3.
    """

    rest: HttpProxy
    storage: GrpcProxy
    wire: TcpProxy
    s3: HttpProxy

    def lead(self, bench: Workbench, **values: str) -> None:
        """Lead a workbench's runs through the proxies.

        Args:
            bench: The workbench.
            values: Other settings, or others of these.
        """
        proxies = {
            "BIGQUERY_EMULATOR_HOST": self.rest.url,
            "BIGQUERY_STORAGE_GRPC_ENDPOINT": self.storage.endpoint,
            "AWS_ENDPOINT_URL_S3": self.s3.url,
        }
        bench.configure(**proxies | values)

    def heal(self) -> None:
        """Make no more faults, and forget those that were made."""
        for faults in (self.rest.faults, self.storage.faults, self.s3.faults):
            faults.end()
        self.wire.resets = self.wire.made = 0


@contextmanager
def clouds_behind_proxies(stack: EmbeddedStack) -> Iterator[Clouds]:
    """Proxies before a stack's servers, and at the end of the block the end of the warm session."""
    ports = stack.ports
    with (
        http_proxy(f"http://127.0.0.1:{ports['bigquery']}") as rest,
        grpc_proxy(stack.stack.state, ports["bigquery-storage"]) as storage,
        tcp_proxy(("127.0.0.1", ports["bigquery-storage"])) as wire,
        http_proxy(f"http://127.0.0.1:{ports['s3']}") as s3,
    ):
        yield Clouds(rest, storage, wire, s3)
        end_warm_session()


@dataclass(frozen=True)
class CloudRun:
    """What came of a run.

    Attributes:
        success: Whether it succeeded.
        log: All that its log says.
    """

    success: bool
    log: str

    @property
    def tries_again(self) -> int:
        """How often the log says that something was tried again."""
        return self.log.count("the next follows in")


def materialize(bench: Workbench, years: Sequence[int] = YEARS, asset: str = FARES) -> CloudRun:
    """Materialize some years in this process."""
    tags = {
        "dagster/asset_partition_range_start": str(years[0]),
        "dagster/asset_partition_range_end": str(years[-1]),
    }
    with mock.patch.dict(os.environ, bench.env):
        result = run_on_warm_session(bench, asset, tags)
    return CloudRun(result.success, log_of(bench, result.run_id))


def assert_nothing_staged(bench: Workbench) -> None:
    """No staged object, no unfinished upload and no place in the pool is left of ended runs."""
    left = [*bench.keys(STAGING), *unfinished_uploads(bench), *places_in_pool(bench)]
    assert not left
