"""The services that other tests stand on are the real ones, fresh for every test."""

from __future__ import annotations

import asyncpg
import pytest
import redis.asyncio


@pytest.mark.redis
async def test_redis_is_real_and_empty(redis_url: str) -> None:
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        assert await client.dbsize() == 0
        assert int((await client.info("server"))["redis_version"].split(".")[0]) >= 7


@pytest.mark.postgres
async def test_postgresql_is_real_and_empty(postgres_url: str) -> None:
    connection = await asyncpg.connect(postgres_url.replace("+asyncpg", ""))
    try:
        assert await connection.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 0
    finally:
        await connection.close()
