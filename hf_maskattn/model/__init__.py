"""The models. The files of this folder are saved with the weights; importing one registers all models with transformers."""

from hf_maskattn.auto import register

register()
