"""The page in a real browser: a text emerges, one steps back, hides a word and has it filled again."""

import json
import re
import shutil

import pytest
from playwright.sync_api import expect, sync_playwright

from diffutron.testing.process import ServerProcess

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no chromium; make chromium brings it")]


@pytest.fixture(scope="module")
def server():
    server = ServerProcess("mini")
    yield server
    server.stop()


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(server, browser):
    context = browser.new_context(locale="tr-TR", viewport={"width": 1000, "height": 900})
    page = context.new_page()
    faults = []
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    outside = []
    page.on("request", lambda request: outside.append(request.url) if server.url not in request.url else None)
    page.goto(server.url)
    yield page
    assert not [each for each in faults if "the server responded with a status" not in each], faults
    assert not [each for each in outside if not each.startswith("data:")]  # nothing is fetched from elsewhere
    context.close()


def write(page, prompt="Ankara", length=12):
    page.get_by_label("Metnin başı").fill(prompt)
    page.locator("#write [name=max_tokens]").fill(str(length))
    page.get_by_role("button", name="Başla").click()
    expect(page.locator("#status")).to_contain_text("adımda bitti", timeout=60_000)


def test_a_text_emerges_and_one_can_step_back(page):
    write(page)
    canvas, slider = page.locator("#canvas"), page.locator("#slider")
    last = int(slider.get_attribute("max"))
    assert last > 3
    assert "░" not in canvas.inner_text()
    whole = canvas.inner_text()
    slider.focus()
    slider.press("Home")
    expect(page.locator("#step-number")).to_have_text(f"1 / {last}")
    assert canvas.inner_text().count("░") >= last - 2
    assert canvas.inner_text().startswith("Ankara")
    slider.press("End")
    assert canvas.inner_text() == whole
    colours = page.eval_on_selector_all(
        "#canvas .cell:not(.given)", "all => all.map(e => getComputedStyle(e).borderBottomColor)"
    )
    assert len(set(colours)) > 1  # confidence is a colour


def test_a_word_is_hidden_and_filled_again(page):
    write(page)
    before = page.locator("#canvas").inner_text()
    expect(page.locator("#refill")).to_be_disabled()
    words = page.locator("#canvas button.cell")
    words.nth(1).focus()
    page.keyboard.press("Enter")
    expect(words.nth(1)).to_have_attribute("aria-pressed", "true")
    page.get_by_role("button", name="Seçilenleri yeniden doldur").click()
    expect(page.locator("#status")).to_contain_text("adımda bitti", timeout=60_000)
    after = page.locator("#canvas").inner_text()
    assert after.startswith("Ankara")
    assert "MASK" not in after
    assert len(set(before.split()) & set(after.split())) >= len(before.split()) - 3


def test_what_goes_wrong_with_a_refill_leaves_the_text_there(page):
    write(page)
    whole = page.locator("#canvas").inner_text()
    page.locator("#canvas button.cell").nth(1).click()
    again = page.get_by_role("button", name="Seçilenleri yeniden doldur")
    page.route("**/v1/infill", lambda route: route.fulfill(status=429, json={"error": {"message": "too many wait"}}))
    again.click()
    expect(page.locator("#status")).to_contain_text("too many wait")
    assert page.locator("#canvas").inner_text() == whole
    page.unroute("**/v1/infill")
    page.route("**/v1/infill", lambda route: route.fulfill(status=200, content_type="text/event-stream", body=""))
    again.click()
    expect(page.locator("#status")).to_contain_text("bağlantı koptu")
    assert page.locator("#canvas").inner_text() == whole


