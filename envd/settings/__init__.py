"""The settings of the daemon: one typed, immutable model from four sources.

Defaults are overridden by a TOML file, that by the environment (`ENVD_*`), that by flags.
Everything is checked at start, also what this version does not act on yet, and an error says
where the wrong value came from, what is expected and, for an unknown key, which key is
meant; it never quotes a value.

    parser = argparse.ArgumentParser("envd")
    add_flags(parser)
    flags = vars(parser.parse_args())
    settings = load(flags, os.environ, config_file(flags, os.environ))

Inside the package: `model` has the sections and keys, `marks` what a key may say of itself,
`schema` reads the model as a tree; `document`, `flags` and `reading` take values in,
`loading` merges them, `rules` checks them together and `rendering` prints them.
"""

from __future__ import annotations

from envd.settings.flags import FLAGS, add_flags, config_file
from envd.settings.loading import FLAG_REASON, Machine, default_data_dir, load
from envd.settings.model import Settings
from envd.settings.rendering import MASK, render_effective
from envd.settings.units import Address, Duration

__all__ = [
    "FLAGS",
    "FLAG_REASON",
    "MASK",
    "Address",
    "Duration",
    "Machine",
    "Settings",
    "add_flags",
    "config_file",
    "default_data_dir",
    "load",
    "render_effective",
]
