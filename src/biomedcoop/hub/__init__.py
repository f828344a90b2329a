"""The Hugging Face hub: its client without telemetry, and files that are resumed and verified."""

from biomedcoop.hub.client import check_repository, client, endpoint, one_line_errors

__all__ = ["check_repository", "client", "endpoint", "one_line_errors"]
