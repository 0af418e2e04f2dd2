"""Turns a matplotlib figure into an SVG that may stand inside a page: themed, labelled, free of styles and clashes.

    text = svg(figure, "forest", "Differences of the declared claims", "Six intervals; the table below has them.")

Colours are drawn as the sentinels of `COLOURS` and come out as CSS variables (`fill="var(--ink)"`), so that one
drawing serves light, dark and print. Style attributes become presentation attributes, which a strict content
security policy allows; ids get the plot's own prefix; text stays text in the page's font. The same figure always
gives the same bytes.

Limits: what matplotlib writes is rewritten by name; a figure with images, hatches or gradients needs more here.
"""

from __future__ import annotations

import io
import re
import warnings
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from nsd.plugins.untrusted import visible

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Sentinel colours: each stands for the CSS variable of its name in templates/style.css.
COLOURS = {
    "ink": "#010203",
    "muted": "#020304",
    "grid": "#030405",
    "better": "#040506",
    "worse": "#050607",
    "same": "#060708",
    "unsure": "#070809",
    "accent": "#08090a",
    "paper": "#090a0b",
}
_VARIABLES = {value: f"var(--{name})" for name, value in COLOURS.items()}
_DECLARED = ("fill", "stroke", "opacity", "fill-opacity", "stroke-opacity", "stroke-width", "stroke-dasharray")
_KEPT = (*_DECLARED, "stroke-dashoffset", "stroke-linecap", "stroke-linejoin", "text-anchor", "clip-path", "font-size")
_LONG_NUMBER = re.compile(r"-?\d+\.\d{3,}")
_FONT = re.compile(r"(?:(bold|\d00)\s+)?([\d.]+)px")


def svg(figure: Figure, identity: str, title: str, description: str) -> str:
    """The figure as an `<svg>` element with role, title and description. `identity` must be unique in the page."""
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "nsd"}), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a glyph that matplotlib's font lacks is the browser's to draw
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    root = ElementTree.fromstring(buffer.getvalue())
    _strip(root)
    _rename(root, identity)
    width, height = figure.get_size_inches() * 72
    root.attrib = {
        "viewBox": root.attrib["viewBox"],
        "width": f"{width:.0f}",
        "height": f"{height:.0f}",
        "role": "img",
        "class": "plot",
        "aria-labelledby": f"{identity}-title {identity}-desc",
    }
    for name, text in (("desc", description), ("title", title)):
        element = ElementTree.Element(name, {"id": f"{identity}-{name}"})
        element.text = visible(text)
        root.insert(0, element)
    return ElementTree.tostring(root, encoding="unicode")


def _strip(root: ElementTree.Element) -> None:
    """Drop namespaces, metadata and style elements; turn style attributes into presentation attributes."""
    for parent in root.iter():
        for child in list(parent):
            if child.tag.rpartition("}")[2] in ("metadata", "style"):
                parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        element.text = element.text.strip() if element.text and element.tag != "text" else element.text
        element.tail = None
        attributes = {name.rpartition("}")[2]: value for name, value in element.attrib.items()}
        for declaration in attributes.pop("style", "").split(";"):
            name, _, value = (part.strip() for part in declaration.partition(":"))
            if name == "font" and (match := _FONT.search(value)):
                attributes["font-size"] = match[2]
                if match[1]:
                    attributes["font-weight"] = match[1]
            elif name in _KEPT:
                attributes[name] = value
        for name, value in attributes.items():
            if name in ("fill", "stroke"):
                attributes[name] = _VARIABLES.get(value.lower(), value)
            elif name in ("d", "x", "y", "transform", "points", "width", "height"):
                attributes[name] = _LONG_NUMBER.sub(lambda found: f"{float(found[0]):.2f}", value)
        element.attrib = attributes


def _rename(root: ElementTree.Element, identity: str) -> None:
    """Give ids that something refers to the plot's prefix, and drop the others."""
    used = set()
    for element in root.iter():
        for name, value in element.attrib.items():
            if name == "href":
                used.add(value.removeprefix("#"))
            elif name == "clip-path":
                used.add(value.removeprefix("url(#").removesuffix(")"))
    for element in root.iter():
        attributes = element.attrib
        if "id" in attributes:
            held = attributes.pop("id")
            if held in used:
                attributes["id"] = f"{identity}-{held}"
        if "href" in attributes:
            attributes["href"] = f"#{identity}-{attributes['href'].removeprefix('#')}"
        if "clip-path" in attributes:
            attributes["clip-path"] = f"url(#{identity}-{attributes['clip-path'].removeprefix('url(#')}"
