from pathlib import Path

import pytest

from tests.made_once import made_once


def test_what_failed_half_way_is_made_anew_and_what_is_whole_is_kept(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    attempts: list[list[str]] = []

    def make(folder: Path) -> None:
        attempts.append([path.name for path in folder.iterdir()])
        (folder / "part").touch()
        if len(attempts) == 1:
            raise OSError
        (folder / "other part").touch()

    with pytest.raises(OSError):  # noqa: PT011 (its own)
        made_once(tmp_path_factory, "made-in-parts", make)
    folders = {made_once(tmp_path_factory, "made-in-parts", make) for _ in range(2)}
    assert attempts == [[], []]
    (folder,) = folders
    assert {"part", "other part"} < {path.name for path in folder.iterdir()}
