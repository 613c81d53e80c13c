"""The `anybit` command: parses, calls the floors below, and shows what came of it. `main.run` is the entry point."""
