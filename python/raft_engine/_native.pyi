"""The native part. Private, but for `Entry`, which `raft_engine` exports."""

from typing import Any, Optional, final

__version__: str

@final
class Entry:
    """One committed entry: bytes that somebody proposed."""

    def __new__(cls, index: int, term: int, log_time: int, data: bytes) -> Entry: ...
    @property
    def index(self) -> int:
        """Its place in the log. Grows, with gaps where the engine's own entries are."""
    @property
    def term(self) -> int:
        """The term of the leader that made it."""
    @property
    def log_time(self) -> int:
        """The group's own time when it was made, in nanoseconds since the group was formed; no wall clock is in it."""
    @property
    def data(self) -> bytes:
        """What was proposed."""

@final
class SnapshotReader:
    @property
    def index(self) -> int: ...
    @property
    def term(self) -> int: ...
    def read(self, size: int) -> bytes: ...

@final
class Server:
    @staticmethod
    def open(cluster: str, id: int, data_dir: str, listen: str, settings: list[tuple[str, str]]) -> Server: ...
    def start_group(
        self, group: int, bridge: Any, applied_index: int, members: Optional[list[tuple[int, str, bytes]]]
    ) -> Group: ...
    def dispatch(self, max: int, timeout_seconds: float) -> bool: ...
    def status(self) -> dict[str, Any]: ...
    def close(self) -> None: ...

@final
class Group:
    def propose(self, first_tag: int, items: list[Any]) -> None: ...
    def query(self, tag: int, request: Any, freshness: str, index: int) -> None: ...
    def read(self, tag: int, freshness: str, index: int) -> None: ...
    def snapshot(self, tag: int) -> None: ...
    def status(self) -> Optional[dict[str, Any]]: ...
