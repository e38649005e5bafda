"""Adapters of Ray: its Jobs API and its view of nodes, translated into core types."""
