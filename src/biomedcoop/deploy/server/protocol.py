"""HTTP as uvicorn speaks it, with an answer for clients that close their sending half after the request."""

from __future__ import annotations

from uvicorn.protocols.http.h11_impl import H11Protocol

from biomedcoop.deploy.server.uploads import CUT_SHORT


class Protocol(H11Protocol):
    """One connection. Uvicorn would close it as soon as the client has nothing more to send, without the answer."""

    def eof_received(self) -> bool:  # type: ignore[override]
        """Whether the connection stays open for an answer. A body that has not come whole ends here, and is refused."""
        waits = self.cycle is not None and not self.cycle.response_complete
        if waits:
            self.cycle.keep_alive = False  # no further request can come
            if self.cycle.more_body:
                self.scope["extensions"] = {CUT_SHORT: {}}
                self.cycle.more_body = False
                self.cycle.message_event.set()
        return waits
