"""Finding builds: by path, name and version, and only inside of the store."""

from __future__ import annotations

from pathlib import Path

import pytest

from dataprep.common.errors import StoreError
from dataprep.common.lookup import LATEST, check_name, latest_version, locate, names, versions
from tests.support.versions import write_version


@pytest.mark.parametrize("reference", ["{path}", "n", "n@v1", "n@v"])
def test_a_version_is_found_by_path_name_and_version(tmp_path: Path, reference: str) -> None:
    path = write_version(tmp_path)
    assert locate(tmp_path, reference.format(path=path)) == path.resolve()
    assert latest_version(tmp_path, "n") == "v1"


@pytest.mark.parametrize("reference", ["m", "n@w1", "../n", "n@../x", "/nowhere", "n" * 300, "n@" + "v" * 300, "a\0b"])
def test_an_unknown_build_is_refused_with_those_that_exist(tmp_path: Path, reference: str) -> None:
    write_version(tmp_path)
    with pytest.raises(StoreError, match="Available.*: (n|v1)"):
        locate(tmp_path, reference)


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "a..b", "x" * 97, "a b", "a\0"])
def test_a_name_cannot_lead_out_of_the_store(name: str) -> None:
    with pytest.raises(StoreError, match="cannot be a build's name"):
        check_name(name)


def test_links_are_neither_names_nor_versions_nor_the_latest(tmp_path: Path) -> None:
    outside = write_version(tmp_path / "outside")
    store = tmp_path / "store"
    path = write_version(store)
    (store / "n" / "v2").symlink_to(outside)
    (store / "linked").symlink_to(outside.parent)
    (store / "n" / LATEST).unlink()
    (store / "n" / LATEST).symlink_to(outside)
    assert (names(store), versions(store, "n")) == (["n"], ["v1"])
    assert latest_version(store, "n") is None
    with pytest.raises(StoreError, match="has no latest build"):
        locate(store, "n")
    assert locate(store, "n@v1") == path.resolve()
    assert not list(outside.parent.glob(".verified-*"))
