"""Your analyses: a folder each, with a ``defs.yaml`` that describes an aggregation.

``dg scaffold defs sparkpar_assets.components.BigQueryAggregation NAME`` makes one.
"""
