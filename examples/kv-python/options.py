"""The command line: the same in every language (README.md of examples/kv)."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field

import resp
from view import MemberView, split_address

USAGE = """\
usage: kv --cluster NAME --id N --data DIR --raft HOST:PORT --resp HOST:PORT
          --member ID=RAFT_HOST:PORT/RESP_HOST:PORT ... | --join HOST:PORT ...
          [--peer ID=HOST:PORT ...] [--config KEY=VALUE ...]

  --cluster NAME   the name that all servers of the cluster share
  --id N           this server's id, never used before for another directory
  --data DIR       where its log and snapshots are
  --raft           where it listens for its peers
  --resp           where it listens for Redis clients
  --member         a member of the new group; the same list on every server
  --join           a member of the group that runs, where its peers dial it: wait to be added (RAFT.ADD)
  --peer           dial that member here, and not at its address
  --config         an engine setting, such as election_timeout_ms=1000
"""


class UsageError(Exception):
    """The program is not called as it must be."""


@dataclass
class Options:
    """What the command line says."""

    cluster: str = ""
    id: int = 0
    data: str = ""
    raft_address: str = ""
    resp_address: str = ""
    members: list[MemberView] = field(default_factory=list)
    # Where some members of a group that runs are dialled, to be added to it; with none, the members form it.
    contacts: list[str] = field(default_factory=list)
    settings: dict[str, str] = field(default_factory=dict)  # for the engine, --peer among them as `peer.ID`
    # The engine's settings of these names, which bound what a client may send and what goes into a batch.
    max_entry_bytes: int = 8 << 20
    queue_bytes: int = 16 << 20
    # The engine's `forwarding`, here off unless it is set: any server answers any client.
    is_forwarding: bool = False


def _number(option: str, text: str) -> int:
    number = resp.to_integer(text.encode())
    if number is None or number <= 0:
        raise UsageError(f"{option} must be a whole number above 0: {text}")
    return number


def _address(option: str, text: str) -> str:
    try:
        split_address(text)
    except ValueError:
        raise UsageError(f"{option} must be HOST:PORT: {text}") from None
    return text


def _add_member(options: Options, text: str) -> None:
    form = f"--member must be ID=RAFT_HOST:PORT/RESP_HOST:PORT: {text}"
    id_text, equals, addresses = text.partition("=")
    raft, slash, client = addresses.partition("/")
    if not equals or not slash:
        raise UsageError(form)
    id = _number("--member", id_text)
    if any(member.id == id for member in options.members):
        raise UsageError(f"--member names this id twice: {text}")
    options.members.append(MemberView(id, _address("--member", raft), _address("--member", client)))


def _add_peer(options: Options, text: str) -> None:
    id_text, equals, address = text.partition("=")
    if not equals:
        raise UsageError(f"--peer must be ID=HOST:PORT: {text}")
    options.settings[f"peer.{_number('--peer', id_text)}"] = _address("--peer", address)


def _add_config(options: Options, text: str) -> None:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UsageError(f"--config must be KEY=VALUE: {text}")
    if key in ("dispatch", "completions"):
        raise UsageError(f"--config cannot change what this program is built on: {text}")
    if key in ("max_entry_bytes", "queue_bytes"):
        setattr(options, key, _number(key, value))
    if key == "forwarding":
        options.is_forwarding = value == "on"
    options.settings[key] = value


def parse(arguments: list[str]) -> Options:
    """Reads the command line. Raises UsageError."""
    options = Options()
    words = iter(arguments)
    for name in words:
        value = next(words, None)
        if name == "--help":
            raise UsageError("")
        if value is None:
            raise UsageError(f"the option needs a value: {name}")
        if name == "--cluster":
            options.cluster = value
        elif name == "--id":
            options.id = _number(name, value)
        elif name == "--data":
            options.data = value
        elif name == "--raft":
            options.raft_address = _address(name, value)
        elif name == "--resp":
            options.resp_address = _address(name, value)
        elif name == "--member":
            _add_member(options, value)
        elif name == "--join":
            options.contacts.append(_address(name, value))
        elif name == "--peer":
            _add_peer(options, value)
        elif name == "--config":
            _add_config(options, value)
        else:
            raise UsageError(f"no such option: {name}")
    for name in ("cluster", "id", "data", "raft_address", "resp_address"):
        if not getattr(options, name):
            raise UsageError(f"missing: --{name.partition('_')[0]}")
    if options.contacts and options.members:
        raise UsageError("a group that exists has its members: --join goes without --member")
    if not options.contacts and all(member.id != options.id for member in options.members):
        raise UsageError("missing: --member for this server's own id, or --join")
    options.members.sort(key=lambda member: member.id)
    return options


def complain(problem: object) -> None:
    """Says on standard error what is wrong."""
    print(f"kv: {problem}", file=sys.stderr, flush=True)
