"""The report as a reader uses it, in a real browser: what is drawn and counted is what the data says."""

import io
import json

import numpy as np
import pytest
from counted_by_hand import DETECTIONS, write_dataset
from PIL import Image

from mrcnn_tf.config.settings import DataConfig
from mrcnn_tf.explain.inspection.inspect_data import inspect_data, read_detections

HOSTILE = ("</script><script>window.hacked=1</script>", "<img src=x onerror=window.hacked=1>\" ' & 写真 ünïcode")
HOSTILE_FILE = "</script><b onmouseover=window.hacked=1>.png"


@pytest.fixture(scope="module")
def report(dataset, tmp_path_factory):
    path, images, found = dataset
    out = tmp_path_factory.mktemp("report") / "the report.html"
    inspect_data(DataConfig(str(path), str(images)), out, detections=read_detections(found), progress=False)
    return out


@pytest.fixture(scope="module")
def plain_report(dataset, tmp_path_factory):
    out = tmp_path_factory.mktemp("plain") / "report.html"
    inspect_data(DataConfig(str(dataset[0]), str(dataset[1])), out, progress=False)
    return out


@pytest.fixture(scope="module")
def hostile_report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    path, images = write_dataset(folder, HOSTILE, ("a \"b\" <i>c & 'd'.png", "two.png", "x" * 180 + ".jpg"))
    data = json.loads(path.read_text())
    data["images"][1]["file_name"] = HOSTILE_FILE
    path.write_text(json.dumps(data))
    out = folder / "report.html"
    inspect_data(DataConfig(str(path), str(images)), out, detections=DETECTIONS, progress=False)
    return out


def count(browser, selector):
    return browser.execute_script("return document.querySelectorAll(arguments[0]).length", selector)


def text(browser, selector):
    return browser.execute_script("return document.querySelector(arguments[0]).textContent", selector)


def see(browser, selector):
    """Brings an element to the middle of the window and waits until what is lazy has been drawn."""
    script = """
        const done = arguments[1];
        document.querySelector(arguments[0]).scrollIntoView({block: "center"});
        requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 60)));
    """
    browser.execute_async_script(script, selector)


def click(browser, selector):
    see(browser, selector)
    browser.find_element("css selector", selector).click()


def slide(browser, steps):
    """Moves the slider by the keyboard: to 0 and that many hundredths up."""
    from selenium.webdriver.common.keys import Keys

    slider = browser.find_element("id", "threshold")
    slider.send_keys(Keys.HOME)
    slider.send_keys(Keys.ARROW_RIGHT * steps)


def drawn(browser, place, side, what=""):
    """Elements in the picture of the image at a place of the json's order that the report has."""
    view = 1 if side == "truth" else 2
    return count(browser, f"[data-place='{place}'] .view:nth-child({view}) .overlay .{side} {what}".strip())


def places(browser):
    """{file name: place} of the cards."""
    script = (
        "return [...document.querySelectorAll('.card')].map(c => [c.querySelector('h3').textContent, c.dataset.place])"
    )
    return dict(browser.execute_script(script))


