"""Recovers a group whose majority is gone for good, from one server that is left. No server may run on the directories.

    python -m raft_engine.recover DIRECTORY ...
        prints the last entry of each group in each directory, so that the servers that are left can be compared

    python -m raft_engine.recover DIRECTORY --cluster NAME --id ID --group GROUP --last TERM:INDEX
                                  --i-accept-that-data-may-be-lost
        makes that server the only member of the group, with all that its log holds

docs/operations.md says how to choose, and what to do with the other servers.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional, TextIO, Union

from . import _native
from .errors import RaftError

__all__ = ["RISK", "Directory", "DirectoryGroup", "inspect", "main", "recover"]

RISK: str = _native.recovery_risk()
"""What an operator must know before a recovery."""


@dataclass(frozen=True)
class DirectoryGroup:
    """What a data directory holds of one group."""

    group: int
    """The group's id."""
    last_term: int
    """The term of the last entry. Servers are compared by (`last_term`, `last_index`)."""
    last_index: int
    """The index of the last entry."""
    commit: int
    """How far entries are known here to be committed; more may be."""
    term: int
    """The latest term that the server knew of."""
    snapshot: int
    """The last entry that the latest snapshot includes; 0 if there is none."""
    voters: tuple[int, ...]
    """Who votes, in the last configuration of the log."""
    lineage: str
    """Groups with another lineage under the same id do not talk to it."""
    recovered: bool
    """Whether it was once recovered from the loss of its quorum."""


@dataclass(frozen=True)
class Directory:
    """What a data directory holds."""

    cluster: str
    """The cluster that its server belongs to."""
    server: int
    """The server's id."""
    identity: str
    """Made with the directory."""
    groups: tuple[DirectoryGroup, ...]
    """The groups that were formed in it."""


def inspect(directory: Union[str, "os.PathLike[str]"]) -> Directory:
    """What the data directory of a server that does not run holds. Changes nothing."""
    found = _native.directory_inspect(os.fspath(directory))
    groups = tuple(DirectoryGroup(**{**group, "voters": tuple(group["voters"])}) for group in found.pop("groups"))
    return Directory(groups=groups, **found)


def recover(
    directory: Union[str, "os.PathLike[str]"], *, cluster: str, server: int, group: int, last: tuple[int, int]
) -> None:
    """Makes the server of this directory the only member of a group. Read `RISK` first.

    `last` is the (term, index) of its last entry, as `inspect` told it: whoever asks has compared the servers that are
    left. Returns when it is durable.
    """
    _native.directory_recover(os.fspath(directory), cluster, server, group, last)


def _position(text: str) -> tuple[int, int]:
    term, colon, index = text.partition(":")
    if not (colon and term.isdecimal() and index.isdecimal() and max(int(term), int(index)) < 1 << 64):
        raise argparse.ArgumentTypeError(f"{text} is not TERM:INDEX")
    return int(term), int(index)


def _number(text: str) -> int:
    if not (text.isdecimal() and int(text) < 1 << 64):
        raise argparse.ArgumentTypeError(f"{text} is not a whole number")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m raft_engine.recover",
        description="Compares the data directories of servers that do not run, or recovers a group in one of them from "
        "the loss of its quorum.",
    )
    parser.add_argument("directories", metavar="DIRECTORY", nargs="+", help="the data directory of a server")
    parser.add_argument("--cluster", metavar="NAME", help="the cluster that it must be of")
    parser.add_argument("--id", type=_number, metavar="ID", help="the server that it must be of")
    parser.add_argument("--group", type=_number, metavar="GROUP", help="recover this group")
    parser.add_argument("--last", type=_position, metavar="TERM:INDEX", help="its last entry, as it was printed")
    parser.add_argument("--i-accept-that-data-may-be-lost", action="store_true", dest="accepted")
    return parser


def _show(directories: Sequence[str], out: TextIO) -> bool:
    """Prints what they hold, the highest last entry of each group first. False: one of them cannot be used."""
    rows = []
    is_whole = True
    for directory in directories:
        try:
            found = inspect(directory)
        except RaftError as error:
            print(error, file=sys.stderr)
            is_whole = False
            continue
        if not found.groups:
            print(f"{directory}: server {found.server} of cluster {found.cluster}: no group", file=out)
        rows += [(directory, found, group) for group in found.groups]
    rows.sort(key=lambda row: (row[1].cluster, row[2].group, -row[2].last_term, -row[2].last_index))
    for directory, found, group in rows:
        voters = ",".join(str(voter) for voter in group.voters)
        history = ", recovered" if group.recovered else ""
        print(
            f"cluster {found.cluster} group {group.group} server {found.server}: last {group.last_term}:{group.last_index} "
            f"(term:index), commit {group.commit}, term {group.term}, snapshot {group.snapshot}, voters {voters}, "
            f"lineage {group.lineage}{history}  {directory}",
            file=out,
        )
    return is_whole


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """The command. 0: done; 1: refused; 2: called wrongly."""
    parser = _parser()
    options = parser.parse_args(arguments)
    wanted = (options.cluster, options.id, options.group, options.last)
    if all(value is None for value in wanted) and not options.accepted:
        return 0 if _show(options.directories, sys.stdout) else 1
    if any(value is None for value in wanted) or len(options.directories) != 1:
        parser.error("to recover takes one DIRECTORY, --cluster, --id, --group and --last")
    directory = options.directories[0]
    print(RISK)
    print()
    if not options.accepted:
        print("Nothing was done. If this is what you want, add --i-accept-that-data-may-be-lost.", file=sys.stderr)
        return 1
    if not _show([directory], sys.stdout):
        return 1
    try:
        recover(directory, cluster=options.cluster, server=options.id, group=options.group, last=options.last)
    except RaftError as error:
        print(error, file=sys.stderr)
        return 1
    print("Recovered:")
    _show([directory], sys.stdout)
    print(
        f"Server {options.id} is the only member of group {options.group}. Start it, look at your data, and add new servers "
        "under ids that were never used. The others come back only so, with empty directories."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
