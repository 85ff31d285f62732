"""A Space that shows the predictions of a model and their explanations. Write the name of your model here."""

from hf_maskattn.inference.demo import serve_demo

serve_demo("user/name", host="0.0.0.0")
