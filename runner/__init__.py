"""Sharded, verified backfills of market data."""

__version__ = "0.1.0"
