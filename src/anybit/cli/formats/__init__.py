"""What `anybit formats` measures and draws."""
