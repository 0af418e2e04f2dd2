"""`nsd plugins`: what a spec can name, with fields and defaults."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from nsd.plugins.errors import InputError
from nsd.plugins.screen import console, print_json


def print_plugins(kind: str | None, as_json: bool) -> None:
    """What a spec can name, with fields and defaults."""
    from nsd.plugins import registry
    from nsd.plugins.api import KINDS

    if kind is not None and kind not in KINDS:
        raise InputError(f"no kind of plugin {kind!r}: one of {', '.join(KINDS)}")
    found: list[dict[str, Any]] = []
    for plugin_kind, name, cls in registry.all_plugins():
        if kind in (None, plugin_kind):
            summary = str(cls.__doc__ or "").strip().split("\n")[0]
            schema = cls.Config.model_json_schema()
            found.append(
                {"kind": plugin_kind, "name": name, "version": cls.version, "about": summary, "config": schema}
            )
    broken = [one for one in registry.left_out() if kind is None or one.name.partition(".")[0] in (kind, "?")]
    if as_json:
        print_json({"plugins": found, "left_out": [asdict(one) for one in broken]})
        return
    screen = console()
    for one in broken:
        screen.print(f"left out: {one.name} of {one.distribution}: {one.reason}", soft_wrap=True, markup=False)
    for entry in found:
        screen.print(f"{entry['kind']} {entry['name']}: {entry['about']}")
        required = entry["config"].get("required", [])
        for name, field in entry["config"].get("properties", {}).items():
            default = "required" if name in required else f"default {json.dumps(field.get('default'))}"
            screen.print(f"    {name} ({default}) {field.get('description', '')}".rstrip(), soft_wrap=True)
