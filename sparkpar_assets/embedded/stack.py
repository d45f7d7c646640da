"""Starts, watches and stops the servers of the embedded stack."""

import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

import psutil

from sparkpar_assets.embedded import ports, processes, spark_master
from sparkpar_assets.embedded.bigquery_emulator import bigquery_emulator
from sparkpar_assets.embedded.credentials import (
    create_certificates,
    write_service_account,
    write_spark_secret,
)
from sparkpar_assets.embedded.dagster_home import create_dagster_instance, fail_dead_runs
from sparkpar_assets.embedded.environment import write_environment
from sparkpar_assets.embedded.errors import EmbeddedError
from sparkpar_assets.embedded.processes import PidFile
from sparkpar_assets.embedded.s3_proxy import s3_proxy
from sparkpar_assets.embedded.server import Server, StackConfig
from sparkpar_assets.embedded.spark_history import spark_history
from sparkpar_assets.embedded.spark_worker import spark_worker
from sparkpar_assets.embedded.state import State
from sparkpar_assets.embedded.token_endpoint import token_endpoint, token_uri
from sparkpar_assets.resources.java import JavaNotUsableError, find_java_home

HEALTHY_WITHIN_SECONDS = 120
POLL_SECONDS = 0.1


class Health(StrEnum):
    """What state a server is in."""

    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    DEAD = "dead"
    STOPPED = "stopped"


@dataclass(frozen=True)
class Status:
    """One line of ``embedded status``."""

    server: Server
    health: Health
    pid: int | None


