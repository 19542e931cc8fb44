"""Who runs shards."""
