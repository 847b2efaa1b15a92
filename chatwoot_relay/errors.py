"""One tree of what stops a request or a boot. A message never holds a secret or a customer's words."""

from __future__ import annotations

import attrs


class RelayError(Exception):
    """Everything of ours that is raised on purpose."""


class ConfigurationError(RelayError):
    """The settings cannot be served with; every complaint at once. Exit code 78."""

    def __init__(self, *complaints: str) -> None:
        super().__init__("; ".join(complaints))
        self.complaints = complaints


class NotOurDatabase(ConfigurationError):
    """The file is another program's, or a newer version's. Exit code 78."""


class Taken(RelayError):
    """A lock or a port that another process holds. Exit code 75."""


class OutboxUnavailable(RelayError):
    """The outbox cannot take it now: full, read-only, stopping. Nothing was accepted."""


@attrs.frozen
class Complaint:
    """One thing wrong with a body. *path* is a JSON path such as ``$.conversation_id``."""

    path: str
    message: str


class Refused(RelayError):
    """A request that is answered with a problem (RFC 9457)."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        errors: tuple[Complaint, ...] = (),
        headers: dict[str, str] | None = None,
        close: bool = False,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.errors = errors
        self.headers = headers or {}
        self.close = close
