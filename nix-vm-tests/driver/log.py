"""What a run says: kept, and shown when the script fails, or at once when somebody wants to look on."""

import contextlib
import sys
import time
from collections.abc import Iterator


class Log:
    """The framework's `log`, as far as scripts use it."""

    def __init__(self, shown: bool) -> None:
        self._shown = shown
        self._lines: list[str] = []
        self._begin = time.monotonic()

    def log(self, msg: str) -> None:
        """A line."""
        line = f"{time.monotonic() - self._begin:8.2f}  {msg}"
        self._lines.append(line)
        if self._shown:
            print(line, file=sys.stderr, flush=True)

    info = warning = error = log

    @contextlib.contextmanager
    def nested(self, msg: str) -> Iterator[None]:
        """A line before something that may take a while, and one after it if it took long."""
        self.log(msg)
        begin = time.monotonic()
        yield
        took = time.monotonic() - begin
        if took > 1:
            self.log(f"(it took {took:.1f} s)")

    def last(self, most: int) -> str:
        """The end of it, if nobody has seen it yet."""
        return "" if self._shown else "\n".join(self._lines[-most:])
