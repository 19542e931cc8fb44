"""Shards as the pods of an Indexed Job: rendering, the API, what is seen of a run, and why it does not move."""
