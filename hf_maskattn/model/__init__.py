"""The models. Files of this folder travel with the weights; importing one of them here registers all with transformers."""

from hf_maskattn.auto import register

register()
