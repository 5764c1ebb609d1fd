"""What one plan costs in accuracy when masks, noise, compression and an adaptive clip are all in it."""
