"""`python -m hf_maskattn`, the same as `hf-maskattn`."""

from hf_maskattn.cli import main

main()
