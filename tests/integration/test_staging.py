"""Staged data: a run that lives keeps it, a dead one loses it, and with it the right to publish."""

import itertools
import signal
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import dagster as dg
import pytest

from sparkpar_assets.io_managers import staging
from sparkpar_assets.io_managers.published import HISTORY, PublishedDataset, publication_time
from sparkpar_assets.io_managers.staging import (
    StagingArea,
    ended_runs,
    remove_dead_staging,
    staging_area,
)
from tests.integration.publisher_process import start_publisher
from tests.integration.versions import fares
from tests.integration.workbench import FARES, Workbench, kill_group, wait_until

LEASE_SECONDS = 5
LOCAL = {"SPARK_MASTER_URL": "local[1]", "SPARK_EVENT_LOG_DIR": ""}
RUN_IDS = map("run-{:02}".format, itertools.count())


@dg.job
def nothing() -> None:
    """A job whose runs a test can have end as it likes."""


def open_area(bench: Workbench, owner: str) -> AbstractContextManager[StagingArea]:
    """A staging area of a run that lives as long as the block."""
    log = dg.build_op_context().log
    return staging_area(bench.s3, bench.bucket, bench.root, owner, LEASE_SECONDS, log)


def remove_dead(bench: Workbench, lifetime: float = LEASE_SECONDS) -> None:
    """What every run does before it stages."""
    log = dg.build_op_context().log
    with bench.instance() as instance:
        ended = ended_runs(instance)
        remove_dead_staging(bench.s3, bench.bucket, bench.root, lifetime, log, ended)


def put(bench: Workbench, key: str, content: bytes = b"rows") -> str:
    """Make an object below the test's prefix; returns its whole key."""
    bench.s3.put_object(Bucket=bench.bucket, Key=bench.root + key, Body=content)
    return bench.root + key


def begin_upload(bench: Workbench, key: str) -> str:
    """Begin a multipart upload that nobody finishes, as a killed magic committer leaves them."""
    place = {"Bucket": bench.bucket, "Key": bench.root + key}
    upload = bench.s3.create_multipart_upload(**place)["UploadId"]  # type: ignore[arg-type]
    bench.s3.upload_part(**place, UploadId=upload, PartNumber=1, Body=b"part")  # type: ignore[arg-type]
    return bench.root + key


def uploads(bench: Workbench) -> list[str]:
    """Keys of the unfinished uploads below the test's prefix."""
    found = bench.s3.list_multipart_uploads(Bucket=bench.bucket, Prefix=bench.root)
    return sorted(item["Key"] for item in found.get("Uploads", []))


def seconds_since_renewal(bench: Workbench, lease: str) -> float:
    """The age of a lease by S3's clock."""
    from email.utils import parsedate_to_datetime

    head = bench.s3.head_object(Bucket=bench.bucket, Key=lease)
    now = parsedate_to_datetime(head["ResponseMetadata"]["HTTPHeaders"]["date"])
    return (now - head["LastModified"]).total_seconds()


@pytest.mark.slow
def test_staging_of_a_killed_run_goes_with_a_later_run_and_that_of_a_live_one_stays(
    workbench: Workbench,
) -> None:
    workbench.configure(**LOCAL, STAGING_LEASE_SECONDS=str(LEASE_SECONDS))
    killed, paused, later = (start_publisher(workbench) for _ in range(3))
    for publisher in (killed, paused, later):
        workbench.wait_for(publisher.process, "published 2011 1\n")
    assert not workbench.keys("_staging/")

    killed.begin(2018, 1)
    wait_until(lambda: workbench.keys("_staging/"), "a lease")
    kill_group(killed.process)
    (dead,) = {key.rpartition("/")[0] for key in workbench.keys("_staging/") if "/lease" in key}
    dead_rows = begin_upload(workbench, f"{dead.removeprefix(workbench.root)}/rows/__magic/part")
    elsewhere = begin_upload(workbench, "others/table/part")
    wait_until(
        lambda: seconds_since_renewal(workbench, f"{dead}/lease") > LEASE_SECONDS,
        "the end of the dead run's lease",
    )
    with open_area(workbench, "living/0") as living:
        rows = put(workbench, living.prefix.removeprefix(workbench.root) + "rows/part.parquet")
        upload = begin_upload(workbench, living.prefix.removeprefix(workbench.root) + "rows/part")
        assert dead_rows in uploads(workbench)
        later.publish(2018, 2)
        assert set(workbench.keys("_staging/")) == {living.lease_key, rows}
        assert uploads(workbench) == sorted([elsewhere, upload])
    assert not workbench.keys("_staging/")
    assert uploads(workbench) == [elsewhere]
    assert workbench.published(2018).to_pylist() == fares(2)


