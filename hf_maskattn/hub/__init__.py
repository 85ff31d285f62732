"""Publishing on the Hugging Face Hub: the files, the commit, and the model card."""
