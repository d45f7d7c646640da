"""What is wrong with a file under ``analyses/``: its name, the line, a cause and a remedy."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dagster.components.core.component_tree import ComponentTreeException
from dagster.components.core.defs_module import ComponentFileModel
from pydantic import ValidationError

from sparkpar_assets.project import PROJECT_ROOT

if TYPE_CHECKING:
    import yaml
    from pydantic_core import ErrorDetails

OWN_TYPE = "sparkpar_assets.components.BigQueryAggregation"
FILE_NAMES = ("defs.yaml", "defs.yml")
PLACE = re.compile(r"(?P<attributes>attributes\.?)?(?P<key>\S*) at (?P<file>.+):(?P<line>\d+)")
"""How Dagster names the place of a wrong value."""


class AnalysisError(Exception):
    """Analyses that cannot be loaded: a line each, with file, line, cause and remedy."""


def check_files(folder: Path) -> None:
    """Check what Dagster's loader overlooks, or reports without the file's name.

    Args:
        folder: The folder of the analyses.

    Raises:
        AnalysisError: Files are not YAML, are empty, or have a key twice.
    """
    found = [
        f"{relative(file)}:{problem}"
        for name in FILE_NAMES
        for file in sorted(folder.rglob(name))
        for problem in _problems(file)
    ]
    if found:
        raise AnalysisError("\n".join(found))


def explained(error: ComponentTreeException | ValidationError) -> AnalysisError:
    """The error without the tree, which lists every file: the exception's cause says what is wrong.

    Args:
        error: What Dagster's loader raised.
    """
    cause: BaseException = error
    while isinstance(cause, ComponentTreeException) and cause.__cause__ is not None:
        cause = cause.__cause__
    if isinstance(cause, ValidationError):
        return AnalysisError("\n".join(map(_sentence, cause.errors(include_url=False))))
    return AnalysisError(f"{str(error).splitlines()[0]} {cause}")


def relative(path: str | Path) -> str:
    """A path as it is seen from the project's folder."""
    file = Path(path)
    return str(file.relative_to(PROJECT_ROOT) if file.is_relative_to(PROJECT_ROOT) else file)


def _problems(file: Path) -> Iterator[str]:
    """What is wrong with a file as YAML, each after its line."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        documents = list(yaml.compose_all(file.read_text(encoding="utf-8"), Loader=loader))
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        yield f"{line}: this is not YAML: {error.problem}. Correct it."
        return
    except (UnicodeDecodeError, yaml.YAMLError):
        yield "1: this is not YAML in UTF-8. Save it as such."
        return
    if not documents:
        yield "1: the file is empty. Write an analysis, or remove its folder."
    for document in documents:
        yield from _repeated_keys(document)
        if isinstance(document, yaml.MappingNode):
            yield from _wrong_type(document)
        else:
            line = document.start_mark.line + 1
            yield f"{line}: there are no keys here. Write type: and attributes:."


def _wrong_type(document: "yaml.MappingNode") -> Iterator[str]:
    import yaml
    from dagster_shared.error import DagsterUnresolvableSymbolError
    from dagster_shared.seven import load_module_object

    found = {key.value: one for key, one in document.value if isinstance(key, yaml.ScalarNode)}
    first_line = document.start_mark.line + 1
    if not isinstance(found.get("type"), yaml.ScalarNode):
        yield f"{first_line}: the key type is missing. Write type: {OWN_TYPE}."
        return
    kind = found["type"].value
    if kind == OWN_TYPE and not isinstance(found.get("attributes"), yaml.MappingNode):
        yield f"{first_line}: the key attributes is missing. Add it."
    module, _, name = kind.rpartition(".")
    if module:  # A component of the folder's own begins with a dot.
        try:
            load_module_object(module, name)
        except (DagsterUnresolvableSymbolError, ImportError):
            line = found["type"].start_mark.line + 1
            yield f"{line}: there is no component {kind}. Write {OWN_TYPE}, say."


def _repeated_keys(node: "yaml.Node") -> Iterator[str]:
    """YAML takes the last of two equal keys, without a word: a metric would be lost."""
    import yaml

    if isinstance(node, yaml.MappingNode):
        seen: set[Any] = set()
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                yield f"{line}: a key is no text. Put what begins with a brace in quotes."
            elif key.value in seen:
                yield f"{line}: the key {key.value} stands twice. Rename one."
            else:
                seen.add(key.value)
            yield from _repeated_keys(value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from _repeated_keys(value)


def _keys_beside(key: str, place: re.Match[str] | None) -> Iterable[str]:
    """The keys that there are where a wrong one was found."""
    if place and not place["attributes"]:
        return ComponentFileModel.model_fields
    from sparkpar_assets.components.attributes import AggregationAttributes, Years

    return (Years if key.startswith("years.") else AggregationAttributes).model_fields


def _sentence(error: "ErrorDetails") -> str:
    """One error of pydantic's, as ``file:line: key: cause and remedy``."""
    place = PLACE.search(" ".join(map(str, error["loc"])))
    where = f"{relative(place['file'])}:{place['line']}: " if place else ""
    key = place["key"] if place else ".".join(map(str, error["loc"]))
    match error["type"]:
        case "missing":
            return f"{where}the key {key} is missing. Add it."
        case "extra_forbidden":
            return (
                f"{where}there is no key {key}. The keys are {', '.join(_keys_beside(key, place))}."
            )
        case "value_error":
            return f"{where}{key}: {error['ctx']['error']}"
        case "string_pattern_mismatch":
            return (
                f"{where}{key}: '{error['input']}' is not of the form {error['ctx']['pattern']}. "
                "Correct it."
            )
    return f"{where}{key}: {error['msg']}. Correct it."
