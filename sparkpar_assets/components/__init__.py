"""What the files under ``analyses/`` may consist of."""

from sparkpar_assets.components.aggregation import BigQueryAggregation

__all__ = ["BigQueryAggregation"]
