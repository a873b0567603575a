"""Vega, Vega-Lite and vega-embed in one script, so that a page opens without a network.

vl-convert carries them; putting them together takes seconds, so the result is kept in the user's cache folder.
"""

import os
from importlib.metadata import version
from pathlib import Path


def cache_folder() -> Path:
    """Where whet keeps what can be made anew."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "whet"


def script() -> str:
    """The bundle: it sets `window.vegaEmbed`; about 0.9 MB."""
    import vl_convert

    vega_lite = vl_convert.get_vegalite_versions()[-1]
    kept = cache_folder() / f"embed-{version('vl-convert-python')}-{vega_lite}.js"
    if kept.exists():
        return kept.read_text(encoding="utf-8")
    text: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=vega_lite)
    if "</script" in text.lower():
        raise ValueError("The Vega bundle has a closing script tag in it and cannot be put into a page.")
    aside = kept.with_suffix(f".{os.getpid()}.aside")
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text(text, encoding="utf-8")
        os.replace(aside, kept)
    except OSError:  # a cache that cannot be written costs seconds, not the report
        pass
    return text
