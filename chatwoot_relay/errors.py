"""One tree of what stops a request or a boot. A message never holds a secret or a customer's words."""

from __future__ import annotations

import attrs


class RelayError(Exception):
    """Everything of ours that is raised on purpose."""

    exit_code = 1  # of a command that it ends


class ConfigurationError(RelayError):
    """The settings cannot be served with; every complaint at once."""

    exit_code = 78  # systemd does not try again

    def __init__(self, *complaints: str) -> None:
        super().__init__("; ".join(complaints))
        self.complaints = complaints


class NotOurDatabase(ConfigurationError):
    """The file is another program's, or a newer version's."""


class Taken(RelayError):
    """A lock or a port that another process holds."""

    exit_code = 75


class OutboxUnavailable(RelayError):
    """The outbox cannot take it now: full, read-only, stopping. Nothing was accepted."""


@attrs.frozen
class Complaint:
    """One thing wrong with a body. *path* is a JSON path such as ``$.conversation_id``."""

    path: str
    message: str


@attrs.define
class Refused(RelayError):
    """A request that is answered with a problem (RFC 9457)."""

    status: int
    detail: str
    errors: tuple[Complaint, ...] = attrs.field(default=(), kw_only=True)
    headers: dict[str, str] = attrs.field(factory=dict, kw_only=True)
    close: bool = attrs.field(default=False, kw_only=True)

    def __str__(self) -> str:
        return self.detail
