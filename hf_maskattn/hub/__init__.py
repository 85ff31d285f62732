"""Publishing on the Hugging Face Hub: what is uploaded, the commit, and the model card."""
