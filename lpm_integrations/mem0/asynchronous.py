"""`AsyncMemory`: the calls of `Memory` for an event loop, over the same core."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Any, Self

from lpm_integrations.mem0.client import Memory

__all__ = ["AsyncMemory"]


class AsyncMemory:
    """`Memory` whose calls run in a thread: same arguments, same results, same errors. Also an async context manager."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._memory = Memory(*arguments, **options)

    @classmethod
    async def from_config(cls, config: Mapping[str, Any]) -> Self:
        """`Memory.from_config`; opening the model does not block the event loop."""
        made = cls.__new__(cls)
        made._memory = await asyncio.to_thread(Memory.from_config, config)
        return made

    async def add(self, *arguments: Any, **options: Any) -> Any:
        """See `Memory.add`."""
        return await asyncio.to_thread(partial(self._memory.add, *arguments, **options))

    async def search(self, *arguments: Any, **options: Any) -> Any:
        """See `Memory.search`."""
        return await asyncio.to_thread(partial(self._memory.search, *arguments, **options))

    async def get(self, memory_id: str) -> dict[str, Any] | None:
        """See `Memory.get`."""
        return await asyncio.to_thread(self._memory.get, memory_id)

    async def get_all(self, *arguments: Any, **options: Any) -> Any:
        """See `Memory.get_all`."""
        return await asyncio.to_thread(partial(self._memory.get_all, *arguments, **options))

    async def update(self, *arguments: Any, **options: Any) -> dict[str, str]:
        """See `Memory.update`."""
        return await asyncio.to_thread(partial(self._memory.update, *arguments, **options))

    async def delete(self, memory_id: str) -> dict[str, str]:
        """See `Memory.delete`."""
        return await asyncio.to_thread(self._memory.delete, memory_id)

    async def delete_all(self, *arguments: Any, **options: Any) -> dict[str, str]:
        """See `Memory.delete_all`."""
        return await asyncio.to_thread(partial(self._memory.delete_all, *arguments, **options))

    async def history(self, memory_id: str) -> list[dict[str, Any]]:
        """See `Memory.history`."""
        return await asyncio.to_thread(self._memory.history, memory_id)

    async def reset(self) -> dict[str, str]:
        """See `Memory.reset`."""
        return await asyncio.to_thread(self._memory.reset)

    async def update_project(self, **settings: Any) -> dict[str, str]:
        """See `Memory.update_project`."""
        return self._memory.update_project(**settings)

    async def close(self) -> None:
        """See `Memory.close`."""
        await asyncio.to_thread(self._memory.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
