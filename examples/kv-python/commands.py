"""What a client may ask: the table of commands, their arguments, and where each one goes.

A request that concerns the data is translated into a replicated command (FORMAT.md); every other one is answered here.
Knows no sockets and no Raft: what it tells of the cluster comes from a `ServerView` (view.py).
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Union

import machine
import pattern
import resp
from operation import Kind, Operation
from view import ClientView, ServerView, SessionPart, SessionUse, client_address, not_leader, split_address

REDIS_VERSION = "7.4.0"
SLOT_LAST = 16383


class Route(enum.Enum):
    """Where a request goes."""

    DONE = 1  # the bytes are the reply
    WRITE = 2  # the bytes are a replicated command: propose it
    READ = 3  # the bytes are a replicated command: answer it from state that is fresh enough
    CLOSE = 4  # the bytes are the reply, and the connection ends with it
    SESSION = 5  # something is to be done to a session: `ClientView.session` says what
    OPERATE = 6  # an operation of the operator's, in place of bytes: have it done


@dataclass
class Call:
    """One request on its way through the table; the arguments begin with the command's name."""

    arguments: list[bytes]
    client: ClientView
    server: ServerView

    @property
    def words(self) -> list[bytes]:
        """The arguments behind the name, in lower case."""
        return [argument.lower() for argument in self.arguments[1:]]


Answer = tuple[Route, Union[bytes, Operation]]


def _done(reply: bytes) -> Answer:
    return Route.DONE, reply


def _failure(text: str) -> Answer:
    return Route.DONE, resp.error(text)


def _unknown_subcommand(call: Call) -> Answer:
    word = call.arguments[1][:128]
    return _done(resp.error(b"ERR unknown subcommand or wrong number of arguments for '%b'" % word))


# ---- The data ----


def _set(call: Call) -> Answer:
    flags = 0
    for option in call.arguments[3:]:
        word = option.lower()
        if word == b"nx" and not flags & machine.IF_PRESENT:
            flags |= machine.IF_MISSING
        elif word == b"xx" and not flags & machine.IF_MISSING:
            flags |= machine.IF_PRESENT
        elif word == b"get":
            flags |= machine.AND_GET
        else:
            return _failure("ERR syntax error")
    _, key, value = call.arguments[:3]
    return Route.WRITE, bytes((machine.SET, flags)) + machine.field(key) + machine.field(value)


def _append(call: Call) -> Answer:
    _, key, value = call.arguments
    return Route.WRITE, bytes((machine.APPEND,)) + machine.field(key) + machine.field(value)


def _add(call: Call) -> Answer:
    delta = resp.to_integer(call.arguments[2]) if len(call.arguments) == 3 else 1
    if delta is None:
        return _failure("ERR value is not an integer or out of range")
    if call.arguments[0].lower().startswith(b"decr"):
        if delta == -(1 << 63):
            return _failure("ERR decrement would overflow")
        delta = -delta
    return Route.WRITE, struct.pack("<Bq", machine.ADD, delta) + machine.field(call.arguments[1])


