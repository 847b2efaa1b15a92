"""chatwoot-relay: no customer who needs a human is ever missed."""

__version__ = "0.1.0"
