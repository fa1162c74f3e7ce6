"""Commits in the git working tree that a file lies in, for the setting `git_commit`.

One commit for each apply, of the files that it wrote and nothing else: what is staged besides stays
staged. While a merge, rebase, cherry-pick or revert is under way nothing is written at all. What
git or a hook of the repository says is not repeated, for it may quote the files.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from envd.backends.errors import StoreUnavailable, StoreUnsupported

TIMEOUT_S: Final = 60.0
"""Hooks run tests at times; who waits longer has a hook that hangs."""

_UNDER_WAY: Final = (
    "MERGE_HEAD",
    "CHERRY_PICK_HEAD",
    "REVERT_HEAD",
    "rebase-merge",
    "rebase-apply",
)
_LITERALLY: Final = "--literal-pathspecs"
"""Names with `*` in them are names; `check-ignore` takes nothing else, and knows no such flag."""
_SETTINGS: Final = (
    *("-c", "user.name=envd", "-c", "user.email=envd@localhost"),
    *("-c", "commit.gpgsign=false", "-c", "core.quotepath=false"),
)
_SHOWN = 20


class GitTree:
    """Calls `git`; `environ` is that of this process, of which git's own variables are left out."""

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        given = os.environ if environ is None else environ
        self._environ = {
            **{name: value for name, value in given.items() if not name.startswith("GIT_")},
            "GIT_TERMINAL_PROMPT": "0",
            "LC_ALL": "C",
        }

    async def check(self, path: Path) -> Path:
        """Return the top of the working tree where a commit of this file can be made now.

        Raises StoreUnsupported where it can never be, and StoreUnavailable where not now.
        """
        if not path.parent.is_dir():
            raise StoreUnavailable(f"{path.parent}: there is no such directory")
        code, out = await self._git(path.parent, "rev-parse", "--show-toplevel")
        if code != 0:
            raise StoreUnsupported(
                f"{path} is in no working tree of git",
                hint="set git_commit = false for the file backend, or run `git init`",
            )
        top = Path(out.rstrip("\n"))
        asked = [word for name in _UNDER_WAY for word in ("--git-path", name)]
        _, places = await self._git(top, "rev-parse", *asked)
        if any((top / place).exists() for place in places.splitlines()):
            raise StoreUnavailable(
                f"{top}: a merge, rebase or the like is under way; nothing was written",
                hint="finish it, or abort it",
            )
        tracked, _ = await self._git(
            top, _LITERALLY, "ls-files", "--error-unmatch", "--", str(path)
        )
        ignored, _ = await self._git(top, "check-ignore", "--quiet", "--", str(path))
        if tracked != 0 and ignored == 0:
            raise StoreUnsupported(
                f"{path} is ignored by git, so it can't be committed",
                hint="set git_commit = false for the file backend",
            )
        return top

    async def commit(self, top: Path, paths: Sequence[Path], names: Sequence[str]) -> None:
        """Commit these files; `names` are the variables that changed, for the message.

        Raises StoreUnavailable where git did not: the files are written all the same.
        """
        files = [str(path) for path in paths]
        added, _ = await self._git(top, _LITERALLY, "add", "--intent-to-add", "--", *files)
        message = _message(top, paths, names)
        committed = 1
        if added == 0:
            committed, _ = await self._git(
                top,
                _LITERALLY,
                *("commit", "--quiet", "--only", "--message", message, "--", *files),
            )
        if committed != 0 and await self._differs(top, files):
            raise StoreUnavailable(
                f"{top}: the file was written, but git did not commit it",
                hint=f"`git -C {top} status` shows it; does a hook refuse it?",
            )

    async def _differs(self, top: Path, files: Sequence[str]) -> bool:
        _, out = await self._git(top, _LITERALLY, "status", "--porcelain", "--", *files)
        return out != ""

    async def _git(self, directory: Path, *arguments: str) -> tuple[int, str]:
        """The exit code of a git command and what it wrote to standard output."""
        try:
            process = await asyncio.create_subprocess_exec(
                "git",
                "-C",
                str(directory),
                *_SETTINGS,
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                env=self._environ,
            )
        except FileNotFoundError as error:
            raise StoreUnsupported(
                "git is not installed, and git_commit = true needs it"
            ) from error
        try:
            async with asyncio.timeout(TIMEOUT_S):
                out, _ = await process.communicate()
        except TimeoutError as error:
            raise StoreUnavailable(f"{directory}: git took too long") from error
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return process.returncode or 0, os.fsdecode(out)


def _message(top: Path, paths: Sequence[Path], names: Sequence[str]) -> str:
    """Example: "Set or unset DATABASE_URL, PORT in web/prod.env"."""
    shown = ", ".join(names[:_SHOWN])
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    files = ", ".join(os.path.relpath(path, top) for path in paths[:_SHOWN])
    return f"Set or unset {shown}{more} in {files}"