def test_opens_without_errors_and_asks_for_nothing_but_the_file(open_page, report):
    browser = open_page(report)
    see(browser, "#images .card")
    assert [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    assert [url for url in asked if not url.startswith("data:")] == [report.resolve().as_uri()]
    assert count(browser, "#images .card .frame img") == 4  # two readable images on both sides


def test_the_policy_stops_scripts_and_connections_of_anything_that_got_in(open_page, report):
    browser = open_page(report)
    script = """
        const done = arguments[0], seen = [];
        document.addEventListener("securitypolicyviolation", (event) => seen.push(event.effectiveDirective));
        const script = document.createElement("script");
        script.textContent = "window.hacked = 1";
        document.body.append(script);
        const image = document.createElement("img");
        image.src = "http://127.0.0.1:9/x.png";
        document.body.append(image);
        fetch("http://127.0.0.1:9/").catch(() => setTimeout(() => done([window.hacked ?? null, seen.sort()]), 50));
    """
    assert browser.execute_async_script(script) == [None, ["connect-src", "img-src", "script-src-elem"]]


# Of a threshold in hundredths: detections, right, wrong, missed. A score at the threshold is still in.
COUNTS = {
    0: (5, 2, 3, 2),
    30: (5, 2, 3, 2),
    31: (4, 2, 2, 2),
    60: (4, 2, 2, 2),
    61: (3, 1, 2, 3),
    90: (1, 1, 0, 3),
    91: (0, 0, 0, 4),
}


def test_the_slider_redraws_overlays_and_counts_exactly(open_page, report):
    browser = open_page(report)
    for steps, (detections, right, wrong, missed) in COUNTS.items():
        slide(browser, steps)
        see(browser, "#images .card")
        assert text(browser, ".slider output") == f"{steps / 100:.2f}"
        line = f"3 images: 4 objects, {detections} detections: {right} right, {wrong} wrong; {missed} missed"
        assert text(browser, ".counts").replace("1 detection:", "1 detections:") == line
        where = places(browser)
        for image, name in enumerate(("one.png", "two with space.png"), 1):
            expected = sum(one["image_id"] == image and one["score"] >= steps / 100 for one in DETECTIONS)
            assert drawn(browser, where[name], "detection") == expected
    marks = browser.execute_script(
        "return [...document.querySelectorAll('#curves .mark')].map(m => (m.getAttribute('x1') - 46) / "
        "(m.ownerSVGElement.viewBox.baseVal.width - 60))"
    )
    assert marks == pytest.approx([0.91], abs=0.005)


def test_each_toggle_draws_and_takes_away_its_own(open_page, report):
    browser = open_page(report)
    slide(browser, 0)
    see(browser, "#images .card")
    one = places(browser)["one.png"]
    for key, mark, truths, detections in (
        ("masks", ".mask", 2, 3),
        ("boxes", ".box", 2, 3),
        ("labels", "text", 2, 3),
        ("keypoints", "circle", 2, 2),
    ):
        box = browser.find_element("id", f"show-{key}")
        if box.is_selected():
            box.click()
        assert (drawn(browser, one, "truth", mark), drawn(browser, one, "detection", mark)) == (0, 0), key
        box.click()
        assert (drawn(browser, one, "truth", mark), drawn(browser, one, "detection", mark)) == (truths, detections), key
    assert drawn(browser, one, "detection", ".limb") == 1
    second = f"[data-place='{one}'] .view:nth-child(2) .truth"
    assert count(browser, second) == 0
    click(browser, "#show-truthOver")
    assert count(browser, second) == 2
    dashes = "return getComputedStyle(document.querySelector(arguments[0])).strokeDasharray"
    assert browser.execute_script(dashes, f"{second} .stroke") == "6px, 4px"
    assert browser.execute_script(dashes, f"[data-place='{one}'] .detection .stroke") == "none"


def test_a_class_that_is_switched_off_is_neither_drawn_nor_counted(open_page, report):
    browser = open_page(report)
    slide(browser, 0)
    click(browser, "[data-class='1']")
    assert text(browser, ".counts") == "3 images: 2 objects, 3 detections: 1 right, 2 wrong; 1 missed"
    one = places(browser)["one.png"]
    assert (drawn(browser, one, "truth"), drawn(browser, one, "detection")) == (1, 2)
    browser.find_element("xpath", "//button[text()='None']").click()
    assert text(browser, ".counts") == "3 images: 0 objects, 0 detections: 0 right, 0 wrong; 0 missed"
    browser.find_element("xpath", "//button[text()='All']").click()
    assert text(browser, ".counts").startswith("3 images: 4 objects, 5 detections")


def test_masks_tint_just_their_own_pixels(open_page, report):
    browser = open_page(report)
    slide(browser, 0)
    see(browser, "#images .card")
    for key in ("boxes", "labels", "keypoints"):
        if browser.find_element("id", f"show-{key}").is_selected():
            browser.find_element("id", f"show-{key}").click()
    frame = browser.find_element("css selector", f"[data-place='{places(browser)['one.png']}'] .frame")
    see(browser, f"[data-place='{places(browser)['one.png']}'] .frame")
    pictures = []
    for _ in range(2):
        pictures.append(np.asarray(Image.open(io.BytesIO(frame.screenshot_as_png)).convert("RGB"), np.int64))
        browser.execute_script("document.getElementById('show-masks').click()")
    changed = np.abs(pictures[0] - pictures[1]).max(axis=2) > 10
    expected = np.zeros((80, 120), bool)
    expected[10:40, 10:50] = expected[20:60, 60:90] = True
    rows = (np.arange(changed.shape[0]) * 80 / changed.shape[0]).astype(int)
    columns = (np.arange(changed.shape[1]) * 120 / changed.shape[1]).astype(int)
    assert (changed == expected[np.ix_(rows, columns)]).mean() > 0.95  # all but the outlines' own width
    assert changed[expected[np.ix_(rows, columns)]].mean() > 0.98


def test_order_and_filter_of_the_images(open_page, report):
    browser = open_page(report)
    slide(browser, 0)
    worst_first = list(places(browser))

    def choose(key, value):
        click(browser, f"#{key} option[value='{value}']")
        return list(places(browser))

    assert worst_first[0] == "two with space.png"
    assert choose("order", "name") == ["broken.jpg", "one.png", "two with space.png"]
    assert choose("order", "objects")[-1] == "two with space.png"
    assert choose("order", "listed") == worst_first
    assert choose("filter", "class") == ["two with space.png"]
    assert choose("filter", "localisation") == ["two with space.png"]
    assert choose("filter", "background") == ["one.png"]
    assert choose("filter", "duplicate") == []
    assert sorted(choose("filter", "missed")) == ["broken.jpg", "two with space.png"]


def test_the_table_of_classes_sorts_by_any_column(open_page, report):
    browser = open_page(report)
    rows = "return [...document.querySelectorAll('#classes tbody tr')].map(r => r.firstChild.textContent)"
    values = "return [...document.querySelectorAll('#classes tbody tr')].map(r => r.children[arguments[0]].textContent)"
    click(browser, "#classes thead th:nth-child(1) button")
    assert browser.execute_script(rows) == ["cat", "dog"]
    click(browser, "#classes thead th:nth-child(1) button")
    assert browser.execute_script(rows) == ["dog", "cat"]
    for column in range(2, count(browser, "#classes thead th")):
        click(browser, f"#classes thead th:nth-child({column}) button")
        falling = [float(v) for v in browser.execute_script(values, column - 1) if v != "–"]
        assert falling == sorted(falling, reverse=True)
        assert count(browser, "#classes thead [aria-sort='descending']") == 1


def test_confusion_counts_what_was_taken_for_what(open_page, report):
    browser = open_page(report)
    cells = browser.execute_script(
        "return [...document.querySelectorAll('.confusion tbody tr')].map(r => [...r.children].map(c => c.textContent))"
    )
    # At the best threshold: both of the first image are right, the cat of the second is taken for a dog.
    assert [row[0] for row in cells] == ["cat", "dog", "nothing there"]
    assert cells[0][1:3] == ["1", "1"] and cells[1][1:3] == ["·", "1"]


def test_an_unreadable_image_is_a_labelled_placeholder(open_page, report):
    browser = open_page(report)
    place = places(browser)["broken.jpg"]
    see(browser, f"[data-place='{place}']")
    assert "readable image" in text(browser, f"[data-place='{place}'] .gone")
    assert drawn(browser, place, "truth") == 2
    assert "1 image can't be read" in text(browser, "#images")


def test_hostile_names_are_shown_as_text(open_page, hostile_report):
    browser = open_page(hostile_report)
    see(browser, "#images .card")
    if not browser.find_element("id", "show-labels").is_selected():
        click(browser, "#show-labels")
    assert browser.execute_script("return window.hacked ?? null") is None
    assert count(browser, "script") == 2 and count(browser, "main b, main i, main script") == 0
    assert browser.execute_script("return [...document.querySelectorAll('img')].every(i => i.src.startsWith('data:'))")
    shown = text(browser, "main")
    for name in (*HOSTILE, HOSTILE_FILE, "a \"b\" <i>c & 'd'.png"):
        assert name in shown
    assert HOSTILE[0] in text(browser, "#classes tbody") and HOSTILE[1] in text(browser, ".class-list")
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


@pytest.mark.parametrize("name", ["report", "plain_report", "hostile_report"])
def test_a_phone_needs_no_sideways_scrolling_and_has_room_for_thumbs(open_page, request, name):
    browser = open_page(request.getfixturevalue(name), 360, 740, "dark")
    browser.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
    see(browser, "#images .card")
    widths = browser.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
    assert widths[0] <= widths[1] == 360
    small = browser.execute_script(
        "return [...document.querySelectorAll('button, select, .row label, input[type=range], nav a, summary')]"
        ".filter(e => e.offsetParent && e.getBoundingClientRect().height < 43.5).map(e => e.outerHTML.slice(0, 80))"
    )
    assert small == []
    assert browser.execute_script("return getComputedStyle(document.body).backgroundColor") == "rgb(21, 23, 26)"
    click(browser, ".frame")
    assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    assert browser.execute_script("const d = document.querySelector('dialog'); return d.scrollWidth <= d.clientWidth")


def test_the_keyboard_enlarges_a_picture_and_leafs_through(open_page, report):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    browser = open_page(report)
    slide(browser, 0)
    see(browser, ".frame")
    names = list(places(browser))
    browser.execute_script("document.querySelector('.frame').focus()")
    ActionChains(browser).send_keys(Keys.ENTER).perform()
    assert browser.execute_script("return document.querySelector('dialog').open")
    assert text(browser, "dialog h3") == names[0] == "two with space.png"
    table = text(browser, "dialog tbody")
    assert "wrong class" in table and "badly placed" in table and "missed" in table
    assert count(browser, "dialog .overlay .detection") == 2
    ActionChains(browser).send_keys(Keys.ARROW_RIGHT).perform()
    assert text(browser, "dialog h3") == names[1]
    ActionChains(browser).send_keys(Keys.ESCAPE).perform()
    assert not browser.execute_script("return document.querySelector('dialog').open")


def test_without_a_model_there_is_the_dataset_and_the_ground_truth(open_page, plain_report):
    browser = open_page(plain_report)
    assert count(browser, "#dataset") == 1 and count(browser, "#figures, #errors, #threshold, #classes") == 0
    see(browser, "#images .card")
    assert text(browser, ".counts") == "3 images: 4 objects"
    assert drawn(browser, places(browser)["one.png"], "truth", ".mask") == 2
    charts = browser.execute_script(
        "return [...document.querySelectorAll('#dataset svg')].map(s => s.getAttribute('aria-label'))"
    )
    assert len(charts) >= 5 and all(charts)
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_only_what_is_near_the_window_is_drawn(open_page, tmp_path):
    path, images = write_dataset(tmp_path)
    data = json.loads(path.read_text())
    data["images"] = [data["images"][0] | {"id": number} for number in range(1, 121)]
    path.write_text(json.dumps(data))
    out = tmp_path / "report.html"
    inspect_data(DataConfig(str(path), str(images)), out, progress=False)
    browser = open_page(out)
    see(browser, "[data-place='0']")
    assert count(browser, "[data-place='0'] .overlay") == 1 and count(browser, "[data-place='119'] .overlay") == 0
    assert count(browser, ".overlay") < 80
    see(browser, "[data-place='119']")
    assert count(browser, "[data-place='0'] .overlay") == 0 and count(browser, "[data-place='119'] .overlay") == 1


def test_the_curves_follow_the_chosen_class(open_page, report):
    browser = open_page(report)
    see(browser, "#curves")
    shapes = "return [...document.querySelectorAll('#curves .curve')].map(c => c.getAttribute('d'))"
    legend = "#curves .legend li"
    assert count(browser, "#curves .curve") == 6
    # Both cats are there, one found with the best score: precision 1 up to a recall of a half, 51 of 101 points.
    whole = browser.execute_script(shapes)
    click(browser, "#curve-class option[value='0']")
    assert text(browser, legend) == f"IoU 0.5: AP {51 / 101:.3f}"
    cat = browser.execute_script(shapes)
    assert cat != whole
    click(browser, "#curve-class option[value='-1']")
    assert browser.execute_script(shapes) == whole
