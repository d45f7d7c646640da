"""Where the embedded stack keeps everything that it writes."""

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sparkpar_assets.project import PROJECT_ROOT

STATE_VARIABLE = "SPARKPAR_STATE"


@dataclass(frozen=True)
class State:
    """The folders and files of one embedded stack."""

    root: Path

    @classmethod
    def of_environment(cls, environ: Mapping[str, str] | None = None) -> "State":
        """The state folder that ``SPARKPAR_STATE`` names, else the project's ``.sparkpar``."""
        environ = os.environ if environ is None else environ
        return cls(Path(environ.get(STATE_VARIABLE) or PROJECT_ROOT / ".sparkpar").absolute())

    @property
    def stack(self) -> Path:
        """The folder of all that the servers write."""
        return self.root / "embedded"

    @property
    def logs(self) -> Path:
        """The folder of the servers' logs."""
        return self.stack / "logs"

    @property
    def run(self) -> Path:
        """The folder of the pid files."""
        return self.stack / "run"

    @property
    def secrets(self) -> Path:
        """The folder of keys, which only its owner can enter."""
        return self.stack / "secrets"

    @property
    def data(self) -> Path:
        """The folder of all that outlives ``down``."""
        return self.stack / "data"

    @property
    def s3(self) -> Path:
        """The folder that is served as S3: a folder in it is a bucket."""
        return self.data / "s3"

    @property
    def event_logs(self) -> Path:
        """The folder that runs write for the History Server."""
        return self.data / "spark-events"

    @property
    def temporary(self) -> Path:
        """The folder of what may be lost at any time."""
        return self.stack / "tmp"

    @property
    def home(self) -> Path:
        """The servers' home folder: libraries that write to ``~`` stay out of the user's."""
        return self.stack / "home"

    @property
    def dagster_home(self) -> Path:
        """Dagster's instance folder."""
        return self.root / "dagster_home"

    @property
    def warm_driver(self) -> Path:
        """The folder of the driver that serves run after run."""
        return self.stack / "warm-driver"

    @property
    def ports_file(self) -> Path:
        """The ports that the stack was last started on."""
        return self.stack / "ports.json"

    @property
    def environment_file(self) -> Path:
        """The file that ``SPARKPAR_ENV_FILE`` names."""
        return self.stack / "platform.env"

    def create(self) -> None:
        """Make the folders; the one of secrets is the user's own."""
        folders = (self.logs, self.run, self.s3, self.event_logs, self.temporary, self.home)
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
        self.secrets.mkdir(mode=0o700, exist_ok=True)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the stack alone: two commands at once would start every server twice."""
        self.stack.mkdir(parents=True, exist_ok=True)
        with (self.stack / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print("==> Waiting for another command on this stack to finish", flush=True)
                fcntl.flock(file, fcntl.LOCK_EX)
            yield
