"""Everything runs on both loops that uvicorn may take: each holds bytes in a way of its own."""

import asyncio

import uvloop


def pytest_asyncio_loop_factories():
    return {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}
