"""Loading every analysis, and the tables that they read."""

import gc
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from itertools import accumulate
from pathlib import Path
from typing import Any

import dagster as dg
import yaml
from dagster.components.core.component_tree import ComponentTreeException
from dagster.components.core.decl import ComponentDecl
from dagster.components.core.defs_module import ComponentLoc
from pydantic import ValidationError

from sparkpar_assets.assets.tables import bigquery_tables
from sparkpar_assets.components.errors import (
    FILE_NAMES,
    AnalysisError,
    check_files,
    explained,
    relative,
)
from sparkpar_assets.io_managers.source import TableSource, table_key
from sparkpar_assets.metadata import PATH_KEY
from sparkpar_assets.project import PROJECT_ROOT

ANALYSES = "sparkpar_assets.analyses"
CODE_REFERENCES = "dagster/code_references"


class _Tree(dg.ComponentTree):
    """Dagster's tree of components, whose declarations are gathered once.

    Dagster 1.13.27 gathers them anew for each component: a thousand files take it half a minute.
    """

    def _component_decl_tree(self) -> dict[ComponentLoc, ComponentDecl[Any]]:
        found = self.__dict__.get("_decls")
        if found is None:
            found = self.__dict__["_decls"] = super()._component_decl_tree()
        return found


def load_analyses(
    own: Iterable[dg.AssetsDefinition], project: Path = PROJECT_ROOT
) -> dg.Definitions:
    """The analyses' assets, and those of the tables they read.

    ``dg.load_from_defs_folder`` would do the first, but it imports every library that has
    components, Google's and Amazon's clients among them.

    Args:
        own: The platform's own assets.
        project: The folder whose ``pyproject.toml``, if it has one, names the analyses' module.

    Raises:
        AnalysisError: An analysis cannot be loaded, or two are in each other's way.
    """
    own = list(own)
    if (project / "pyproject.toml").is_file():
        tree = _Tree.for_project(project)
    else:  # the image has none: Dagster's servers would take it for their configuration
        tree = _Tree(defs_module=import_module(ANALYSES), project_root=project)
    check_files(tree.defs_module_path)
    with _without_garbage_collection(), _libyaml(), warnings.catch_warnings():
        # Dagster's own loader uses what Dagster calls preview and beta.
        warnings.simplefilter("ignore", dg.PreviewWarning)
        warnings.simplefilter("ignore", dg.BetaWarning)
        try:
            defs = tree.build_defs(tree.defs_module_path)
        except (ComponentTreeException, ValidationError) as error:
            found = list(_problems(tree)) if isinstance(error, ComponentTreeException) else []
            raise AnalysisError("\n".join(found) or str(explained(error))) from None
    analyses = [asset for asset in defs.assets or () if isinstance(asset, dg.AssetsDefinition)]
    _check_names_and_paths(own, analyses)
    _check_tables(analyses)
    return dg.Definitions.merge(defs, dg.Definitions(assets=tables_of(analyses, own)))


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """All that a thousand files are made into stays: to look for garbage in it takes a sixth."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextmanager
def _libyaml() -> Iterator[None]:
    """Let Dagster parse by libyaml, where PyYAML has it: a fifth of the time of a thousand files.

    Dagster 1.13.27 derives its loader, for each file anew, from ``yaml.SafeLoader``, which is
    written in Python; ``yaml.CSafeLoader`` gives the same values and positions.
    """
    in_python = yaml.SafeLoader
    yaml.SafeLoader = getattr(yaml, "CSafeLoader", in_python)  # type: ignore[misc]
    try:
        yield
    finally:
        yaml.SafeLoader = in_python  # type: ignore[misc]


def _problems(tree: _Tree) -> Iterator[str]:
    """What is wrong with each of the analyses: Dagster stops at the first."""
    files = {file for name in FILE_NAMES for file in tree.defs_module_path.rglob(name)}
    for folder in sorted({file.parent for file in files}):
        try:
            tree.build_defs_at_path(folder)
        except ComponentTreeException as error:
            yield str(explained(error))


def _check_tables(analyses: Iterable[dg.AssetsDefinition]) -> None:
    """One asset cannot stand for the table t_year and for the tables t_{year}."""
    tables: dict[dg.AssetKey, str] = {}
    for asset in analyses:
        source = _source(asset)
        if source is not None and tables.setdefault(table_key(source.table), source.table) != (
            source.table
        ):
            raise AnalysisError(
                f"{_where(asset)}: the tables {source.table} and "
                f"{tables[table_key(source.table)]} would be one asset. Rename one of them."
            )


def _check_names_and_paths(
    own: Iterable[dg.AssetsDefinition], analyses: Iterable[dg.AssetsDefinition]
) -> None:
    names: dict[dg.AssetKey, str] = {}
    # Readers of one folder would find the other's rows in it, were it the same or within.
    taken: dict[str, str] = {}
    above: dict[str, str] = {}
    for asset in [*own, *analyses]:
        folder, where = _folder(asset), _where(asset)
        if asset.key in names:
            raise AnalysisError(
                f"{where}: there is an asset {asset.key.to_user_string()} already, in "
                f"{names[asset.key]}. Call one of them otherwise."
            )
        lineage = list(accumulate(folder.split("/"), "{}/{}".format))
        other = next((one for one in lineage if one in taken), above.get(folder))
        if other is not None:
            raise AnalysisError(
                f"{where}: the path {folder} lies in the way of {other}, that of {taken[other]}. "
                "Write another path."
            )
        names[asset.key] = taken[folder] = where
        above |= dict.fromkeys(lineage[:-1], folder)


def _folder(asset: dg.AssetsDefinition) -> str:
    metadata = asset.metadata_by_key.get(asset.key, {})
    return str(metadata.get(PATH_KEY, "/".join(asset.key.path)))


def _where(asset: dg.AssetsDefinition) -> str:
    """File and line of an analysis, relative to the project; of other assets, the name."""
    found = asset.metadata_by_key.get(asset.key, {}).get(CODE_REFERENCES)
    places = [
        f"{relative(reference.file_path)}:{reference.line_number}"
        for reference in getattr(found, "code_references", [])
    ]
    return places[0] if places else f"the asset {asset.key.to_user_string()}"


def tables_of(
    analyses: Iterable[dg.AssetsDefinition], own: Iterable[dg.AssetsDefinition] = ()
) -> list[dg.AssetsDefinition]:
    """One asset for each table, however many read it, with the years that any of them asks for.

    Args:
        analyses: The readers.
        own: The platform's own assets, among which a table may be already.
    """
    known = {asset.key for asset in own}
    readers: dict[str, list[dg.AssetsDefinition]] = {}
    for asset in analyses:
        source = _source(asset)
        if source is not None and table_key(source.table) not in known:
            readers.setdefault(source.table, []).append(asset)
    return [
        bigquery_tables(
            table,
            years=_all_years([asset.partitions_def for asset in assets]),
            group_name="bigquery",
            description="A table of BigQuery, or one a year.",
        )
        for table, assets in readers.items()
    ]


def _source(asset: dg.AssetsDefinition) -> TableSource | None:
    op = asset.op
    inputs = op.input_defs if isinstance(op, dg.OpDefinition) else []
    return next(filter(None, (TableSource.of_input(one.metadata) for one in inputs)), None)


def _all_years(
    partitions: Iterable[dg.PartitionsDefinition[str] | None],
) -> dg.TimeWindowPartitionsDefinition | None:
    """From the first year of any to the last; None where a table is never read by the year."""
    years = [one for one in partitions if isinstance(one, dg.TimeWindowPartitionsDefinition)]
    if not years:
        return None
    ends = [one.end for one in years]
    return dg.TimeWindowPartitionsDefinition(
        start=min(one.start for one in years),
        end=None if None in ends else max(filter(None, ends)),
        fmt="%Y",
        cron_schedule="0 0 1 1 *",
    )
