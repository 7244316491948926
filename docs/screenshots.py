"""Takes the pictures of the pages in a real Chromium: light, dark and on a phone."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import sys
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, Page, async_playwright

from lapse.store import store_from_url
from lapse.verify.server import Server
from lived import live

DESK: dict[str, Any] = {"viewport": {"width": 1280, "height": 800}}
PHONE: dict[str, Any] = {
    "viewport": {"width": 390, "height": 844},
    "device_scale_factor": 2,
    "has_touch": True,
    "is_mobile": True,
}
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


async def take_operators(folder: Path) -> None:
    """Write the pictures of the operators' pages into a folder."""
    token = secrets.token_hex()
    async with Server(LAPSE_ADMIN_TOKEN=token) as server, async_playwright() as playwright:
        store = store_from_url(f"sqlite:///{server.store}")
        await live(store)
        await store.close()
        await server.start()
        browser = await playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        for name, how in (
            ("light", {"color_scheme": "light", **DESK}),
            ("dark", {"color_scheme": "dark", **DESK}),
            ("phone", {"color_scheme": "light", **PHONE, "viewport": NARROW}),
        ):
            context = await browser.new_context(reduced_motion="reduce", locale="en-GB", **how)
            page = await context.new_page()
            await page.goto(f"{server.url}/lapse/")
            await page.get_by_label("Your name").fill("ann")
            await page.get_by_label("Token").fill(token)
            await page.get_by_role("button", name="Log in").click()
            # A sweeper has run, and the page has noticed.
            await page.get_by_text("Sweeper ran").wait_for()
            await page.screenshot(path=folder / f"operators-{name}.png", full_page=True)
            await page.goto(f"{server.url}/lapse/sessions?status=expired")
            await page.screenshot(path=folder / f"operators-{name}-sessions.png")
            await page.get_by_role("link", name="Resurrect").first.click()
            await page.get_by_role("button", name="Resurrect").click()
            await page.get_by_text("The session waits again.").wait_for()
            await page.screenshot(path=folder / f"operators-{name}-session.png", full_page=True)
        await browser.close()


if __name__ == "__main__":
    pictures = Path(sys.argv[1])
    pictures.mkdir(parents=True, exist_ok=True)
    asyncio.run(take(pictures))
    asyncio.run(take_operators(pictures))
