"""Tests of what needs no cluster: the vectors that all languages share, and what a snapshot sees while the state changes.

    python -m unittest discover examples/kv-python/tests
"""

import io
import random
import struct
import sys
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import commands  # noqa: E402
import machine  # noqa: E402
import options  # noqa: E402
import pattern  # noqa: E402
import resp  # noqa: E402
import view  # noqa: E402

VECTORS = HERE.parent.parent / "kv" / "vectors"
MEMBERS = (
    view.MemberView(1, "127.0.0.1:7101", "127.0.0.1:7001"),
    view.MemberView(2, "127.0.0.1:7102", "127.0.0.1:7002"),
    view.MemberView(3, "[::1]:7103", "[::1]:7003"),
)


def server_2():
    return view.ServerView("demo", 2, MEMBERS)


def unescape(text):
    """A word, or the rest of a line, as bytes."""
    out = bytearray()
    at = 0
    while at < len(text):
        if text[at] != "\\":
            out.append(ord(text[at]))
            at += 1
            continue
        kind = text[at + 1]
        if kind == "x":
            out.append(int(text[at + 2 : at + 4], 16))
            at += 4
        else:
            out.append({"r": 13, "n": 10, "\\": 92}[kind])
            at += 2
    return bytes(out)


def words_of(text):
    return [b"" if word == '""' else unescape(word) for word in text.split(" ")] if text else []


def describe(operation):
    """An operation as the vectors write it."""
    words = [operation.kind.name.lower()]
    if operation.kind.name in ("ADD", "REMOVE", "TRANSFER"):
        words.append(str(operation.id))
    if operation.kind.name == "ADD":
        words += [operation.raft_address, operation.resp_address or '""']
        words.append("learner" if operation.is_learner else "voter")
    return " ".join(words)


def hex_of(text):
    return b"" if text == '""' else bytes.fromhex(text)


def lines_of(name):
    """Line number, directive, and what stands behind it."""
    for number, line in enumerate((VECTORS / name).read_text().split("\n"), 1):
        if line and not line.startswith("#"):
            directive, _, rest = line.partition(" ")
            yield f"{name}:{number}", directive, rest


def snapshot_of(state):
    return b"".join(state.snapshot())


def restored(data):
    state = machine.Machine()
    state.restore(io.BytesIO(data).read)
    return state


class Vectors(unittest.TestCase):
    """What is written in examples/kv/vectors."""

    def test_the_replicated_format_is_the_one_of_the_vectors(self):
        state, command, result = machine.Machine(), b"", b""
        for where, directive, rest in lines_of("machine.txt"):
            with self.subTest(where):
                if directive == "start":
                    state = machine.Machine()
                elif directive == "request":
                    route, command = commands.route(words_of(rest), view.ClientView(7), server_2())
                    is_write = command[0] < 0x40
                    self.assertIs(route, commands.Route.WRITE if is_write else commands.Route.READ)
                elif directive == "command":
                    self.assertIn(command, (b"", hex_of(rest)))
                    command = hex_of(rest)
                elif directive == "result":
                    if command[0] >= 0x40:
                        self.assertEqual(state.query(command).hex(), rest)
                    result = state.apply(command)
                    self.assertEqual(result.hex(), rest)
                    command = b""
                elif directive in ("reply2", "reply3"):
                    self.assertEqual(machine.reply(result, int(directive[-1])), unescape(rest))
                elif directive == "snapshot":
                    self.assertEqual(snapshot_of(state).hex(), rest)
                    again = restored(hex_of(rest))
                    self.assertEqual((snapshot_of(again).hex(), again.digest()), (rest, state.digest()))
                elif directive == "digest":
                    self.assertEqual(state.digest(), rest)
                elif directive == "refuse":
                    with self.assertRaises(machine.NotACommand):
                        state.apply(hex_of(rest))
                else:
                    self.assertEqual(directive, "refuse-snapshot")
                    with self.assertRaises(machine.SnapshotError):
                        restored(hex_of(rest))

    def test_patterns_match_as_in_the_vectors(self):
        for where, directive, rest in lines_of("glob.txt"):
            with self.subTest(where):
                self.assertEqual(pattern.matches(*words_of(rest)), directive == "matches")

    def test_the_server_answers_as_in_the_vectors(self):
        client, server = view.ClientView(7), server_2()
        route, reply = None, b""
        for where, directive, rest in lines_of("local.txt"):
            with self.subTest(where):
                if directive == "client":
                    client = view.ClientView(7)
                elif directive == "leader":
                    server.leader, server.term = map(int, rest.split())
                elif directive == "request":
                    route, reply = commands.route(words_of(rest), client, server)
                    self.assertIn(route, (commands.Route.DONE, commands.Route.CLOSE, commands.Route.OPERATE))
                elif directive == "operation":
                    self.assertEqual(describe(reply), rest)
                elif directive == "moved":
                    reply = view.not_leader(server, int(rest))
                elif directive == "reply":
                    self.assertEqual(reply, unescape(rest))
                else:
                    self.assertEqual((directive, route), ("closes", commands.Route.CLOSE))

    def test_requests_are_parsed_as_in_the_vectors(self):
        for step in (1, 7, 1 << 20):
            parser, coming = resp.Parser(64), b""
            for where, directive, rest in [*lines_of("resp.txt"), ("the end", "input", "")]:
                with self.subTest(where, step=step):
                    if directive == "input":
                        if parser is not None:
                            self.assertIsNone(self.feed(parser, coming, step)[0])
                        parser, coming = resp.Parser(64), unescape(rest)
                        continue
                    if directive == "broken":
                        with self.assertRaises(resp.ProtocolError) as caught:
                            self.feed(parser, coming, step)
                        self.assertEqual(str(caught.exception).encode(), unescape(rest))
                        parser = None
                        continue
                    request, coming = self.feed(parser, coming, step)
                    if directive == "request":
                        self.assertEqual(request, words_of(rest))
                    else:
                        self.assertEqual(directive, "too-large")
                        self.assertEqual(request.request_bytes, int(rest))
                    self.assertLess(parser.buffered(), 4096)

    @staticmethod
    def feed(parser, coming, step):
        """Goes to the next request, feeding at most `step` bytes at a time."""
        while True:
            request = parser.next()
            if request is not None or not coming:
                return request, coming
            parser.feed(coming[:step])
            coming = coming[step:]


