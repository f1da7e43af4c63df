"""Dialects: how official code names the tensors of networks that timm has under other names."""