def test_a_lease_is_kept_fresh_as_long_as_its_run_lives(workbench: Workbench) -> None:
    with open_area(workbench, "living/0") as area:
        first = workbench.s3.head_object(Bucket=workbench.bucket, Key=area.lease_key)
        wait_until(
            lambda: (
                workbench.s3.head_object(Bucket=workbench.bucket, Key=area.lease_key)[
                    "LastModified"
                ]
                > first["LastModified"]
            ),
            "a renewal",
            seconds=20,
        )
        remove_dead(workbench)
        area.assert_held()


def test_an_area_without_a_lease_is_removed(workbench: Workbench) -> None:
    put(workbench, "_staging/run/0-abc/rows/part.parquet")
    begin_upload(workbench, "_staging/run/1-def/rows/__magic/part")
    kept = put(workbench, f"{FARES}/year=2018/data.parquet")
    remove_dead(workbench)
    assert workbench.keys() == [kept]
    assert not uploads(workbench)


def test_an_area_is_removed_at_once_when_its_run_has_ended_in_dagster(
    workbench: Workbench,
) -> None:
    with workbench.instance() as instance:
        ids = [instance.create_run_for_job(nothing).run_id for _ in range(2)]
        killed, living = (open_area(workbench, f"{run}/0") for run in ids)
        with killed as area, living as other:
            begin_upload(workbench, f"{area.prefix.removeprefix(workbench.root)}rows/__magic/part")
            run = instance.get_run_by_id(ids[0])
            assert run is not None
            instance.report_run_failed(run)
            remove_dead(workbench, lifetime=300)
            assert workbench.keys("_staging/") == [other.lease_key]
            assert not uploads(workbench)
            with pytest.raises(dg.Failure):
                area.assert_held()


