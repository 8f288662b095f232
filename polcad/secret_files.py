"""Where secrets lie: in files, or in the credentials that the service manager hands over. Never in a setting itself."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from polcad.errors import ConfigError
from polcad.model import Text

FilePath = Annotated[str, Text(4096)]  # a path, or credential:NAME
CREDENTIAL = "credential:"
CREDENTIALS_VARIABLE = "CREDENTIALS_DIRECTORY"  # set by systemd for LoadCredential=


def path_of(written: str, key: str, environ: Mapping[str, str] = os.environ) -> Path:
    """The file that the setting `key` names; ConfigError where it is a credential and nobody handed any over."""
    if not written.startswith(CREDENTIAL):
        return Path(written)
    folder = environ.get(CREDENTIALS_VARIABLE)
    if not folder:
        raise ConfigError(
            f"{key}={written!r}: {CREDENTIALS_VARIABLE} is not set: systemd sets it by LoadCredential= in the unit; "
            "by hand, as root, it is mostly /etc/credstore"
        )
    return Path(folder) / written.removeprefix(CREDENTIAL)


def read_secret(written: str, key: str, environ: Mapping[str, str] = os.environ) -> bytes:
    """What the file of the setting `key` holds; ConfigError, which never shows it, where it cannot be read."""
    try:
        return path_of(written, key, environ).read_bytes()
    except OSError as error:
        raise ConfigError(f"{key}={written!r} cannot be read: {error.strerror}") from None


def open_to_others(path: Path) -> bool:
    """Whether others than the owner and the group may read or write the file; OSError."""
    return bool(path.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH))


def write_file(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Put a whole new file in the place of an old one; it never has another mode than `mode`."""
    draft = path.with_name(f".{path.name}.new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        os.fchmod(file.fileno(), mode)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
