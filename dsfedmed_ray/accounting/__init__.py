"""What a method costs: bytes that travel and milliseconds an image."""
