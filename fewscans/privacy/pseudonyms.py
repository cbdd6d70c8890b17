"""Pseudonyms: HMAC-SHA256 (RFC 2104) of a name under a key that stays with the user.

A plain hash would be no pseudonym: whoever has a list of patient numbers can hash them all and compare.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from pathlib import Path

from fewscans.errors import UserError
from fewscans.files import canonical_json
from fewscans.privacy.files import write_private_once

KEY_BYTES = 32
_FEWEST = 16
KEY_NAME = "key"


def read_key(private: str | Path, named: str | None = None) -> bytes:
    """The key: of the file `named`, else of ``key`` in the folder `private`, which is made where it is missing.

    Raises
    ------
    UserError
        The file that was named is not there, others may read it, or it holds under 16 bytes.
    """
    path = Path(named) if named is not None else Path(private, KEY_NAME)
    if named is None and not path.exists():
        write_private_once(path, secrets.token_bytes(KEY_BYTES))
    if not path.is_file():
        raise UserError(
            f"pseudonym_key: no such file: {path}. Correct it, or make one: "
            f"(umask 077; head -c {KEY_BYTES} /dev/urandom > FILE)"
        )
    if path.stat().st_mode & 0o077:
        raise UserError(f"pseudonym_key: others may read {path}. Close it: chmod 600 {path}")
    key = path.read_bytes()
    if len(key) < _FEWEST:
        raise UserError(
            f"pseudonym_key: {path} holds {len(key)} bytes; {_FEWEST} at least can't be guessed."
        )
    return key


class Pseudonyms:
    """Names of one data set under a key: the same name has the same pseudonym, in this data set alone."""

    def __init__(self, key: bytes, dataset: str) -> None:
        self._key, self.dataset = key, dataset

    def _of(self, kind: str, *names: str) -> str:
        # JSON, not a join: ("a", "b-c") and ("a-b", "c") must differ, and names hold any character.
        text = canonical_json([kind, self.dataset, *names]).encode()
        return hmac.new(self._key, text, hashlib.sha256).hexdigest()[:16]

    def scan(self, path: str) -> str:
        """Of a scan, a folder or a file, by its path: 16 hex digits, as keys of scans are."""
        return self._of("scan", path)

    def patient(self, name: str) -> str:
        """Of a patient; nothing for nobody."""
        return f"p{self._of('patient', name)}" if name else ""

    def site(self, name: str) -> str:
        """Of a site; nothing for nowhere."""
        return f"site-{self._of('site', name)[:8]}" if name else ""

    def value(self, attribute: str, text: str) -> str:
        """Of a cell of a label table."""
        return f"v{self._of('value', attribute, text)[:12]}" if text else ""

    def mark(self) -> str:
        """Tells this key from others, and says nothing of it (HMAC is a pseudorandom function)."""
        return self._of("mark")