def test_every_tool_answers(page):
    page.get_by_role("tab", name="Arayı doldur").click()
    page.get_by_label("Öncesi").fill("Bugün hava ")
    page.get_by_label("Sonrası").fill(" olacak.")
    page.locator("#between [name=max_tokens]").fill("3")
    page.get_by_role("button", name="Başla").click()
    expect(page.locator("#status")).to_contain_text("adımda bitti", timeout=60_000)
    assert re.match(r"Bugün hava .+ olacak\.", page.locator("#canvas").inner_text())
    page.get_by_role("tab", name="Maske").click()
    page.get_by_label("[MASK] içeren metin").fill("Ankara, Türkiye'nin [MASK].")
    page.get_by_role("button", name="Başla").click()
    expect(page.locator("#ways li")).to_have_count(8, timeout=60_000)
    page.get_by_role("tab", name="Sohbet").click()
    page.get_by_label("Soru").fill("Türkiye'nin başkenti neresidir?")
    page.get_by_role("button", name="Başla").click()
    expect(page.locator("#talk li")).to_have_count(2, timeout=60_000)
    page.get_by_role("tab", name="Şaşkınlık").click()
    page.get_by_label("Sözcük sözcük").fill("Çocuklar okula gitti.")
    page.get_by_role("button", name="Başla").click()
    expect(page.locator("#words .cell")).to_have_count(3, timeout=60_000)
    expect(page.locator("#scores")).to_contain_text("bit / karakter")


def test_a_fault_is_told_on_the_page(page):
    page.get_by_role("tab", name="Maske").click()
    page.get_by_label("[MASK] içeren metin").fill("maskesiz")
    page.get_by_role("button", name="Başla").click()
    expect(page.locator("#status")).to_contain_text("the text has no mask")
    expect(page.locator("#status")).to_have_class("error")


def test_writing_can_be_stopped(page, server):
    page.locator("#write [name=max_tokens]").fill("400")
    page.get_by_role("button", name="Başla").click()
    expect(page.locator("#result")).to_be_visible(timeout=60_000)
    page.get_by_role("button", name="Durdur").click()
    expect(page.locator("#status")).to_have_text("Durduruldu")
    page.wait_for_timeout(1500)
    assert server.metric("rows_active") == 0
    # What a stopped text still hides is asked for again with the chosen words, and nothing is glued together.
    page.locator("#canvas button").first.click()
    with page.expect_request("**/v1/infill") as sent:
        page.locator("#refill").click()
    text = json.loads(sent.value.post_data)["text"]
    assert sum(int(size) for size in re.findall(r"\[MASK:(\d+)\]", text)) > 200


def test_it_is_usable_with_the_keyboard_alone_and_in_english(page):
    for _ in range(4):
        page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.getAttribute('role')") == "tab"
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.id") == "tab-between"
    expect(page.locator("#between")).to_be_visible()
    page.get_by_role("button", name="English").press("Enter")
    expect(page.get_by_role("tab", name="Fill between")).to_have_attribute("aria-selected", "true")
    assert page.evaluate("document.documentElement.lang") == "en"
    page.reload()
    expect(page.get_by_role("button", name="English")).to_have_attribute("aria-pressed", "true")
    nameless = page.evaluate(
        """[...document.querySelectorAll('input, textarea, select, button')].filter(each =>
             !each.labels?.length && !each.textContent.trim() && !each.getAttribute('aria-label')
           ).map(each => each.outerHTML)"""
    )
    assert nameless == []


def test_it_fits_a_phone_and_the_dark(server, browser):
    context = browser.new_context(
        viewport={"width": 360, "height": 740}, color_scheme="dark", locale="tr-TR", has_touch=True
    )
    page = context.new_page()
    page.goto(server.url)
    page.locator("summary").click()
    write(page, length=20)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    ground, ink = (page.evaluate(f"getComputedStyle(document.body).{name}") for name in ("backgroundColor", "color"))
    assert contrast(ground, ink) > 7
    assert contrast("rgb(255, 255, 255)", ground) > 7  # it is dark
    small = page.eval_on_selector_all(
        "button:not(.cell)", "all => all.filter(e => e.offsetParent && e.getBoundingClientRect().height < 40).length"
    )
    assert small == 0
    context.close()


def contrast(one, other):
    def light(colour):
        parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
        red, green, blue = (part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    low, high = sorted((light(one), light(other)))
    return (high + 0.05) / (low + 0.05)
