"""What calls into a JVM that is gone raise, in whatever part of a run."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import dagster as dg
import pytest

from sparkpar_assets.resources.spark_driver import OwnDriver
from sparkpar_assets.resources.spark_losses import explained_losses
from tests.integration.workbench import Workbench

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    Call = Callable[[SparkSession, DataFrame], object]


def _org(session: "SparkSession") -> Any:  # noqa: ANN401  # py4j's
    assert session._jvm is not None
    return session._jvm.org


def _open_a_gone_connection(*_: object) -> None:
    with explained_losses():
        raise EOFError("rows end in the middle")


CALLS: "dict[str, Call]" = {
    "a package": lambda session, _: _org(session),
    "a class": lambda session, _: _org(session).apache.spark.storage.StorageLevel,
    "a source": lambda session, _: session.read.format("bigquery"),
    "a method": lambda _, rows: rows.persist(),
    "a plan": lambda _, rows: rows.groupBy("id").count(),
    "a job": lambda _, rows: rows.collect(),
    "a property": lambda session, _: session.sparkContext.applicationId,
    "the rows of a job": _open_a_gone_connection,
}


def test_every_kind_of_call_says_that_the_driver_has_ended(workbench: Workbench) -> None:
    workbench.configure(SPARK_MASTER_URL="local[1]", SPARK_EVENT_LOG_DIR="")
    settings = workbench.settings
    java_home = str(settings.java_home)
    driver = OwnDriver(settings, "is lost", java_home)
    session = driver.session
    rows = session.range(3)
    gateway = session.sparkContext._gateway
    assert gateway is not None
    gateway.proc.kill()
    gateway.proc.wait()
    for name, call in CALLS.items():
        with pytest.raises(dg.Failure, match="Spark's driver has ended") as caught:
            call(session, rows)
        assert not caught.value.allow_retries, name
    assert driver.is_lost
    driver.end(in_order=False)
    with pytest.raises(dg.Failure, match="Spark's driver has ended"):
        rows.count()

    another = OwnDriver(settings, "is found", java_home)
    try:
        assert another.session.range(3).count() == 3
        assert not another.is_lost
    finally:
        another.end(in_order=True)
