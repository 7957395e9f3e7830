"""One client: what it asked, and what it will be answered, in the order of its requests.

Requests are read ahead, so that a pipeline becomes one batch, within bounds: a client that asks without reading its
answers, or asks faster than they come, is not read from until it has caught up.

Order within a connection is kept by two rules. A write waits for the reads before it, so that they cannot see it. A
read behind writes that are still open goes through the log like these, so that it sees them and nothing later; where
its answer might be too long for a result, it waits for them instead.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

import commands
import resp
from commands import Route
from operation import Operation
from submission import Place, Request, Submission
from view import ClientView, ServerView

# Requests that are read ahead of the first one without an answer.
REQUESTS_MAX = 4096
REQUEST_BYTES_MAX = 1 << 20
# Nothing more is read from a client, or looked up for it, while there is so much to be sent to it.
OUTPUT_BYTES_PAUSE = 1 << 20
# What a request is made of beside what goes into the entry.
REQUEST_EXTRA_BYTES = 64 << 10


class Connection(asyncio.Protocol):
    """A client's connection, in the event loop's hands."""

    def __init__(self, id: int, submission: Submission, server: ServerView, entry_bytes_max: int) -> None:
        self.on_lost: Callable[[Connection], None] = lambda connection: None
        self._client = ClientView(id)
        self._submission = submission
        self._server = server
        self._parser = resp.Parser(entry_bytes_max + REQUEST_EXTRA_BYTES)
        self._transport: asyncio.Transport | None = None
        self._held: list[bytes] | None = None  # a request that waits: for those before it, or for room
        self._queue: deque[Request] = deque()
        self._request_bytes = 0
        self._in_log = 0
        self._in_read = 0  # the ready ones too: until they are looked up, no later write may be applied
        self._output: list[bytes] = []
        self._output_bytes = 0
        self._is_reading = True
        self._may_send = True
        self._has_ended = False  # the client will send nothing more, but may wait for its answers
        self._is_ending = False  # to be closed once everything is answered
        self._is_closing = False  # the server ends

    # ---- Called by the event loop ----

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The client is there."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.set_write_buffer_limits(high=OUTPUT_BYTES_PAUSE)
        self._server.clients += 1

    def connection_lost(self, error: Exception | None) -> None:
        """The client is gone. Open requests are still answered, to nobody."""
        self._transport = None
        self._server.clients -= 1
        self.on_lost(self)
        self.go_on()

    def data_received(self, data: bytes) -> None:
        """The next bytes of the client."""
        self._parser.feed(data)
        self.go_on()

    def eof_received(self) -> bool:
        """The client says no more. True keeps the connection, for the answers."""
        self._has_ended = True
        self.go_on()
        return True

    def pause_writing(self) -> None:
        """The client does not read its answers."""
        self._may_send = False

    def resume_writing(self) -> None:
        """It does again."""
        self._may_send = True
        self.go_on()

    # ---- Called by the submission ----

    def answered(self, request: Request, answer: bytes) -> None:
        """Takes the answer of an open request. `go_on` must follow."""
        if request.place is Place.IN_LOG:
            self._in_log -= 1
        else:
            self._in_read -= 1
        self._request_bytes -= request.cost_bytes
        request.place = Place.ANSWERED
        request.answer = answer

    def go_on(self) -> None:
        """Does what can be done for the client now."""
        progress = True
        while progress:
            self._release_answers()
            progress = self._take_requests()
        self._send()

    def take_no_more(self) -> None:
        """Leaves what the client asks from now on unanswered: the server ends."""
        self._is_closing = True
        self.go_on()

    def end(self) -> None:
        """Sends what is answered, and closes."""
        self._release_answers()
        self._send()
        if self._transport is not None:
            self._transport.close()

    # ---- Out ----

    def _has_room_out(self) -> bool:
        return self._transport is None or (self._may_send and self._output_bytes < OUTPUT_BYTES_PAUSE)

    def _release_answers(self) -> None:
        """Moves the answers at the front of the queue to the output; looks up what is ready, while there is room."""
        queue = self._queue
        while queue:
            request = queue[0]
            if request.place is Place.READY and self._has_room_out():
                self.answered(request, b"" if self._transport is None else self._submission.look_up(request))
            if request.place is not Place.ANSWERED:
                break
            queue.popleft()
            self._put(request.answer)

    def _put(self, answer: bytes) -> None:
        self._output.append(answer)
        self._output_bytes += len(answer)

    def _send(self) -> None:
        if self._output:
            output, self._output, self._output_bytes = self._output, [], 0
            if self._transport is not None:
                self._transport.write(b"".join(output))
                # What did not fit while the output gathered may fit now that it is on its way.
                if self._may_send and (self._queue or self._parser.buffered() or self._held):
                    asyncio.get_running_loop().call_soon(self.go_on)
        if self._transport is None:
            return
        if self._is_ending and not self._queue:
            self._transport.close()
        wants_input = not (self._is_ending or self._is_closing) and self._held is None and self._has_room()
        if wants_input != self._is_reading:
            self._is_reading = wants_input
            if wants_input:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()

    # ---- In ----

    def _has_room(self) -> bool:
        return (
            len(self._queue) < REQUESTS_MAX and self._request_bytes < REQUEST_BYTES_MAX and self._has_room_out()
        )

    def _take_requests(self) -> bool:
        """Hands requests on, as far as the bounds and the order allow. Whether answers may have come of it."""
        progress = False
        while self._transport is not None and not (self._is_ending or self._is_closing) and self._has_room():
            request = self._held
            if request is None:
                try:
                    request = self._parser.next()
                except resp.ProtocolError as error:
                    self._answer_locally(resp.error(str(error)))
                    self._is_ending = True
                    return progress
                if request is None:
                    self._is_ending = self._has_ended
                    break
            if isinstance(request, resp.TooLarge):
                length = request.request_bytes
                text = f"ERR a request of {length} bytes is longer than an entry may be (max_entry_bytes)"
                self._answer_locally(resp.error(text))
                continue
            if request:
                self._held = None if self._take(request) else request
                if self._held is not None:
                    break
                self._server.requests += 1
                progress = progress or (bool(self._queue) and self._queue[0].place is Place.ANSWERED)
        return progress

    def _take(self, arguments: list[bytes]) -> bool:
        """One request. False if it has to wait."""
        version = self._client.version
        route, data = commands.route(arguments, self._client, self._server)
        if isinstance(data, Operation):
            return self._operate(version, data)
        if route is not Route.DONE and route is not Route.CLOSE:
            return self._submit(route is not Route.READ, version, data)
        self._answer_locally(data)
        self._is_ending = route is Route.CLOSE
        return True

    def _operate(self, version: int, operation: Operation) -> bool:
        """Hands an operation on. Nothing of its connection comes before it, and no write goes on behind it."""
        if self._queue:
            return False
        request = Request(self, version, Place.IN_OPERATION)
        self._queue.append(request)
        self._in_read += 1
        self._submission.operate(request, operation)
        return True

    def _submit(self, is_write: bool, version: int, command: bytes) -> bool:
        """Hands a request on, unless it has to wait for those before it or for room: then False."""
        submission = self._submission
        through_log = is_write
        if is_write and self._in_read:
            return False
        if not is_write and self._in_log:
            if not submission.fits_log(command):
                return False
            through_log = True
        if through_log and not submission.has_room(self, command):
            return False
        request = Request(self, version, Place.IN_LOG if through_log else Place.IN_READ)
        request.is_write = is_write
        request.session = self._client.session
        request.command = command
        request.cost_bytes = len(command)
        if through_log and not is_write:
            request.cost_bytes += submission.answer_bytes(command)
        self._queue.append(request)
        self._request_bytes += request.cost_bytes
        if through_log:
            self._in_log += 1
            submission.write(request)
        else:
            self._in_read += 1
            submission.read(request)
        return True

    def _answer_locally(self, answer: bytes) -> None:
        """Answers a request at once, or in a place of its own behind those that are open."""
        if not self._queue:
            self._put(answer)
            return
        request = Request(self, self._client.version, Place.ANSWERED)
        request.answer = answer
        self._queue.append(request)
