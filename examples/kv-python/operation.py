"""What an operator wants done: on its way from the table of commands to the engine."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Kind(enum.Enum):
    """What is to be done."""

    ADD = 1
    REMOVE = 2
    CANCEL = 3
    TRANSFER = 4  # without an id: to the best voter
    SNAPSHOT = 5  # of this server, whoever leads
    DIGEST = 6  # compares the replicas


@dataclass(frozen=True)
class Operation:
    """One request of an operator."""

    kind: Kind
    id: int = 0
    is_learner: bool = False
    raft_address: str = ""
    resp_address: str = ""
