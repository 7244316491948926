"""Takes the pictures of the demo's page in a real Chromium: light, dark and on a phone."""

from __future__ import annotations

import asyncio
import shutil
import sys
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, Page, async_playwright

from lapse.verify.server import Server

DESK: dict[str, Any] = {"viewport": {"width": 1280, "height": 800}}
PHONE: dict[str, Any] = {
    "viewport": {"width": 390, "height": 844},
    "device_scale_factor": 2,
    "has_touch": True,
    "is_mobile": True,
}


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


if __name__ == "__main__":
    pictures = Path(sys.argv[1])
    pictures.mkdir(parents=True, exist_ok=True)
    asyncio.run(take(pictures))
