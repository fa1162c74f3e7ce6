"""Variables as the blocks `env` and `template` of a task of Nomad.

What is secret is read from Vault where the task runs, all from one secret, as a `template` with
`env = true`. A value in `env` is filled in by Nomad once more when the task starts, so what looks
like one of its variables is refused.
"""

from __future__ import annotations

import re

from envd.formats.deployment import Deployment, check_names, refused
from envd.formats.hcl import hcl_string, is_hcl_text

_NAME = "[A-Za-z_][A-Za-z0-9_]*"
_PATH = "[A-Za-z0-9_.-]+(?:/[A-Za-z0-9_.-]+)+"
# What Nomad's client fills in (helper/args: envRe).
_FILLED_IN = re.compile(r"\$\{[a-zA-Z0-9_.-]+\}")


def nomad(deployment: Deployment) -> str:
    """Write what stands inside of a block `task`."""
    check_names(deployment.names, _NAME, "has a name that Nomad would change")
    plain, secret = deployment.split()
    for name, value in plain.items():
        if not is_hcl_text(value):
            raise refused(name, "has a value that is not in Unicode's form NFC")
        if _FILLED_IN.search(value):
            raise refused(name, "has '${...}' in its value, which Nomad would fill in")
    width = max(map(len, plain), default=0)
    rows = "".join(f"  {name:{width}} = {hcl_string(value)}\n" for name, value in plain.items())
    text = f"env {{\n{rows}}}\n"
    return text + "\n" + _template(deployment, secret) if secret else text


def _template(deployment: Deployment, secret: list[str]) -> str:
    place = deployment.place(
        f"secret/data/{deployment.environment}",
        _PATH,
        "the path of a secret as Vault's API has it, such as secret/data/web/prod",
    )
    lines = "".join(f"{name}={{{{ .Data.data.{name} | toJSON }}}}\n" for name in secret)
    return (
        "template {\n"
        f'  destination = "${{NOMAD_SECRETS_DIR}}/{deployment.object_name}.env"\n'
        "  env         = true\n"
        f'  data        = <<EOT\n{{{{ with secret "{place}" -}}}}\n{lines}{{{{ end -}}}}\nEOT\n'
        "}\n"
    )
