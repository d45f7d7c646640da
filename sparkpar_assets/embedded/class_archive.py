"""Java's class-data archive: Spark's JVMs start from classes that an earlier run has loaded.

A cold driver and its executors spend most of a small run loading and verifying some 20,000 classes.
Java can write them to a file when it ends, and map that file when it starts (JDK 17 documentation,
"Class Data Sharing", dynamic archives). Driver and executors have the same class path, and so one
file serves both. A JVM to which a file does not fit says so and does without.
"""

import hashlib
import importlib.metadata
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sparkpar_assets.project import PROJECT_ROOT

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
        """Whether there is one."""
        return self._classes.exists()

    @property
    def options(self) -> str:
        """The options of a JVM that uses it; none while there is none."""
        return f'"-XX:SharedArchiveFile={self._base}:{self._classes}"' if self.is_recorded else ""

    @contextmanager
    def recording(self) -> Iterator[str]:
        """Give the options of a driver that writes the archive when it ends, within the block.

        A driver that is killed writes none; the next one may. Archives of other jars are removed.
        """
        shutil.rmtree(self.folder.parent, ignore_errors=True)
        self.folder.mkdir(parents=True)
        # The archive builds on one of Java's own classes, which not every Java brings.
        subprocess.run(
            [
                Path(self.java_home) / "bin" / "java",
                "-Xshare:dump",
                f"-XX:SharedArchiveFile={self._base}",
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        new = self._classes.with_suffix(".new")
        yield f'"-XX:SharedArchiveFile={self._base}" "-XX:ArchiveClassesAtExit={new}"'
        if new.exists():
            new.replace(self._classes)

    @property
    def _base(self) -> Path:
        return self.folder / "java.jsa"

    @property
    def _classes(self) -> Path:
        return self.folder / "spark.jsa"


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