class Stack:
    """The servers of one state folder."""

    def __init__(self, config: StackConfig) -> None:
        self.config = config
        self.state = config.state
        self.servers = [
            bigquery_emulator(config),
            spark_master.spark_master(config),
            spark_worker(config, 1),
            spark_worker(config, 2),
            s3_proxy(config),
            token_endpoint(config),
            spark_history(config),
        ]

    @classmethod
    def of_state(cls, state: State, choose_from: Mapping[str, str] | None = None) -> "Stack":
        """The stack of a state folder.

        Args:
            state: The folder.
            choose_from: The environment whose ``SPARKPAR_PORTS`` chooses the ports. Without one
                they are those that the stack was last started on.

        Raises:
            EmbeddedError: There is no Java 17, or ``SPARKPAR_PORTS`` cannot be read.
        """
        chosen = ports.load_ports(state)
        if choose_from is not None:
            chosen = ports.choose_ports(state, choose_from)
        try:
            java_home = find_java_home(os.environ.get("JAVA_HOME"))
        except JavaNotUsableError as error:
            raise EmbeddedError(str(error), "") from error
        return cls(StackConfig(state, ports.DEFAULT_PORTS | chosen, java_home))

    @classmethod
    def of_environment(cls) -> "Stack":
        """The stack that ``SPARKPAR_STATE`` and ``SPARKPAR_PORTS`` choose, to be started."""
        return cls.of_state(State.of_environment(), os.environ)

    def up(self, say: Callable[[str], None] = print) -> None:
        """Start what does not run, and wait until all serve.

        Args:
            say: Takes a line of progress.

        Raises:
            EmbeddedError: A port is taken, or a server does not come up.
        """
        with self.state.lock():
            self.state.create()
            to_start = self._to_start()
            if to_start:
                self._stop_strays(to_start)
                ports.check_free({k: v for server in to_start for k, v in server.listens.items()})
                self._clean(to_start)
            ports.save_ports(self.state, self.config.ports)
            self._write_files()
            if to_start:
                say(f"==> Starting {', '.join(server.name for server in to_start)}")
            self._bring_up(to_start, say)
            create_dagster_instance(self.state)
            for run_id in fail_dead_runs(self.state):
                say(f"==> Run {run_id} was killed: Dagster shows it as failed now")

    def down(self, say: Callable[[str], None] = print) -> None:
        """Stop every process of the stack, also what killed servers left; keep the data."""
        from sparkpar_assets.resources.warm_driver import end_warm_driver  # imports Dagster

        with self.state.lock():
            end_warm_driver(self.state.warm_driver)
            pid_files = [self._pid_file(server.name) for server in self.servers]
            known = [process for file in pid_files if (process := file.process())]
            found = [process for _, process in processes.of_stack(self.state)]
            processes.stop({*known, *found})
            for file in pid_files:
                file.remove()
        say(f"==> Stopped {len(known)} servers; their data stays in {self.state.data}")

    def status(self) -> list[Status]:
        """The state of each server."""
        return [self._status(server) for server in self.servers]

    def warm_driver(self) -> str:
        """What there is to say of the driver that serves run after run."""
        from sparkpar_assets.resources.warm_driver import Folder  # imports Dagster

        folder = Folder(self.state.warm_driver)
        pid = folder.pid()
        return f"pid {pid}, its log is {folder.log}" if pid else "none"

    def is_healthy(self) -> bool:
        """Whether every server serves."""
        return all(status.health is Health.HEALTHY for status in self.status())

    def end_of_log(self, server: Server) -> str:
        """The last lines of a server's log."""
        return processes.end_of_log(processes.log_file(self.state, server.name))

    def _status(self, server: Server) -> Status:
        file = self._pid_file(server.name)
        process = file.process()
        if process is None:
            return Status(server, Health.DEAD if file.exists() else Health.STOPPED, None)
        health = Health.HEALTHY if server.is_healthy() else Health.UNHEALTHY
        return Status(server, health, process.pid)

    def _to_start(self) -> list[Server]:
        """The servers that do not run, or run on other ports than now wanted; stops the latter."""
        changed = [
            process
            for server in self.servers
            if (process := self._pid_file(server.name).process())
            and self._pid_file(server.name).ports() != server.ports
        ]
        processes.stop(changed)
        return [server for server in self.servers if not self._runs(server.name)]

    def _stop_strays(self, to_start: list[Server]) -> None:
        """Stop what an interrupted ``up`` started without a pid file, or a killed worker left."""
        names = {server.name for server in to_start}
        processes.stop([p for name, p in processes.of_stack(self.state) if name in names])

    def _clean(self, to_start: list[Server]) -> None:
        """Remove what an earlier life of the stack left, where nothing uses it any more."""
        if len(to_start) == len(self.servers):
            shutil.rmtree(self.state.temporary, ignore_errors=True)
            self.state.create()
        # Not under a living master: it could take note of no worker and no application any more.
        if not any(map(self._runs, (spark_master.NAME, "spark-worker-1", "spark-worker-2"))):
            spark_master.forget_workers(self.config)

    def _write_files(self) -> None:
        """Make the keys, certificates and the platform's environment, or bring them up to date."""
        create_certificates(self.state)
        write_service_account(self.state, token_uri(self.config))
        write_spark_secret(self.state)
        write_environment(self.config)

    def _start(self, server: Server) -> None:
        server.before_start()
        process = processes.start(
            server.name, server.command, server.environment, self.state, server.folder
        )
        self._pid_file(server.name).write(process, server.ports)

    def _bring_up(self, to_start: list[Server], say: Callable[[str], None]) -> None:
        """Start servers, each as soon as it can be, and wait until all are healthy."""
        start = time.monotonic()
        unstarted, waiting = list(to_start), list(self.servers)
        while waiting:
            for server in [server for server in unstarted if server.can_start()]:
                self._start(server)
                unstarted.remove(server)
            for server in [server for server in waiting if server not in unstarted]:
                if not self._runs(server.name):
                    raise self._failure(server, "ended while it started")
                if server.is_healthy():
                    waiting.remove(server)
                    say(f"    {server.name:<16} {server.address}")
            if waiting and time.monotonic() - start > HEALTHY_WITHIN_SECONDS:
                raise self._failure(
                    waiting[0], f"did not serve within {HEALTHY_WITHIN_SECONDS} seconds"
                )
            time.sleep(POLL_SECONDS if waiting else 0)

    def _failure(self, server: Server, what: str) -> EmbeddedError:
        log = processes.log_file(self.state, server.name)
        return EmbeddedError(
            f"{server.name} {what}; the end of its log says:\n{self.end_of_log(server)}\n",
            f"Read {log}, then run ./run.sh embedded up again.",
        )

    def _runs(self, name: str) -> psutil.Process | None:
        return self._pid_file(name).process()

    def _pid_file(self, name: str) -> PidFile:
        return PidFile(self.state.run / f"{name}.pid")