class Properties(unittest.TestCase):
    """What holds for any state."""

    def test_a_snapshot_sees_the_state_at_its_beginning(self):
        choose = random.Random(1)
        state = machine.Machine()
        for _ in range(300):
            for _ in range(choose.randrange(30)):
                self.change(state, choose)
            wanted = snapshot_of(state)
            pieces = state.snapshot()
            seen = []
            for piece in pieces:
                seen.append(piece)
                self.change(state, choose)
            self.assertEqual(b"".join(seen), wanted)
        self.assertEqual(restored(snapshot_of(state)).digest(), state.digest())

    @staticmethod
    def change(state, choose):
        key = machine.field(b"key%d" % choose.randrange(40))
        value = machine.field(bytes([choose.randrange(256)]) * choose.randrange(20_000))
        kind = choose.randrange(16)
        if kind == 0:
            state.apply(bytes((machine.CLEAR,)))
        elif kind < 5:
            state.apply(bytes((machine.DELETE, 1, 0, 0, 0)) + key)
        elif kind < 7:
            state.apply(bytes((machine.APPEND,)) + key + value)
        else:
            state.apply(bytes((machine.SET, 0)) + key + value)

    def test_values_and_results_are_bounded(self):
        state = machine.Machine()
        key = machine.field(b"k")
        self.assertEqual(state.apply(b"\x01\x00" + key + machine.field(bytes(64 << 20))), machine.OK)
        digest = state.digest()
        too_long = b"\x01\x04" + key + machine.field(bytes((64 << 20) + 1))
        self.assertEqual(state.apply(too_long), machine.TOO_LONG)
        self.assertEqual(state.apply(b"\x01\x04" + key + machine.field(b"x")), machine.RESULT_TOO_LONG)
        self.assertEqual(state.apply(b"\x04" + key + machine.field(b"x")), machine.TOO_LONG)
        self.assertEqual(state.apply(b"\x41" + key), machine.RESULT_TOO_LONG)
        self.assertEqual(state.query(b"\x42" + struct.pack("<I", 2) + key + key), machine.ANSWER_TOO_LONG)
        self.assertEqual(state.digest(), digest)

    def test_a_set_of_1_mib_less_one_byte_is_still_given_back(self):
        state = machine.Machine()
        key = machine.field(b"k")
        for length, wanted in (((1 << 20) - 1, machine.BYTES), (1 << 20, machine.ERROR)):
            state.apply(b"\x01\x00" + key + machine.field(bytes(length)))
            self.assertEqual(state.apply(b"\x41" + key)[:1], wanted)
            self.assertEqual(state.apply(b"\x01\x04" + key + machine.field(b""))[:1], wanted)


class CommandLine(unittest.TestCase):
    """The one command line of every language."""

    GOOD = (
        "--cluster c --id 2 --data d --raft h:1 --resp h:2 --member 2=h:1/h:2 --member 1=g:1/g:2 "
        "--peer 1=p:9 --config max_entry_bytes=1000 --config election_timeout_ms=1000"
    ).split()

    def test_a_good_one_is_understood(self):
        parsed = options.parse(self.GOOD)
        self.assertEqual([member.id for member in parsed.members], [1, 2])
        wanted = {"peer.1": "p:9", "max_entry_bytes": "1000", "election_timeout_ms": "1000"}
        self.assertEqual(parsed.settings, wanted)
        self.assertEqual(parsed.max_entry_bytes, 1000)

    def test_what_is_missing_or_wrong_is_said(self):
        for at in range(0, 10, 2):
            with self.subTest(self.GOOD[at]), self.assertRaises(options.UsageError) as caught:
                options.parse(self.GOOD[:at] + self.GOOD[at + 2 :])
            self.assertIn(self.GOOD[at], str(caught.exception))
        for more in (
            "--id", "--id 0", "--id x", "--member 3", "--member 3=h:1", "--member 2=h:1/h:2", "--member 3=h:x/h:1",
            "--peer 1", "--peer 1=h", "--config x", "--config =1", "--config dispatch=threaded", "--none 1",
            "--resp nowhere", "--help",
        ):
            with self.subTest(more), self.assertRaises(options.UsageError):
                options.parse(self.GOOD + more.split())


if __name__ == "__main__":
    unittest.main()
