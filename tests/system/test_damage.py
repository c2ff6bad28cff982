"""Damage at random in every file that we write: whatever reads it says one line, or does its work.

Some seconds of it; HPCLCAE_FUZZ_SECONDS=600 makes it ten minutes, HPCLCAE_FUZZ_SEED another one.
"""
import os
import sys

import pytest

from tests.support.processes import ROOT, run_limited

SECONDS = float(os.environ.get("HPCLCAE_FUZZ_SECONDS", 8))


def test_damaged_files_are_one_line():
    pytest.importorskip("matplotlib")
    seed = os.environ.get("HPCLCAE_FUZZ_SEED", "0")
    process = run_limited([sys.executable, "-m", "tests.support.fuzz", "--seconds", str(SECONDS),
                           "--seed", seed], 10 * SECONDS + 300, cwd=ROOT)
    said = process.stdout + process.stderr
    assert process.returncode == 0 and '"refused"' in said, said
