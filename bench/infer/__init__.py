"""What encrypted inference costs."""
