"""Take the pictures of the page that the guide to serving shows: ``docs/images/page-*.png``.

    python scripts/make_screenshots.py [--model mini]

Needs Chromium (``make chromium``). The texts are what the model writes with seed 0, not chosen.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from playwright.sync_api import Page, expect, sync_playwright

from diffutron.testing.process import ServerProcess

IMAGES = Path(__file__).parents[1] / "docs" / "images"
SURPRISING = "Çocuklar sabah erkenden okula gitti, öğretmen ise balkabağı."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini")
    model = parser.parse_args().model
    IMAGES.mkdir(exist_ok=True)
    server = ServerProcess(model)
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            wide = browser.new_page(locale="tr-TR", viewport={"width": 900, "height": 700})
            wide.goto(server.url)
            write(wide)
            half_way(wide)
            wide.screenshot(path=IMAGES / "page-emerging.png")
            wide.get_by_role("tab", name="Şaşkınlık").click()
            wide.get_by_label("Sözcük sözcük").fill(SURPRISING)
            wide.get_by_role("button", name="Başla").click()
            expect(wide.locator("#scores")).to_contain_text("bit / karakter", timeout=120_000)
            wide.screenshot(path=IMAGES / "page-surprise.png")
            phone = browser.new_page(locale="en-GB", viewport={"width": 390, "height": 800}, color_scheme="dark")
            phone.goto(server.url)
            write(phone)
            for place in (1, 2):
                phone.locator("#canvas button.cell").nth(place).click()
            phone.screenshot(path=IMAGES / "page-phone-dark.png")
    finally:
        server.stop()


def write(page: Page) -> None:
    page.locator("#write [name=prompt]").fill("Türkiye'nin güneyinde")
    page.locator("#go").click()
    expect(page.locator("#stop")).to_be_disabled(timeout=120_000)


def half_way(page: Page) -> None:
    slider = page.locator("#slider")
    slider.fill(str(int(slider.get_attribute("max") or 2) // 2))


if __name__ == "__main__":
    main()