def _set_many(call: Call) -> Answer:
    words = call.arguments[1:]
    if len(words) % 2:
        return _failure("ERR wrong number of arguments for 'mset' command")
    head = struct.pack("<BI", machine.SET_MANY, len(words) // 2)
    return Route.WRITE, head + b"".join(map(machine.field, words))


def _clear(call: Call) -> Answer:
    if call.words not in ([], [b"sync"], [b"async"]):
        return _failure("ERR syntax error")
    return Route.WRITE, bytes((machine.CLEAR,))


def _list_of(route: Route, kind: int) -> Callable[[Call], Answer]:
    return lambda call: (route, bytes((kind,)) + machine.fields(call.arguments[1:]))


def _word(kind: int) -> Callable[[Call], Answer]:
    return lambda call: (Route.READ, bytes((kind,)) + machine.field(call.arguments[1]))


def _count(call: Call) -> Answer:
    return Route.READ, bytes((machine.COUNT,))


# ---- The connection ----


def _ping(call: Call) -> Answer:
    if len(call.arguments) > 2:
        return _failure("ERR wrong number of arguments for 'ping' command")
    return _done(resp.bulk(call.arguments[1]) if len(call.arguments) == 2 else resp.simple("PONG"))


def _echo(call: Call) -> Answer:
    return _done(resp.bulk(call.arguments[1]))


def _quit(call: Call) -> Answer:
    return Route.CLOSE, resp.simple("OK")


def _select(call: Call) -> Answer:
    database = resp.to_integer(call.arguments[1])
    if database is None:
        return _failure("ERR value is not an integer or out of range")
    return _done(resp.simple("OK")) if database == 0 else _failure("ERR DB index is out of range")


BAD_NAME = "ERR Client names cannot contain spaces, newlines or special characters."


def _is_name(name: bytes) -> bool:
    return all(0x21 <= byte <= 0x7E for byte in name)


def _client(call: Call) -> Answer:
    client, words = call.client, call.words
    if words == [b"id"]:
        return _done(resp.integer(client.id))
    if words == [b"getname"]:
        return _done(resp.bulk(client.name) if client.name else resp.nil(client.version))
    if words[0] == b"setname" and len(words) == 2:
        if not _is_name(call.arguments[2]):
            return _failure(BAD_NAME)
        client.name = call.arguments[2]
        return _done(resp.simple("OK"))
    if words[0] == b"setinfo" and len(words) == 3:
        is_known = words[1] in (b"lib-name", b"lib-ver")
        return _done(resp.simple("OK")) if is_known else _failure("ERR Unrecognized option")
    return _unknown_subcommand(call)


def _hello(call: Call) -> Answer:
    client = call.client
    version = client.version
    arguments = call.arguments[1:]
    if arguments:
        number = resp.to_integer(arguments[0])
        if number is None:
            return _failure("ERR Protocol version is not an integer or out of range")
        if number not in (2, 3):
            return _failure("NOPROTO unsupported protocol version")
        version = number
    at = 1
    while at < len(arguments):
        option = arguments[at].lower()
        if option == b"auth" and at + 2 < len(arguments):
            return _failure(
                "ERR AUTH <password> called without any password configured for the default user. "
                "Are you sure your configuration is correct?"
            )
        if option != b"setname" or at + 1 >= len(arguments):
            return _failure("ERR Syntax error in HELLO")
        if not _is_name(arguments[at + 1]):
            return _failure(BAD_NAME)
        client.name = arguments[at + 1]
        at += 2
    client.version = version
    pairs = [
        ("server", resp.bulk("redis")),
        ("version", resp.bulk(REDIS_VERSION)),
        ("proto", resp.integer(version)),
        ("id", resp.integer(client.id)),
        ("mode", resp.bulk("cluster")),
        ("role", resp.bulk("master" if call.server.leader == call.server.id else "replica")),
        ("modules", resp.array([])),
    ]
    return _done(resp.mapping(version, [(resp.bulk(key), value) for key, value in pairs]))


# ---- The server and the cluster ----

# What redis-benchmark and client libraries ask for. Nothing here can be set.
CONFIG = {
    "appendonly": "yes",
    "appendfsync": "always",
    "databases": "1",
    "maxmemory": "0",
    "maxmemory-policy": "noeviction",
    "proto-max-bulk-len": "536870912",
    "save": "",
    "timeout": "0",
}


def _config(call: Call) -> Answer:
    if call.arguments[1].lower() != b"get" or len(call.arguments) < 3:
        return _unknown_subcommand(call)
    wanted = call.arguments[2:]
    rows = [
        (resp.bulk(name), resp.bulk(value))
        for name, value in CONFIG.items()
        if any(pattern.matches(glob, name.encode()) for glob in wanted)
    ]
    return _done(resp.mapping(call.client.version, rows))


def _node_id(id: int) -> str:
    """Cluster clients know nodes by forty hexadecimal digits."""
    return f"{id:040x}"


def _slots(server: ServerView) -> bytes:
    nodes = []
    for member in server.leader_first():
        host, port = split_address(member.resp_address)
        nodes.append(
            resp.array([resp.bulk(host), resp.integer(port), resp.bulk(_node_id(member.id)), resp.array([])])
        )
    return resp.array([resp.array([resp.integer(0), resp.integer(SLOT_LAST), *nodes])])


def _shards(server: ServerView, version: int) -> bytes:
    nodes = []
    for at, member in enumerate(server.leader_first()):
        host, port = split_address(member.resp_address)
        pairs = [
            ("id", resp.bulk(_node_id(member.id))),
            ("port", resp.integer(port)),
            ("ip", resp.bulk(host)),
            ("endpoint", resp.bulk(host)),
            ("role", resp.bulk("replica" if at else "master")),
            ("replication-offset", resp.integer(server.commit)),
            ("health", resp.bulk("online")),
        ]
        nodes.append(resp.mapping(version, [(resp.bulk(key), value) for key, value in pairs]))
    slots = resp.array([resp.integer(0), resp.integer(SLOT_LAST)])
    return resp.array(
        [resp.mapping(version, [(resp.bulk("slots"), slots), (resp.bulk("nodes"), resp.array(nodes))])]
    )


def _nodes(server: ServerView) -> str:
    lines = []
    for at, member in enumerate(server.leader_first()):
        flags = ("myself," if member.id == server.id else "") + ("slave" if at else "master")
        master = _node_id(server.leader) if at else "-"
        slots = "" if at else " 0-16383"
        name = f"{_node_id(member.id)} {client_address(member)}@0"
        lines.append(f"{name} {flags} {master} 0 0 {server.term} connected{slots}\n")
    return "".join(lines)


def _cluster(call: Call) -> Answer:
    server, version = call.server, call.client.version
    if len(call.words) != 1:
        return _unknown_subcommand(call)
    server.refresh(server)
    has_leader = server.client_member(server.leader) is not None
    subcommand = call.words[0]
    if subcommand == b"myid":
        return _done(resp.bulk(_node_id(server.id)))
    if subcommand == b"info":
        return _done(
            resp.text(
                version,
                f"cluster_enabled:1\r\ncluster_state:{'ok' if has_leader else 'fail'}\r\n"
                f"cluster_slots_assigned:{SLOT_LAST + 1}\r\ncluster_slots_ok:{SLOT_LAST + 1 if has_leader else 0}\r\n"
                f"cluster_known_nodes:{len(server.leader_first())}\r\ncluster_size:1\r\n"
                f"cluster_current_epoch:{server.term}\r\n",
            )
        )
    if subcommand not in (b"slots", b"shards", b"nodes"):
        return _unknown_subcommand(call)
    if not has_leader:
        return _done(not_leader(server, 0))
    if subcommand == b"slots":
        return _done(_slots(server))
    if subcommand == b"shards":
        return _done(_shards(server, version))
    return _done(resp.text(version, _nodes(server)))


def _info(call: Call) -> Answer:
    server = call.server
    server.refresh(server)
    sections = {
        "server": [
            f"redis_version:{REDIS_VERSION}",
            "redis_mode:cluster",
            f"kv_language:{server.language}",
            f"uptime_in_seconds:{server.uptime_seconds}",
        ],
        "clients": [f"connected_clients:{server.clients}"],
        "stats": [f"total_commands_processed:{server.requests}"],
        "replication": [f"role:{'master' if server.leader == server.id else 'slave'}"],
        "cluster": ["cluster_enabled:1"],
        "raft": [
            f"raft_id:{server.id}",
            f"raft_role:{server.role}",
            f"raft_term:{server.term}",
            f"raft_leader:{server.leader}",
            f"raft_commit:{server.commit}",
            f"raft_applied:{server.applied}",
        ],
        "keyspace": [f"db0:keys={server.keys},expires=0,avg_ttl=0"] if server.keys else [],
    }
    wants_all = not call.words or not {b"all", b"default", b"everything"}.isdisjoint(call.words)
    shown = []
    for name, lines in sections.items():
        if wants_all or name.encode() in call.words:
            end = [] if name == "keyspace" else [""]
            shown += [f"# {name.capitalize()}", *lines, *end]
    return _done(resp.text(call.client.version, "".join(f"{line}\r\n" for line in shown)))


def _raft_status(call: Call) -> Answer:
    server = call.server
    server.refresh(server)
    leader = server.member(server.leader)
    rows: list[tuple[str, str | int]] = [
        ("cluster", server.cluster),
        ("id", server.id),
        ("language", server.language),
        ("role", server.role),
        ("term", server.term),
        ("leader", server.leader),
        ("leader_address", leader.resp_address if leader else ""),
        ("last", server.last),
        ("durable", server.durable),
        ("commit", server.commit),
        ("applied", server.applied),
        ("snapshot", server.snapshot),
        ("log_writes", server.log_writes),
        ("disk", server.disk),
        ("stopped", server.stopped),
        ("change", server.change),
        ("transferring_to", server.transferring_to),
        ("removed", server.removed),
        ("keys", server.keys),
        ("digest", server.digest),
        ("members", " ".join(f"{each.id}={each.raft_address}/{each.resp_address}" for each in server.members)),
    ]
    pairs = [
        (resp.bulk(key), resp.integer(value) if isinstance(value, int) else resp.bulk(value)) for key, value in rows
    ]
    return _done(resp.mapping(call.client.version, pairs))


# ---- Sessions ----


def _session(call: Call) -> Answer:
    words = call.words
    if words == [b"open"]:
        call.client.session = SessionPart(SessionUse.OPEN)
        return Route.SESSION, b""
    uses = {b"renew": SessionUse.RENEW, b"close": SessionUse.CLOSE}
    if len(words) == 2 and words[0] in uses:
        id = resp.to_integer(words[1])
        if id is None or id <= 0:
            return _failure("ERR a session is a positive integer")
        call.client.session = SessionPart(uses[words[0]], id)
        return Route.SESSION, b""
    if len(words) < 3:
        return _unknown_subcommand(call)
    id, sequence = resp.to_integer(words[0]), resp.to_integer(words[1])
    if id is None or id <= 0 or sequence is None or sequence < 0:
        return _failure("ERR a session is a positive integer, and a sequence one that is not negative")
    entry = TABLE.get(words[2])
    if entry is not None and (not entry.flags.startswith("write") or entry.handler is _session):
        return _failure("ERR only a write can be a command of a session")
    where, data = route(call.arguments[3:], call.client, call.server)
    if where is Route.WRITE:
        call.client.session = SessionPart(SessionUse.COMMAND, id, sequence)
    return where, data


# ---- The operator ----

# The longest address that the engine takes, in bytes.
ADDRESS_BYTES_MAX = 512
BAD_ID = "ERR a server's id is a whole number above 0"


def _to_id(word: bytes) -> int | None:
    number = resp.to_integer(word)
    return number if number is not None and number > 0 else None


def _to_address(word: bytes) -> str | None:
    """An address as text; None if it is none."""
    try:
        text = word.decode()
        return text if split_address(text)[1] and "\0" not in text and len(word) <= ADDRESS_BYTES_MAX else None
    except ValueError:
        return None


def _add_server(call: Call) -> Answer:
    words = call.arguments[1:]
    last = words[-1].lower()
    if last in (b"voter", b"learner"):
        words = words[:-1]
    if not 2 <= len(words) <= 3:
        return _failure("ERR syntax error: RAFT.ADD ID HOST:PORT [CLIENT_HOST:PORT] [VOTER|LEARNER]")
    id = _to_id(words[0])
    if id is None:
        return _failure(BAD_ID)
    addresses = [_to_address(word) for word in words[1:]]
    if None in addresses:
        return _failure("ERR an address is HOST:PORT")
    raft, client = addresses if len(addresses) == 2 else (*addresses, "")
    return Route.OPERATE, Operation(Kind.ADD, id, last == b"learner", raft or "", client or "")


def _remove_server(call: Call) -> Answer:
    id = _to_id(call.arguments[1])
    return _failure(BAD_ID) if id is None else (Route.OPERATE, Operation(Kind.REMOVE, id))


def _transfer(call: Call) -> Answer:
    if len(call.arguments) > 2:
        return _failure("ERR syntax error: RAFT.TRANSFER [ID]")
    id = _to_id(call.arguments[1]) if len(call.arguments) == 2 else 0
    return _failure(BAD_ID) if id is None else (Route.OPERATE, Operation(Kind.TRANSFER, id))


def _plain(kind: Kind) -> Callable[[Call], Answer]:
    """An operation without arguments."""
    return lambda call: (Route.OPERATE, Operation(kind))


def _members(call: Call) -> Answer:
    server = call.server
    server.refresh(server)
    rows = []
    for member in server.members:
        pairs = [
            ("id", resp.integer(member.id)),
            ("raft", resp.bulk(member.raft_address)),
            ("resp", resp.bulk(member.resp_address)),
            ("role", resp.bulk(member.role)),
            ("becomes", resp.bulk(member.becomes)),
            ("priority", resp.integer(member.priority)),
            ("durable", resp.integer(member.durable)),
        ]
        rows.append(resp.mapping(call.client.version, [(resp.bulk(key), value) for key, value in pairs]))
    return _done(resp.array(rows))


# ---- The table ----


@dataclass(frozen=True)
class Entry:
    """One command."""

    name: str
    arity: int  # how many arguments with the name; negative: at least so many
    flags: str
    keys: tuple[int, int, int]  # the first, the last, the step
    handler: Callable[[Call], Answer]
    group: str
    since: str
    summary: str

    def row(self) -> bytes:
        """One row of COMMAND, in the ten fields of Redis 7."""
        return resp.array(
            [
                resp.bulk(self.name),
                resp.integer(self.arity),
                resp.array([resp.simple(flag) for flag in self.flags.split()]),
                *map(resp.integer, self.keys),
                *[resp.array([])] * 4,
            ]
        )

    def docs(self, version: int) -> tuple[bytes, bytes]:
        """Its name and its documentation, for COMMAND DOCS."""
        pairs = [("summary", self.summary), ("since", self.since), ("group", self.group)]
        return resp.bulk(self.name), resp.mapping(version, [(resp.bulk(key), resp.bulk(text)) for key, text in pairs])


def _command(call: Call) -> Answer:
    version = call.client.version
    subcommand = call.arguments[1].lower() if len(call.arguments) > 1 else b"info"
    named = [TABLE.get(name.lower()) for name in call.arguments[2:]]
    if subcommand == b"docs":
        shown = [entry for entry in named if entry] if named else list(TABLE.values())
        return _done(resp.mapping(version, [entry.docs(version) for entry in shown]))
    if subcommand == b"count" and not named:
        return _done(resp.integer(len(TABLE)))
    if subcommand == b"list" and not named:
        return _done(resp.array([resp.bulk(name) for name in TABLE]))
    if subcommand != b"info":
        return _unknown_subcommand(call)
    shown_rows = named if named else list(TABLE.values())
    return _done(resp.array([entry.row() if entry else resp.nil(version) for entry in shown_rows]))


_NONE, _ONE, _ALL = (0, 0, 0), (1, 1, 1), (1, -1, 1)
_READ, _WRITE = Route.READ, Route.WRITE
# fmt: off
TABLE: dict[bytes, Entry] = {entry.name.encode(): entry for entry in (
    Entry("append", 3, "write fast", _ONE, _append, "string", "2.0.0", "Appends to the value of a key."),
    Entry("client", -2, "fast", _NONE, _client, "connection", "2.4.0", "SETINFO, SETNAME, GETNAME, ID."),
    Entry("cluster", -2, "", _NONE, _cluster, "cluster", "3.0.0", "SLOTS, SHARDS, NODES, INFO, MYID."),
    Entry("command", -1, "loading stale", _NONE, _command, "server", "2.8.13", "COUNT, DOCS, INFO, LIST."),
    Entry("config", -2, "", _NONE, _config, "server", "2.0.0", "GET."),
    Entry("dbsize", 1, "readonly fast", _NONE, _count, "server", "1.0.0", "Returns the number of keys."),
    Entry("decr", 2, "write fast", _ONE, _add, "string", "1.0.0", "Subtracts one from the integer value of a key."),
    Entry("decrby", 3, "write fast", _ONE, _add, "string", "1.0.0", "Subtracts from the integer value of a key."),
    Entry("del", -2, "write", _ALL, _list_of(_WRITE, machine.DELETE), "generic", "1.0.0", "Deletes keys."),
    Entry("echo", 2, "fast", _NONE, _echo, "connection", "1.0.0", "Returns the given string."),
    Entry("exists", -2, "readonly fast", _ALL, _list_of(_READ, machine.EXISTS), "generic", "1.0.0",
          "Counts which of the keys exist."),
    Entry("flushall", -1, "write", _NONE, _clear, "server", "1.0.0", "Deletes all keys."),
    Entry("flushdb", -1, "write", _NONE, _clear, "server", "1.0.0", "Deletes all keys."),
    Entry("get", 2, "readonly fast", _ONE, _word(machine.GET), "string", "1.0.0",
          "Returns the value of a key, linearizably."),
    Entry("hello", -1, "fast", _NONE, _hello, "connection", "6.0.0", "Chooses the protocol's version."),
    Entry("incr", 2, "write fast", _ONE, _add, "string", "1.0.0", "Adds one to the integer value of a key."),
    Entry("incrby", 3, "write fast", _ONE, _add, "string", "1.0.0", "Adds to the integer value of a key."),
    Entry("info", -1, "loading stale", _NONE, _info, "server", "1.0.0", "Tells about the server."),
    Entry("keys", 2, "readonly", _NONE, _word(machine.KEYS), "generic", "1.0.0",
          "Returns the keys that match a pattern."),
    Entry("mget", -2, "readonly fast", _ALL, _list_of(_READ, machine.GET_MANY), "string", "1.0.0",
          "Returns the values of keys."),
    Entry("mset", -3, "write", (1, -1, 2), _set_many, "string", "1.0.1", "Sets keys to values, all at once."),
    Entry("ping", -1, "fast", _NONE, _ping, "connection", "1.0.0", "Answers PONG, or its argument."),
    Entry("quit", -1, "fast", _NONE, _quit, "connection", "1.0.0", "Ends the connection."),
    Entry("raft.add", -3, "admin", _NONE, _add_server, "server", "1.0.0",
          "Adds a server to the group: ID HOST:PORT [CLIENT_HOST:PORT] [VOTER|LEARNER]."),
    Entry("raft.cancel", 1, "admin", _NONE, _plain(Kind.CANCEL), "server", "1.0.0",
          "Gives up the change of members in progress."),
    Entry("raft.digest", 1, "admin", _NONE, _plain(Kind.DIGEST), "server", "1.0.0", "Compares the replicas."),
    Entry("raft.members", 1, "loading stale", _NONE, _members, "server", "1.0.0", "Tells the members of the group."),
    Entry("raft.remove", 2, "admin", _NONE, _remove_server, "server", "1.0.0", "Removes a server from the group: ID."),
    Entry("raft.session", -2, "write", _NONE, _session, "server", "1.0.0",
          "OPEN, RENEW id, CLOSE id, or id sequence and a write: applied once, however often it is sent."),
    Entry("raft.snapshot", 1, "admin", _NONE, _plain(Kind.SNAPSHOT), "server", "1.0.0",
          "Takes a snapshot at this server now."),
    Entry("raft.status", 1, "loading stale", _NONE, _raft_status, "server", "1.0.0", "Tells how this server stands."),
    Entry("raft.transfer", -1, "admin", _NONE, _transfer, "server", "1.0.0", "Hands leadership over: [ID]."),
    Entry("select", 2, "fast", _NONE, _select, "connection", "1.0.0", "Chooses the database: there is one, 0."),
    Entry("set", -3, "write", _ONE, _set, "string", "1.0.0", "Sets a key to a value: [NX|XX] [GET]."),
    Entry("strlen", 2, "readonly fast", _ONE, _word(machine.LENGTH), "string", "2.2.0",
          "Returns the length of a value."),
)}
# fmt: on


def _unknown_command(arguments: list[bytes]) -> bytes:
    text = b"ERR unknown command '%b', with args beginning with: " % arguments[0][:128]
    for argument in arguments[1:]:
        if len(text) >= 256:
            break
        text += b"'%b' " % argument[:128]
    return resp.error(text)


def route(arguments: list[bytes], client: ClientView, server: ServerView) -> Answer:
    """Checks a request and says where it goes, with its reply or the replicated command."""
    client.session = SessionPart()
    entry = TABLE.get(arguments[0].lower())
    if entry is None:
        return _done(_unknown_command(arguments))
    count = len(arguments)
    if count != entry.arity if entry.arity > 0 else count < -entry.arity:
        return _failure(f"ERR wrong number of arguments for '{entry.name}' command")
    return entry.handler(Call(arguments, client, server))