def test_two_runs_may_remove_the_same_dead_area_at_once(
    workbench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin_upload(workbench, "_staging/run/0-abc/rows/__magic/part")
    put(workbench, "_staging/run/0-abc/rows/part.parquet")
    place = (workbench.s3, workbench.bucket, workbench.root)
    seen = [*staging._uploads(*place)], [*staging._objects(*place)]
    remove_dead(workbench)
    # What the other run had listed before.
    monkeypatch.setattr(staging, "_uploads", lambda *_: iter(seen[0]))
    monkeypatch.setattr(staging, "_objects", lambda *_: iter(seen[1]))
    remove_dead(workbench)
    assert not workbench.keys()


@pytest.mark.slow
def test_a_run_whose_lease_was_removed_publishes_nothing(workbench: Workbench) -> None:
    workbench.configure(**LOCAL, STAGING_LEASE_SECONDS=str(LEASE_SECONDS))
    publisher = start_publisher(workbench)
    workbench.wait_for(publisher.process, "published 2011 1\n")
    publisher.publish(2018, 1)
    before = workbench.content(workbench.key(2018))

    # The machine sleeps while the run is staging, and another run finds its lease too old.
    publisher.begin(2018, 2)
    wait_until(lambda: workbench.keys("_staging/"), "a lease")
    publisher.process.send_signal(signal.SIGSTOP)
    (lease,) = (key for key in workbench.keys("_staging/") if key.endswith("/lease"))
    wait_until(
        lambda: seconds_since_renewal(workbench, lease) > LEASE_SECONDS, "the end of the lease"
    )
    remove_dead(workbench)
    publisher.process.send_signal(signal.SIGCONT)

    workbench.wait_for(publisher.process, "failed 2018 2\n")
    said = workbench.output_of(publisher.process)
    assert "This run was silent for so long that its staged data was removed." in said
    assert workbench.content(workbench.key(2018)) == before
    assert len(workbench.keys(f"{HISTORY}{FARES}/year=2018/")) == 1


def test_a_lost_lease_is_not_renewed_and_forbids_to_publish(workbench: Workbench) -> None:
    with open_area(workbench, "lost/0") as area:
        area.assert_held()
        remove_dead(workbench, lifetime=-1)
        area.renew()
        assert not workbench.keys("_staging/")
        with pytest.raises(dg.Failure) as failure:
            area.assert_held()
    assert failure.value.description == (
        "This run was silent for so long that its staged data was removed. "
        "Materialize the partitions again."
    )


def published_dataset(bench: Workbench) -> PublishedDataset:
    """The fares of the test's prefix."""
    return PublishedDataset(bench.s3, bench.bucket, bench.root, FARES, FARES)


def publish(bench: Workbench, content: bytes, keep: int = 5) -> dict[str, str]:
    """Publish an object for 2018 as a run does; returns what is noted with it."""
    staged = put(bench, "_staging/run/0-abc/rows/year=2018/part.parquet", content)
    note = {
        "published-at": publication_time(),
        "run-id": next(RUN_IDS),
        "code-version": "1",
        "source-version": "2026-01-01T00:00:00.000+00:00 3 rows",
    }
    published_dataset(bench).publish("2018", staged, note, keep)
    published_dataset(bench).update_history("2018", staged, note, keep)
    return note


def history(bench: Workbench) -> list[bytes]:
    """The contents of the history of 2018, oldest first."""
    return [bench.content(key) for key in sorted(bench.keys(f"{HISTORY}{FARES}/year=2018/"))]


def test_the_history_keeps_the_last_published_versions_byte_for_byte(workbench: Workbench) -> None:
    contents = [f"version {number}".encode() * number for number in range(1, 8)]
    notes = []
    for number, content in enumerate(contents, start=1):
        notes.append(publish(workbench, content, keep=3))
        assert workbench.content(workbench.key(2018)) == content
        assert history(workbench) == contents[max(0, number - 3) : number]
    for key, note in zip(sorted(workbench.keys(HISTORY)), notes[-3:], strict=True):
        assert key.endswith(f"/{note['published-at']}-{note['run-id']}.parquet")
        head = workbench.s3.head_object(Bucket=workbench.bucket, Key=key)
        assert head["Metadata"] == note
    head = workbench.s3.head_object(Bucket=workbench.bucket, Key=workbench.key(2018))
    assert head["Metadata"] == notes[-1]


def test_a_history_of_none_keeps_only_the_published_object(workbench: Workbench) -> None:
    publish(workbench, b"one")
    publish(workbench, b"two", keep=0)
    assert history(workbench) == []
    assert workbench.content(workbench.key(2018)) == b"two"


@pytest.mark.parametrize(
    "look", [PublishedDataset.publish, PublishedDataset.readable_key], ids=["publish", "read"]
)
def test_a_version_whose_run_was_killed_before_it_was_archived_is_archived_by_the_next(
    workbench: Workbench, look: Callable[..., Any]
) -> None:
    publish(workbench, b"one")
    publish(workbench, b"two")
    newest = max(workbench.keys(HISTORY))
    workbench.s3.delete_object(Bucket=workbench.bucket, Key=newest)
    assert history(workbench) == [b"one"]
    if look is PublishedDataset.publish:
        publish(workbench, b"three")
        assert history(workbench) == [b"one", b"two", b"three"]
    else:
        assert published_dataset(workbench).readable_key("2018", keep=5) == newest
        assert history(workbench) == [b"one", b"two"]
        publish(workbench, b"three")
        assert workbench.content(newest) == b"two", "what is being read is not replaced"


def test_a_version_that_is_replaced_while_it_is_archived_is_never_mistaken_for_another(
    workbench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(workbench, b"one")
    (archived,) = workbench.keys(HISTORY)
    workbench.s3.delete_object(Bucket=workbench.bucket, Key=archived)
    has = PublishedDataset._has

    def has_not_and_is_replaced(dataset: PublishedDataset, key: str) -> bool:
        monkeypatch.setattr(PublishedDataset, "_has", has)
        workbench.s3.put_object(
            Bucket=workbench.bucket,
            Key=workbench.key(2018),
            Body=b"two",
            Metadata={"published-at": "3", "run-id": "other"},
        )
        return has(dataset, key)

    monkeypatch.setattr(PublishedDataset, "_has", has_not_and_is_replaced)
    key = published_dataset(workbench).readable_key("2018", keep=5)
    assert workbench.content(key) == b"two"
    assert key.endswith("/3-other.parquet")
    assert workbench.keys(HISTORY) == [key]
