"""Where results of a run go: never into a checkpoint."""
import shutil

import pytest

from hpclcae.experiments.neurons import run_folder
from hpclcae.utils.errors import InputError
from tests.support.tiny_run import write_run


def test_every_way_to_name_a_checkpoint_leads_to_its_run(tmp_path, monkeypatch):
    run = write_run(tmp_path)
    step = run / "checkpoints/step-00000020"
    (tmp_path / "newest").symlink_to(step)
    assert run_folder(str(run)) == run
    for name in (step, step / "model.h5", step / "manifest.json", step / "shard-0000.h5",
                 tmp_path / "newest"):
        assert run_folder(str(name)) == run
    for place, name in ((run / "checkpoints", step.name), (step, "."), (step, "model.h5"),
                        (step / "..", "../checkpoints/step-00000020")):
        monkeypatch.chdir(place)
        assert run_folder(name).resolve() == run


def test_results_of_a_checkpoint_that_was_copied_lie_beside_it(tmp_path):
    run = write_run(tmp_path)
    copy = tmp_path / "elsewhere/best"
    shutil.copytree(run / "checkpoints/step-00000020", copy)
    assert run_folder(str(copy)) == run_folder(str(copy / "model.h5")) == copy.parent
    with pytest.raises(InputError, match="does not exist"):
        run_folder(str(tmp_path / "nothing"))
