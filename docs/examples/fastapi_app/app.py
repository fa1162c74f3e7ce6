"""A FastAPI app whose settings come from envd and change without a restart."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request

import envd

ENVIRONMENT = os.environ.get("APP_ENVIRONMENT", "shop/prod")


@asynccontextmanager
async def settings(app: FastAPI) -> AsyncIterator[None]:
    """Follow the environment for as long as the app runs."""
    async with envd.connect() as client:
        app.state.env = await client.environment(ENVIRONMENT)
        app.state.env.require("GREETING")
        yield


app = FastAPI(lifespan=settings)


@app.get("/")
async def greet(request: Request) -> dict[str, object]:
    env = request.app.state.env
    return {"greeting": env["GREETING"], "page_size": env.int("PAGE_SIZE", default=20)}


@app.get("/healthz")
async def health(request: Request) -> dict[str, object]:
    """Stale settings are worth knowing, and no reason to be restarted."""
    env = request.app.state.env
    return {"ok": True, "revision": env.revision, "stale": env.stale, "age_s": env.age_s}
