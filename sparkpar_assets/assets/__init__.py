"""The assets."""

import warnings

import dagster as dg

# Backfill policies and observable sources are beta: they may change with Dagster's minor releases.
# The lock file pins the release, so that a warning, thrice in every command, tells nobody a thing.
warnings.filterwarnings("ignore", category=dg.BetaWarning)
