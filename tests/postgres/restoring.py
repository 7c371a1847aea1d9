"""A database that is restored to an older copy of itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from tests.conftest import Connect, Server, make_url
from tests.postgres.proxy import Proxy

TERMINATE = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = $1"


class Restored:
    """A database that is copied, and later replaced by the copy, while nobody gets through to it."""

    def __init__(self, proxy: Proxy, admin: asyncpg.Connection, name: str) -> None:
        self.proxy = proxy
        self._admin = admin
        self._name = name

    async def copy(self) -> None:
        async with self._nobody_there():
            await self._admin.execute(f'CREATE DATABASE "{self._name}_copy" TEMPLATE "{self._name}"')

    async def restore(self) -> None:
        async with self._nobody_there():
            await self._admin.execute(f'DROP DATABASE "{self._name}"')
            await self._admin.execute(f'ALTER DATABASE "{self._name}_copy" RENAME TO "{self._name}"')

    @asynccontextmanager
    async def _nobody_there(self) -> AsyncIterator[None]:
        await self.proxy.close()
        await self._admin.fetch(TERMINATE, self._name)
        yield
        await self.proxy.open()


@asynccontextmanager
async def restorable(server: Server, database_url: str, connect: Connect) -> AsyncIterator[Restored]:
    admin = await connect(
        make_url(server.host, server.port, server.user, server.password, server.maintenance_dbname)
    )
    async with Proxy.to(database_url) as proxy:
        yield Restored(proxy, admin, proxy.url.rpartition("/")[2])
