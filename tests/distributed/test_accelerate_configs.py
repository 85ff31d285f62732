import json

import pytest
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import DistributedType
from accelerate.utils.launch import prepare_multi_gpu_env

from hf_maskattn.model.modeling_maskattn import MaskAttnPreTrainedModel
from hf_maskattn.model.recurrence import RecurrentLayer
from tests.distributed.launching import CONFIG, ROOT

FOLDER = CONFIG.parent


def launch_arguments(path):
    """Return the arguments that accelerate builds from a file before it starts processes."""
    parser = launch_command_parser()
    return _validate_launch_command(
        parser.parse_args(["--config_file", str(path), "-m", "hf_maskattn.cli", "train", "RECIPE"])
    )[0]


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_config_is_valid_and_says_whether_it_was_run(path):
    config = load_config_from_file(str(path))
    assert config.compute_environment.value == "LOCAL_MACHINE"
    assert config.num_processes == 2
    head = [line for line in path.read_text().splitlines() if line.startswith("# ")]
    assert any(line.startswith("# accelerate launch --config_file configs/accelerate/" + path.name) for line in head)
    assert any(line.startswith(("# run here", "# not run here")) for line in head)


def test_cpu_processes_are_started_without_mpirun():
    arguments = launch_arguments(CONFIG)
    assert arguments.multi_gpu
    assert arguments.use_cpu


def test_fsdp_wraps_recurrent_layers_and_gathers_weights():
    arguments = launch_arguments(FOLDER / "fsdp2_gpus.yaml")
    assert arguments.use_fsdp
    variables = prepare_multi_gpu_env(arguments)
    assert variables["FSDP_VERSION"] == "2"
    assert variables["FSDP_AUTO_WRAP_POLICY"] == "TRANSFORMER_BASED_WRAP"
    assert variables["FSDP_STATE_DICT_TYPE"] == "FULL_STATE_DICT"
    assert "FSDP_TRANSFORMER_CLS_TO_WRAP" not in variables
    assert RecurrentLayer.__name__ in MaskAttnPreTrainedModel._no_split_modules


@pytest.mark.parametrize("stage", [2, 3])
def test_deepspeed_settings_come_from_the_recipe(stage):
    path = FOLDER / f"zero{stage}_gpus.yaml"
    assert load_config_from_file(str(path)).distributed_type == DistributedType.DEEPSPEED
    arguments = launch_arguments(path)
    assert arguments.use_deepspeed
    assert str(arguments.zero3_init_flag).lower() == str(stage == 3).lower()
    settings = json.loads((ROOT / arguments.deepspeed_config_file).read_text())
    zero = settings.pop("zero_optimization")
    assert zero["stage"] == stage
    assert zero.get("stage3_gather_16bit_weights_on_model_save", stage == 2)
    assert {value if isinstance(value, str) else value["enabled"] for value in settings.values()} == {"auto"}
