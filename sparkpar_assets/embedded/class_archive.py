"""Java's class-data archive: Spark's JVMs start from classes that an earlier run has loaded.

A cold driver and its executors spend most of a small run loading and verifying some 20,000 classes.
Java can write them to a file when it ends, and map that file when it starts (JDK 17 documentation,
"Class Data Sharing", dynamic archives). Driver and executors have the same class path, and so one
file serves both; the JVM in which Spark's scripts compose the driver's command line has one of its
own. A JVM to which a file does not fit does without.
"""

import fcntl
import hashlib
import importlib.metadata
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sparkpar_assets.embedded.jvm import spark_home
from sparkpar_assets.project import PROJECT_ROOT

LAUNCHER_OPTIONS = "-XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xlog:disable"
CACHE = PROJECT_ROOT / ".sparkpar" / "cache" / "classes"


@dataclass(frozen=True)
class ClassArchive:
    """The archive that fits a Java and the jars that are there now.

    Attributes:
        java_home: The Java.
        folder: Where the archive is, or will be.
    """

    java_home: str
    folder: Path

    @property
    def is_recorded(self) -> bool:
        """Whether it is there, and the launcher's too."""
        return self._classes.exists() and self._launcher.exists()

    @property
    def options(self) -> str:
        """The options of a JVM that uses it; none while there is none."""
        return f'"-XX:SharedArchiveFile={self._base}:{self._classes}"' if self.is_recorded else ""

    @property
    def launcher_options(self) -> str:
        """Those of the JVM that composes the command line; Spark's scripts split them at blanks.

        Whatever that JVM printed besides would be taken for the command.
        """
        files = f"{self._base}:{self._launcher}"
        if not self.is_recorded or re.search(r"\s", files):
            return LAUNCHER_OPTIONS
        return f"{LAUNCHER_OPTIONS} -XX:SharedArchiveFile={files}"

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Wait until no other process is within such a block."""
        CACHE.mkdir(parents=True, exist_ok=True)
        with CACHE.with_suffix(".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    @contextmanager
    def recording(self) -> Iterator[str]:
        """Give the options of a driver that writes the archive when it ends, within the block.

        A driver that is killed writes none; the next one may. Archives of other jars are removed.
        """
        shutil.rmtree(self.folder.parent, ignore_errors=True)
        self.folder.mkdir(parents=True)
        # The archive builds on one of Java's own classes, which not every Java brings.
        self._java("-Xshare:dump", f"-XX:SharedArchiveFile={self._base}")
        with _whole(self._launcher) as new:
            self._java(
                "-Xmx128m",  # as Spark's scripts have it
                *LAUNCHER_OPTIONS.split(),
                f"-XX:SharedArchiveFile={self._base}",
                f"-XX:ArchiveClassesAtExit={new}",
                *("-cp", f"{spark_home()}/jars/*", "org.apache.spark.launcher.Main"),
                *("org.apache.spark.deploy.SparkSubmit", "pyspark-shell"),
            )
        with _whole(self._classes) as new:
            yield f'"-XX:SharedArchiveFile={self._base}" "-XX:ArchiveClassesAtExit={new}"'

    def _java(self, *arguments: str) -> None:
        subprocess.run(
            [Path(self.java_home) / "bin" / "java", *arguments],
            env={"SPARK_HOME": str(spark_home())},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )

    @property
    def _base(self) -> Path:
        return self.folder / "java.jsa"

    @property
    def _classes(self) -> Path:
        return self.folder / "spark.jsa"

    @property
    def _launcher(self) -> Path:
        return self.folder / "launcher.jsa"


@contextmanager
def _whole(file: Path) -> Iterator[Path]:
    """Give the name that a file is written under; a Java crashes on an archive that was cut off."""
    new = file.with_suffix(".new")
    yield new
    if new.exists():
        new.replace(file)


def class_archive(java_home: str, jars: Path) -> ClassArchive:
    """The archive for a Java and the jars of a folder, and pyspark's; it need not be there yet.

    Args:
        java_home: The home folder of the Java.
        jars: The folder of jars on Spark's class path.
    """
    parts = [java_home, importlib.metadata.version("pyspark"), str(jars)]
    for jar in sorted(jars.glob("*.jar")):
        status = jar.stat()
        parts.append(f"{jar.name} {status.st_size} {status.st_mtime_ns}")
    return ClassArchive(
        java_home, CACHE / hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
    )
