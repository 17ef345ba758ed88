"""Where rows come from: each kind of source is opened into pieces that any process can read."""

from tasks.data.sources.malformed import check_malformed_share
from tasks.data.sources.opening import open_source, read_shard
from tasks.data.sources.shard import OpenedSource, Shard

__all__ = ["OpenedSource", "Shard", "check_malformed_share", "open_source", "read_shard"]
