"""Pages from the file system in a headless Chromium: what is wrong with them."""

import html.parser
from urllib.parse import unquote, urlsplit

PATIENCE = 300_000  # milliseconds, on a busy machine
DRAWN = ".barlayer path, .hm image, .scatterlayer path"


def problems(path, browser, widths=(1280, 390)):
    """What is wrong with a page in the browser, on a desk and on a phone."""
    found = []
    for width in widths:
        page = browser.new_page(viewport={"width": width, "height": 900})
        page.set_default_timeout(PATIENCE)
        page.on("console", lambda m: found.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: found.append(str(error)))
        page.on("requestfailed", lambda request: found.append(f"not loaded: {request.url}"))
        page.on(
            "request",
            lambda r: found.append(f"network: {r.url}") if r.url.startswith("http") else None,
        )
        page.goto(path.as_uri())
        for plot in page.query_selector_all(".plot"):
            if not any(mark.bounding_box() for mark in plot.query_selector_all(DRAWN)):
                found.append(f"empty plot: {plot.get_attribute('aria-label')}")
        if page.evaluate("document.documentElement.scrollWidth") > width:
            found.append(f"wider than {width} pixels")
        page.close()
    return found


class _Links(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.links, self.ids = [], set()

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.ids.add(attributes.get("id"))
        self.links += [attributes[k] for k in ("href", "src") if k in attributes]


def broken(path):
    """Links of a page to nothing."""
    parser = _Links()
    parser.feed(path.read_text())
    targets = [urlsplit(link) for link in parser.links if not link.startswith("data:")]
    return [
        t.geturl()
        for t in targets
        if t.scheme or not (path.parent / unquote(t.path)).exists() or (t.fragment and not t.path)
    ]
