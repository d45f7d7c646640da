"""Files that hold a secret: written for one user, and read only where nobody else can."""

import os
import shlex
from pathlib import Path

OTHERS = 0o007
GROUP_AND_OTHERS = 0o077


def read_private(path: Path, what: str, remedy: str) -> str:
    """The text of a file that holds a secret.

    Args:
        path: The file.
        what: What it holds, to begin a sentence with.
        remedy: What to do where there is no such file, or none that can be read.

    Raises:
        dg.Failure: The file cannot be read, can be read by others, or is empty.
    """
    try:
        check_private(path)
        content = path.read_text()
    except FileNotFoundError:
        problem = f"{path} does not exist"
    except (OSError, UnicodeDecodeError) as error:
        problem = f"{path} cannot be read ({type(error).__name__})"
    else:
        if content.strip():
            return content
        problem = f"{path} is empty"
    import dagster as dg  # heavy: not for the embedded servers, which write their keys only

    raise dg.Failure(f"{what}: {problem}. {remedy}", allow_retries=False)


def check_private(path: Path) -> None:
    """Refuse a file of a secret that others than its owner can read or change.

    A file of another owner was put here by who runs the machine, as Kubernetes puts secrets there
    for a group: such a one must be closed to all others, and not to the group.

    Raises:
        dg.Failure: They can; with the command that ends it.
        OSError: There is no such file, or its folder is closed to us.
    """
    found = path.stat()
    is_ours = found.st_uid == os.geteuid()
    if found.st_mode & (GROUP_AND_OTHERS if is_ours else OTHERS):
        import dagster as dg

        mode = "600" if is_ours else "o-rwx"
        raise dg.Failure(
            f"{path} holds a secret, and other users of this machine can read it "
            f"(its mode is {found.st_mode & 0o777:o}). Run chmod {mode} {shlex.quote(str(path))}, "
            "and replace the secret if they may have.",
            allow_retries=False,
        )


def write_private(path: Path, content: str | bytes) -> None:
    """Replace a file whole, readable by its owner alone from the first byte on."""
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
    new.replace(path)
