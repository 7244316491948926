"""An application on a real socket, served by uvicorn in a thread of this process."""

import asyncio
import threading
from contextlib import AbstractContextManager

import httpx
import uvicorn

import prefixed


class Served(AbstractContextManager):
    """Serves inside its context; `loop` is the server's, for what has to run on it."""

    def __init__(self, app, **options):
        self.app = app
        # As `lapse serve`: a forwarded address is Lapse's to judge, not uvicorn's.
        served = prefixed.below(app, prefixed.prefix) if prefixed.prefix else app
        config = uvicorn.Config(served, port=0, log_config=None, proxy_headers=False, **options)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._serve)
        self._started = threading.Event()

    def _serve(self):
        startup = self._server.startup

        async def announced(sockets=None):
            await startup(sockets)
            self.loop = asyncio.get_running_loop()
            self._started.set()

        self._server.startup = announced
        self._server.run()
        self._started.set()

    def __enter__(self):
        self._thread.start()
        assert self._started.wait(30)
        port = self._server.servers[0].sockets[0].getsockname()[1]
        self.origin = f"http://127.0.0.1:{port}"
        self.url = self.origin + prefixed.prefix
        self.client = httpx.Client(base_url=self.url, timeout=30, trust_env=False)
        return self

    def __exit__(self, *_):
        self._server.should_exit = True
        self._thread.join(30)
        assert not self._thread.is_alive()
        self.client.close()
