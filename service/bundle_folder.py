"""The folder of the bundles that can be put in service: names in requests are only looked up here.

A name is one folder directly below, or a link to one, as `cofine publish` lays them out; it is
known by the folder that it leads to, because a link may move. Nothing leads out of the folder.
"""

from collections.abc import Iterator
from pathlib import Path

from model.bundle import MANIFEST, read_manifest
from model.errors import BundleError
from service.errors import BundleNotFoundError, BundleRefusedError, SettingsError
from service.rollout import BundleReference


class BundleFolder:
    """What `COFINE_BUNDLES` names; without it there is the bundle in service and no other one."""

    def __init__(self, path: Path | None, served: Path) -> None:
        """Look at the folder `path`, which must hold the bundle `served`.

        Raises:
            SettingsError: it does not.
        """
        self._path = None if path is None else path.resolve()
        if self._path is not None and served.resolve().parent != self._path:
            raise SettingsError(
                f"COFINE_BUNDLE: {served} must be a folder directly in COFINE_BUNDLES, {path}"
            )

    def references(self) -> Iterator[BundleReference]:
        """Yield the bundles that are there, by name; what has no manifest yet is none.

        None where the folder cannot be read: what is open is known without it.
        """
        try:
            entries = sorted(self._path.iterdir()) if self._path is not None else []
        except OSError:
            return
        for folder in entries:
            if folder.is_symlink() or folder.name.startswith(".") or not folder.is_dir():
                continue
            if (folder / MANIFEST).is_file():
                try:
                    yield BundleReference(name=folder.name, bundle=read_manifest(folder).bundle_id)
                except BundleError:
                    continue

    def reference(self, name: str) -> BundleReference:
        """Return the bundle that a request means by `name`.

        Raises:
            BundleNotFoundError: there is no such folder.
            BundleRefusedError: its manifest, or the folder of the bundles, cannot be read.
        """
        folder = self.path_of(name)
        try:
            return BundleReference(name=folder.name, bundle=read_manifest(folder).bundle_id)
        except BundleError as error:
            raise BundleRefusedError(_without_path(error, folder)) from None

    def path_of(self, name: str) -> Path:
        """Return the folder of a name.

        Raises:
            BundleNotFoundError: there is none, or it leads out of the folder of the bundles.
            BundleRefusedError: the folder of the bundles cannot be read.
        """
        if self._path is None:
            raise BundleNotFoundError("no bundles can be chosen: COFINE_BUNDLES is not set")
        try:
            known = {entry.name: entry for entry in self._path.iterdir()}  # so never a path
        except OSError as error:
            raise BundleRefusedError(f"COFINE_BUNDLES cannot be read: {error.strerror}") from None
        entry = known.get(name)
        folder = None if entry is None else entry.resolve()
        if folder is None or folder.parent != self._path or not folder.is_dir():
            raise BundleNotFoundError("there is no bundle of this name; see GET /v1/bundles")
        return folder


def refusal(error: BundleError, folder: Path) -> BundleRefusedError:
    """Return why a bundle is refused, for a client."""
    return BundleRefusedError(_without_path(error, folder))


def _without_path(error: BundleError, folder: Path) -> str:
    """Return why, without telling a client where the folder lies on this machine."""
    return str(error).replace(str(folder), folder.name)
