"""The tests. Some carry out a run in this process, and load gRPC before that: as a run does."""

from sparkpar_assets.resources.grpc_loading import load_grpc

load_grpc()
