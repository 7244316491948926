"""Every server serves the client module; only the demo serves the chat page."""

from pathlib import Path

CLIENT = Path(__file__).parents[2] / "clients/js/client.js"


def test_every_server_serves_the_client_module_and_only_the_demo_serves_the_page(server):
    client = server.client.get("/lapse/client.js")
    assert client.text == CLIENT.read_text("utf-8")
    assert client.headers["content-type"].startswith("text/javascript")
    known = {"if-none-match": client.headers["etag"]}
    assert server.client.get("/lapse/client.js", headers=known).status_code == 304
    assert server.client.get("/").headers["location"].endswith("/dev-ui/")
    assert server.client.get("/lapse/demo/chat.js").status_code == 404
