"""`python -m hf_maskattn.cli`, and `accelerate launch -m hf_maskattn.cli`."""

from hf_maskattn.cli import main

main()
