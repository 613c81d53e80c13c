"""One choice an item at the least total cost within budgets."""
