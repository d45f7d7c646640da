"""Fetches the jars that ``jars/jars.toml`` pins: exactly these, verified, whole or not at all."""

import argparse
import fcntl
import hashlib
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sparkpar_assets.embedded.errors import EmbeddedError
from sparkpar_assets.project import PROJECT_ROOT

if TYPE_CHECKING:
    from rich.progress import Progress

JARS = PROJECT_ROOT / "jars"
PINS = "jars.toml"
DOWNLOAD_PREFIX = ".download-"
PARALLEL_DOWNLOADS = 4
TIMEOUT_SECONDS = 60


@dataclass(frozen=True)
class Jar:
    """One entry of ``jars.toml``."""

    coordinates: str
    sha256: str
    group: str | None = None
    server: bool = False

    @property
    def parts(self) -> tuple[str, str, str, str]:
        """Group, artifact, version and classifier; the last one may be empty."""
        group, artifact, version, *classifier = self.coordinates.split(":")
        return group, artifact, version, "".join(classifier)

    @property
    def file_name(self) -> str:
        """The artifact's usual file name, which tells versions apart."""
        return "-".join(filter(None, self.parts[1:])) + ".jar"

    def path(self, folder: Path) -> Path:
        """Where the jar belongs: a server's outside of Spark's class path."""
        return (folder / "servers" if self.server else folder) / self.file_name


def read_pins(folder: Path) -> list[Jar]:
    """The jars that the folder's ``jars.toml`` pins.

    Raises:
        EmbeddedError: The file is missing, is not TOML, or an entry lacks what it needs.
    """
    file = folder / PINS
    try:
        entries = tomllib.loads(file.read_text())["jar"]
        jars = [Jar(**entry) for entry in entries]
        for jar in jars:
            if jar.coordinates.count(":") not in (2, 3) or len(jar.sha256) != 64:
                raise ValueError(jar.coordinates)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise EmbeddedError(
            f"{file} cannot be used: {error}.",
            "Each [[jar]] needs coordinates, group:artifact:version[:classifier], and sha256.",
        ) from error
    return jars


def server_jar(artifact: str) -> Path:
    """The jar of a server of the embedded stack.

    Raises:
        EmbeddedError: It was not fetched.
    """
    jar = next(jar for jar in read_pins(JARS) if jar.parts[1] == artifact)
    path = jar.path(JARS)
    if not path.exists():
        raise EmbeddedError(f"{path} is missing.", "Fetch it by ./download_jars.sh.")
    return path


def fetch(folder: Path = JARS, groups: frozenset[str] = frozenset()) -> list[Path]:
    """Fetch what is pinned and not there; verify what is.

    Args:
        folder: Holds ``jars.toml``, and gets the jars.
        groups: The optional groups to fetch as well.

    Returns:
        The files that were fetched now.

    Raises:
        EmbeddedError: A jar is not the one that was pinned, or cannot be had.
    """
    pins = read_pins(folder)
    known = {jar.group for jar in pins if jar.group}
    if unknown := groups - known:
        raise EmbeddedError(
            f"No jar of {PINS} is of group {', '.join(sorted(unknown))}.",
            f"The groups are: {', '.join(sorted(known)) or 'none'}.",
        )
    with _alone(folder):
        wanted = [jar for jar in pins if jar.group is None or jar.group in groups]
        missing = [jar for jar in wanted if not _is_there(jar, folder)]
        if missing:
            _download(missing, folder)
        return [jar.path(folder) for jar in missing]


def _is_there(jar: Jar, folder: Path) -> bool:
    path = jar.path(folder)
    if not path.exists():
        return False
    _verify(jar, path, f"Remove {path} and fetch again, or correct its sha256 in {PINS}.")
    return True


def _verify(jar: Jar, path: Path, remedy: str) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != jar.sha256.lower():
        raise EmbeddedError(
            f"{jar.file_name} has SHA-256 {found}, but {PINS} pins {jar.sha256}.", remedy
        )


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One fetch at a time; what a killed one left half is removed."""
    with (folder / PINS).open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        for left in folder.glob(f"{DOWNLOAD_PREFIX}*"):
            shutil.rmtree(left, ignore_errors=True)
        yield


def _download(jars: list[Jar], folder: Path) -> None:
    """Download jars side by side, with a line for each."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn()
    with (
        Progress(*columns, console=console, transient=True) as progress,
        tempfile.TemporaryDirectory(prefix=DOWNLOAD_PREFIX, dir=folder) as temporary,
        ThreadPoolExecutor(PARALLEL_DOWNLOADS) as pool,
    ):
        futures = [
            pool.submit(_download_one, jar, folder, Path(temporary), progress) for jar in jars
        ]
        try:
            for future in futures:
                future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _download_one(jar: Jar, folder: Path, temporary: Path, progress: "Progress") -> None:
    """Download into a temporary folder beside the jars, verify, then rename into place."""
    import requests
    from jgo.maven import MavenContext, PythonResolver

    group, artifact, version, classifier = jar.parts

    @contextmanager
    def show(name: str, size: int) -> Iterator[Callable[[int], None]]:
        task = progress.add_task(name, total=size)
        yield lambda count: progress.advance(task, count)
        progress.remove_task(task)

    context = MavenContext(
        resolver=PythonResolver(progress_callback=show),
        repo_cache=temporary,
        timeout=TIMEOUT_SECONDS,
    )
    component = context.project(group, artifact).at_version(version)
    try:
        file = component.artifact(classifier=classifier).resolve()
    except (RuntimeError, requests.RequestException) as error:
        what = "cannot be reached" if isinstance(error, requests.RequestException) else "has none"
        raise EmbeddedError(
            f"{jar.coordinates} cannot be fetched: the Maven repository {what}.",
            f"Check the network and the coordinates in {PINS}, and run it again.",
        ) from error
    _verify(jar, file, f"It was not kept. Correct the sha256 in {PINS} if you trust the jar.")
    path = jar.path(folder)
    path.parent.mkdir(exist_ok=True)
    file.replace(path)
    progress.console.print(f"    {jar.file_name} ({path.stat().st_size / 1e6:.1f} MB)")


def main() -> None:
    """Fetch the jars: ``--with GROUP`` for an optional group, several times for several."""
    parser = argparse.ArgumentParser(prog="download_jars.sh", description=__doc__)
    parser.add_argument("--with", action="append", default=[], metavar="GROUP", dest="groups")
    arguments = parser.parse_args()
    try:
        fetched = fetch(groups=frozenset(arguments.groups))
    except EmbeddedError as error:
        sys.exit(f"Error: {error}")
    except KeyboardInterrupt:
        print("Stopped; no half file is left.", file=sys.stderr)
        sys.exit(130)
    print(f"==> Jars: {len(fetched)} fetched, all verified", file=sys.stderr)


if __name__ == "__main__":
    main()
