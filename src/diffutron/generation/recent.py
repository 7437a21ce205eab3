"""What was made lately, so that it need not be made again; older things go, or a server would keep them for ever."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Recent(Generic[K, V]):
    """The last ``most`` values that were asked for, by their keys; any thread may ask."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._values: dict[K, V] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: K, make: Callable[[], V]) -> V:
        """The value of ``key``, made if it is not there; two threads that ask at once may both make it."""
        with self._lock:
            if key in self._values:
                value = self._values[key] = self._values.pop(key)
                return value
        value = make()
        with self._lock:
            self._values.pop(key, None)
            self._values[key] = value
            if len(self._values) > self.most:
                del self._values[next(iter(self._values))]
        return value
