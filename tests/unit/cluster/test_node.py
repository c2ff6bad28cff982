"""A machine and the others of its job: what differs, and whether the run folder takes files."""
import pytest

from hpclcae.cluster import node
from hpclcae.utils.errors import InputError


@pytest.mark.parametrize("change", ["Python", "hpclcae", "numpy", "h5py", "mpi4py", "MPI"])
def test_what_differs_is_named(change):
    found = node.facts("a library 1.0")
    others = [f"{change} 0.0.1" if fact.startswith(f"{change} ") else fact for fact in found]
    node.compare(found, "; ".join(found))
    with pytest.raises(InputError, match=rf"^{change} \S.* here, {change} 0\.0\.1 on the first "
                                         "node: all nodes must"):
        node.compare(found, "; ".join(others))


def test_a_folder_that_takes_no_files_is_refused(tmp_path, monkeypatch):
    def refuse(**options):
        raise PermissionError(13, "Permission denied")
    monkeypatch.setattr(node.tempfile, "NamedTemporaryFile", refuse)
    with pytest.raises(InputError, match=r"cannot be written \(Permission denied\); choose anoth"):
        node.check_folder(tmp_path)
