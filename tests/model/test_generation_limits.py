import pytest
from transformers import GenerationConfig

from hf_maskattn.model.generation_limits import REFUSED, refuse, refuse_settings


@pytest.mark.parametrize("name", ["static", "dynamic", "offloaded", "offloaded_static", "quantized", "paged"])
def test_caches_of_keys_and_values_are_refused(name):
    with pytest.raises(ValueError, match=f"cache_implementation='{name}' is for keys and values that grow with the text"):
        refuse_settings(GenerationConfig(cache_implementation=name))


def test_what_asks_for_nothing_is_not_refused():
    refuse(**dict.fromkeys(REFUSED))
    refuse(**{**dict.fromkeys(REFUSED, False), "guidance_scale": 1.0})
    refuse_settings(GenerationConfig(guidance_scale=1, num_beams=3, do_sample=True))


def test_long_values_are_not_printed():
    with pytest.raises(ValueError, match=r"^assistant_model lets words be guessed ahead"):
        refuse(assistant_model=object())
