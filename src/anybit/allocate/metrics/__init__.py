"""What a change of each item costs the model: metric tables [items, choices]."""
