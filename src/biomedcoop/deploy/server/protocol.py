"""HTTP as uvicorn speaks it, with an answer for clients that close their sending half, and refusals of one form."""

from __future__ import annotations

import json

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from biomedcoop.deploy.server.uploads import CUT_SHORT

NO_REQUEST = {"error": "this is no whole HTTP request, or its headers are too long; send it again"}


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
        elif self.conn.trailing_data[0]:  # a part of the headers
            self.send_400_response("")
        return waits

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no request, as all is refused, and close the connection."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):  # an answer that has begun cannot be replaced
            body = json.dumps(NO_REQUEST).encode()
            head = [("content-type", "application/json"), ("content-length", str(len(body))), ("connection", "close")]
            answer = h11.Response(status_code=400, headers=head, reason="Bad Request")
            events = (answer, h11.Data(data=body), h11.EndOfMessage())
            self.transport.write(b"".join(self.conn.send(event) or b"" for event in events))
        self.transport.close()
