"""Takes the pictures of the pages in a real Chromium: light, dark and on a phone."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from lived import keep, live
from PIL import Image
from playwright.async_api import Browser, Page, async_playwright

from lapse.retention.policy import parse_policy
from lapse.store import store_from_url
from lapse.testing.server import Server
from postgres import own_server
from serving import serving

DESK: dict[str, Any] = {"viewport": {"width": 1280, "height": 800}}
PHONE: dict[str, Any] = {
    "viewport": {"width": 390, "height": 844},
    "device_scale_factor": 2,
    "has_touch": True,
    "is_mobile": True,
}
POLICY = """
[default]
idle = "90d"
archive = "365d"

[apps."concierge"]
idle = "3d"
archive = "180d"
per_user = 50
"""
NARROW = {"width": 360, "height": 780}


async def opened(browser: Browser, url: str, **how: Any) -> Page:
    """Open the page in a context of its own; whatever moves comes to rest."""
    context = await browser.new_context(reduced_motion="reduce", locale="en-GB", **how)
    page = await context.new_page()
    await page.goto(url)
    await page.wait_for_selector("#life[data-status=waiting]")
    return page


async def ask(page: Page, text: str) -> None:
    """Say something and wait for the whole answer."""
    await page.fill("#text", text)
    await page.click(".send")
    await page.wait_for_selector("#composer[aria-busy=false]")
    await page.wait_for_selector("#list [data-status=used]")


async def take(folder: Path) -> None:
    """Write the pictures into a folder."""
    async with (
        Server(SESSION_CLEANUP_TTL_MINUTES="0.1") as server,
        async_playwright() as playwright,
    ):
        await server.start()
        browser = await playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        light = await opened(browser, server.url, color_scheme="light", **DESK)
        await ask(light, "A table for 4, please")
        await ask(light, "Thank you")
        await light.screenshot(path=folder / "light.png")
        phone = await opened(browser, server.url, color_scheme="light", **PHONE)
        await phone.get_by_role("button", name="Keep it").wait_for()
        await phone.screenshot(path=folder / "phone.png")
        dark = await opened(browser, server.url, color_scheme="dark", **DESK)
        await dark.fill("#text", "A table for 2")
        await dark.get_by_role("button", name="Bring it back").wait_for()
        await dark.screenshot(path=folder / "dark.png")
        await browser.close()


WAYS = (
    ("light", {"color_scheme": "light", **DESK}),
    ("dark", {"color_scheme": "dark", **DESK}),
    ("phone", {"color_scheme": "light", **PHONE, "viewport": NARROW, "device_scale_factor": 1}),
)


async def operators(browser: Browser, url: str, token: str, picture: Path, **how: Any) -> Page:
    """Open the operators' pages, take a picture of the log-in, and log in."""
    context = await browser.new_context(reduced_motion="reduce", locale="en-GB", **how)
    page = await context.new_page()
    await page.goto(f"{url}/lapse/")
    await page.screenshot(path=picture)
    shrink(picture)
    await page.get_by_label("Your name").fill("ann")
    await page.get_by_label("Token").fill(token)
    await page.get_by_role("button", name="Log in").click()
    await page.locator(".verdicts").wait_for()
    return page


def shrink(path: Path) -> None:
    """Write a picture again with few colours."""
    with Image.open(path) as picture:
        picture.convert("RGB").quantize(256).save(path, optimize=True)


async def take_operators(folder: Path) -> None:
    """Write the pictures of the operators' pages into a folder: busy, empty, and on a bad day."""
    token = secrets.token_hex()
    (folder / "operators").mkdir(exist_ok=True)
    policy = folder / "policy.toml"
    policy.write_text(POLICY, "utf-8")
    for state, settings in (
        ("busy", {"LAPSE_RETENTION_FILE": str(policy.absolute())}),
        ("empty", {}),
        ("bad-day", {"LAPSE_SWEEPER": "off"}),
    ):
        async with (
            Server(LAPSE_ADMIN_TOKEN=token, **settings) as server,
            async_playwright() as playwright,
        ):
            if state != "empty":
                store = store_from_url(f"sqlite:///{server.store}")
                await live(store)
                if state == "busy":
                    await keep(store, parse_policy(POLICY))
                await store.close()
            await server.start()
            browser = await playwright.chromium.launch(
                executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
            )
            for name, how in WAYS:
                log_in = folder / "operators" / f"log-in-{name}.png"
                page = await operators(browser, server.url, token, log_in, **how)
                if state != "bad-day":
                    await page.get_by_text("Sweeper ran").wait_for()
                for title, path in PAGES[state]:
                    await page.goto(f"{server.url}/lapse/{path}")
                    if title == "session":
                        await page.locator(".rows .id").first.click()
                        await page.locator(".timeline").wait_for()
                    if title == "bulk":
                        await page.get_by_label("all on this page").check()
                        await page.get_by_role("button", name="Expire now selected…").click()
                        await page.get_by_role("button", name="Expire now").wait_for()
                    picture = folder / "operators" / f"{state}-{title}-{name}.png"
                    whole = name != "phone" and title != "sessions"
                    await page.screenshot(path=picture, full_page=whole)
                    shrink(picture)
            await browser.close()
    policy.unlink()


async def take_down(folder: Path) -> None:
    """Write the pictures of the operators' pages while their store does not answer."""
    token = secrets.token_hex()
    with (
        tempfile.TemporaryDirectory() as scratch,
        own_server() as database,
        serving(Path(scratch), LAPSE_STORE_URL=database.url, LAPSE_ADMIN_TOKEN=token) as server,
    ):
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(
                executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
            )
            log_in = Path(scratch) / "log-in.png"
            pages = [
                (name, await operators(browser, server.url, token, log_in, **how))
                for name, how in WAYS
            ]
            database.stop()
            for name, page in pages:
                for title, path in PAGES["down"]:
                    await page.goto(f"{server.url}/lapse/{path}")
                    picture = folder / "operators" / f"down-{title}-{name}.png"
                    await page.screenshot(path=picture, full_page=name != "phone")
                    shrink(picture)
            await browser.close()
            database.start()


PAGES: dict[str, tuple[tuple[str, str], ...]] = {
    "busy": (
        ("overview", ""),
        ("weeks", "?range=5w"),
        ("sessions", "sessions"),
        ("session", "sessions?status=expired"),
        ("bulk", "sessions?status=waiting"),
        ("sweep", "sweep"),
        ("retention", "retention"),
        ("acts", "acts"),
        ("help", "help"),
    ),
    "empty": (
        ("overview", ""),
        ("sessions", "sessions"),
        ("acts", "acts"),
        ("retention", "retention"),
    ),
    "bad-day": (("overview", ""), ("unknown", "no/such/page")),
    "down": (("overview", ""), ("sessions", "sessions")),
}


if __name__ == "__main__":
    pictures = Path(sys.argv[1])
    pictures.mkdir(parents=True, exist_ok=True)
    asyncio.run(take(pictures))
    asyncio.run(take_operators(pictures))
    asyncio.run(take_down(pictures))
