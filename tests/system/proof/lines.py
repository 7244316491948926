"""Files that keep, line by line in JSON, what was found of Lapse's source as it is."""

import json
from hashlib import blake2b
from pathlib import Path

SOURCE = Path(__file__).parents[3] / "src" / "lapse"


class Lines:
    """The lines of a file that are about the source as it is; without a file nothing is kept.

    The first line that is added when the source has changed takes the place of all before.
    """

    def __init__(self, path=None):
        self._path, self.source = path, source()
        read = path.read_text("utf-8").splitlines() if path and path.exists() else []
        self.lines = [one for one in map(json.loads, read) if one["source"] == self.source]

    def keep(self, which, told):
        """Keep what is told of something; `which` says of what, and a later line replaces it."""
        which = {"source": self.source, **which}
        self.lines = [line for line in self.lines if not which.items() <= line.items()]
        self.lines.append(which | told)
        if self._path:
            text = "".join(json.dumps(line) + "\n" for line in self.lines)
            self._path.write_text(text, "utf-8")


def source():
    """Return a digest of all that a server runs of Lapse."""
    digest = blake2b(digest_size=6)
    for path in sorted(SOURCE.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(f"{path.relative_to(SOURCE)}\0".encode() + path.read_bytes())
    return digest.hexdigest()
