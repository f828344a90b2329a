"""The Hugging Face hub: its client without telemetry, and files that are resumed and verified."""

from biomedcoop.hub.client import client, endpoint, one_line_errors

__all__ = ["client", "endpoint", "one_line_errors"]
