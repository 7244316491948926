"""A fake of Gemini's API on this machine: it calls one tool, as an attacker would ask it to."""

from __future__ import annotations

import json
import threading
from contextlib import AbstractContextManager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Gemini(AbstractContextManager):
    """Answers a message with one call of a tool, and the tool's result with that result as text.

    Attributes:
        asked: the number of requests so far.
    """

    def __init__(self, tool, **arguments):
        call = {"functionCall": {"name": tool, "args": arguments}}
        self.asked = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                outer.asked += 1
                length = int(self.headers["Content-Length"])
                parts = json.loads(self.rfile.read(length))["contents"][-1]["parts"]
                said = next((part for part in parts if "functionResponse" in part), None)
                part = call if said is None else {"text": json.dumps(said)}
                content = {"role": "model", "parts": [part]}
                told = {"candidates": [{"content": content, "finishReason": "STOP"}]}
                body = json.dumps(told).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                """Write no log."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self.settings = {
            "GOOGLE_GEMINI_BASE_URL": f"http://127.0.0.1:{self._server.server_address[1]}",
            "GOOGLE_API_KEY": "any",
            "GOOGLE_GENAI_USE_VERTEXAI": "false",
        }

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
