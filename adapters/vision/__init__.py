"""Image and video networks of Hugging Face folders that transformers itself builds from the folder's configuration."""
