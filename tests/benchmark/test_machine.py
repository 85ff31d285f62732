import torch
import transformers

from hf_maskattn.benchmark.machine import describe_machine, has_bf16


def test_machine_and_versions_are_told():
    machine = describe_machine(torch.device("cpu"))
    assert list(machine) == ["CPU", "cores", "oneDNN", "device", "versions"]
    assert f"torch uses {torch.get_num_threads()} at once" in machine["cores"]
    assert f"torch {torch.__version__}, transformers {transformers.__version__}" in machine["versions"]
    assert ("bf16 yes" in machine["oneDNN"]) == has_bf16(torch.device("cpu"))
