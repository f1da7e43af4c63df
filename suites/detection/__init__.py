"""Detection: average precision and its intervals, detectors over a backbone's pyramid, and their training."""
