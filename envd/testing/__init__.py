"""What the author of a backend tests it with: the conformance kit, and faults on purpose.

conformance     the suite that every backend passes: `class TestMine(BackendConformance)`
harness         what an author says and does for it
faulty          a backend around another one that goes wrong as it is told
proxy           a loopback HTTP proxy that does the same to an SDK, and holds it to real limits
report          a pytest plugin that tells what passed, what was skipped and why

This is the only package here that knows pytest (`pip install 'envd-cluster[testing]'`). Nothing
else in envd imports it. `docs/backends.md` shows how it is used.
"""

import pytest

pytest.register_assert_rewrite("envd.testing.groups", "envd.testing.trial")
