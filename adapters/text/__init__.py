"""Text encoders in Hugging Face folders: the network, its tokenizer and its pooling, each as the folder states it."""
