"""What a browser is given: the client wherever Lapse is, the chat page where the demo is."""

from pathlib import Path

import httpx

from lapse.verify.server import Server

CLIENT = Path(__file__).parents[2] / "clients/js/client.js"


def test_every_server_has_the_client_and_only_the_demo_the_page(server):
    client = server.client.get("/lapse/client.js")
    assert client.text == CLIENT.read_text("utf-8")
    assert client.headers["content-type"].startswith("text/javascript")
    known = {"if-none-match": client.headers["etag"]}
    assert server.client.get("/lapse/client.js", headers=known).status_code == 304
    assert server.client.get("/").headers["location"].endswith("/dev-ui/")
    assert server.client.get("/lapse/demo/chat.js").status_code == 404


async def test_the_page_trusts_no_other_and_names_its_guest_once():
    async with Server() as demo:
        await demo.start()
        async with httpx.AsyncClient(base_url=demo.url, trust_env=False) as client:
            page = await client.get("/")
            guest = client.cookies["lapse_demo_user"]
            again = await client.get("/")
            asset = await client.get("/lapse/demo/chat.js")
            beyond = await client.get("/lapse/demo/..%2f..%2fpage.py")
            client.cookies.set("lapse_demo_user", '"><script>')
            forged = await client.get("/")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert f'data-user="{guest}"' in page.text
    assert f'data-user="{guest}"' in again.text
    assert (asset.status_code, beyond.status_code) == (200, 404)
    assert "<script>" not in forged.text
